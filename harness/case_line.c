/* How does one check become one line of text, and back?  The keys are in case_keys.c; whether a
 * model allows the case is asked in case_check.c. */
/* SPDX-License-Identifier: MIT */
#include "harness/case.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
    char *start;
    size_t size, length; /* of the buffer; of everything appended, even what did not fit */
};

__attribute__((format(printf, 2, 3))) static void append(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const bool fits = t->length < t->size;
    t->length +=
        (size_t)vsnprintf(fits ? t->start + t->length : NULL, fits ? t->size - t->length : 0, format, args);
    va_end(args);
}

static void append_kernels(struct text *t, const struct check_case *c) {
    for (int s = 0; s < S_COUNT; s++)
        if (c->kernel[s]) append(t, ",kernel.%s=%s", stage_table[s].name, c->kernel[s]->name);
}

/* Part and tp always; cached where the phase has any. */
static bool is_printed(int key, const struct check_case *c) {
    if (key == CASE_KEY(tp)) return true;
    if (key == CASE_KEY(cached) && c->phase == PHASE_PREFILL && c->cached == 0) return false;
    return case_key_is_set(key, c);
}

static size_t print_case(const struct check_case *c, char *line, size_t size) {
    struct text t = {line, size, 0};
    char gap = ':', value[32];
    append(&t, "%s/%s", c->model, part_name(c->part));
    for (int k = 0; case_keys[k].name; k++) {
        if (k == CASE_KEY(seed)) append_kernels(&t, c);
        if (!is_printed(k, c)) continue;
        case_key_text(k, c, value, sizeof value);
        append(&t, "%c%s=%s", gap, case_keys[k].name, value);
        gap = ',';
    }
    return t.length;
}

void case_print(const struct check_case *c, char *line, size_t size) {
    const size_t length = print_case(c, line, size);
    assert(length < size);
    (void)length;
}

size_t case_line_length(const struct check_case *c) { return print_case(c, NULL, 0); }

/* "param2-17b/atention" is a mistyped part rather than a path: presets are no folders. */
static struct status check_mistyped_part(const char *model) {
    const char *slash = strrchr(model, '/');
    if (!slash) return status_ok();
    for (const char *const *preset = model_preset_names(); *preset; preset++)
        if (strlen(*preset) == (size_t)(slash - model) && !strncmp(*preset, model, (size_t)(slash - model)))
            return status_error("%.200s: no such part; use attention or ffn", model);
    return status_ok();
}

struct status case_set_model(struct check_case *c, const char *text, size_t length) {
    if (length == 0) return status_error("a case starts with a model, MODEL[/PART][:key=value,...]");
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ')
            return status_error("the model's name holds a control character; rename it");
    if (length >= sizeof c->model)
        return status_error("%.60s...: a model is named in at most %d bytes; use a shorter path", text,
                            PATH_BYTES - 1);
    memset(c->model, 0, sizeof c->model);
    memcpy(c->model, text, length);
    return check_mistyped_part(c->model);
}

static bool *given_flag(struct case_given *given, const char *key) {
    const int k = case_key_by_name(key);
    if (k >= 0) return &given->key[k];
    const int stage = stage_by_name(key + strlen("kernel."));
    return &given->kernel[stage];
}

/* One key=value of a case line. */
static struct status read_item(const char *item, size_t length, struct check_case *c,
                               struct case_given *given) {
    char key[96], label[104];
    const char *equals = memchr(item, '=', length);
    if (!equals || equals == item || (size_t)(equals - item) >= sizeof key)
        return status_error("'%.*s': expected key=value", length < 60 ? (int)length : 60, item);
    char value[96];
    const size_t value_length = length - (size_t)(equals + 1 - item);
    if (value_length >= sizeof value)
        return status_error("%.60s...: no value is that long; use key=value,...", item);
    snprintf(key, sizeof key, "%.*s", (int)(equals - item), item);
    snprintf(value, sizeof value, "%.*s", (int)value_length, equals + 1);
    snprintf(label, sizeof label, "%s=", key);
    TRY(case_set(c, label, key, value));
    bool *flag = given_flag(given, key);
    if (*flag) return status_error("%s%s: %s is given twice", label, value, key);
    *flag = true;
    return status_ok();
}

/* ---- where a line is cut: the rules are in case.h ---- */

/* The end of "/PART", if that is what stands there. */
static const char *skip_part(const char *slash, enum part *part) {
    for (int p = 0; p < PART_COUNT; p++) {
        const size_t n = strlen(part_name((enum part)p));
        if (strncmp(slash + 1, part_name((enum part)p), n) || (slash[1 + n] && slash[1 + n] != ':')) continue;
        *part = (enum part)p;
        return slash + 1 + n;
    }
    return NULL;
}

/* The ':' before the keys of a line without a part. */
static const char *find_keys(const char *line) {
    const size_t n = strlen(line);
    const char *const slash = strrchr(line, '/'), *const colon = strrchr(slash ? slash : line, ':');
    if (!colon || (n > 5 && !strcmp(line + n - 5, ".json"))) return NULL;
    return !slash || strchr(colon, '=') ? colon : NULL;
}

struct status case_read(const char *line, struct check_case *c, struct case_given *given) {
    *c = case_defaults();
    *given = (struct case_given){0};
    const char *const slash = strrchr(line, '/');
    const char *at = slash && slash != line ? skip_part(slash, &c->part) : NULL;
    given->part = at != NULL;
    if (!at) at = find_keys(line);
    const size_t length = given->part ? (size_t)(slash - line) : at ? (size_t)(at - line) : strlen(line);
    TRY(case_set_model(c, line, length));
    for (const char *item = at && *at ? at + 1 : NULL; item;) {
        const size_t n = strcspn(item, ",");
        TRY(read_item(item, n, c, given));
        item = item[n] ? item + n + 1 : NULL;
    }
    return status_ok();
}

struct status case_parse(const char *line, struct check_case *c, bool *has_part) {
    struct case_given given;
    TRY(case_read(line, c, &given));
    case_finish(c);
    *has_part = given.part;
    return status_ok();
}

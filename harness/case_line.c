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

static struct status read_model(const char *text, size_t length, struct check_case *c,
                                struct case_given *given) {
    if (length == 0) return status_error("a case starts with a model, MODEL[/PART][:key=value,...]");
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ')
            return status_error("the model's name holds a control character; rename it");
    char name[sizeof c->model + 16];
    if (length >= sizeof name)
        return status_error("%.60s...: a model is named in at most %zu bytes", text, sizeof c->model - 1);
    memcpy(name, text, length);
    name[length] = 0;
    char *slash = strrchr(name, '/');
    if (slash && slash != name && part_by_name(slash + 1, &c->part)) {
        given->part = true;
        *slash = 0;
    }
    if (strlen(name) >= sizeof c->model)
        return status_error("%.60s...: a model is named in at most %zu bytes", text, sizeof c->model - 1);
    TRY(check_mistyped_part(name));
    memset(c->model, 0, sizeof c->model);
    memcpy(c->model, name, strlen(name));
    return status_ok();
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

struct status case_read(const char *line, struct check_case *c, struct case_given *given) {
    *c = case_defaults();
    *given = (struct case_given){0};
    const char *colon = strrchr(line, ':');
    if (colon && strchr(colon, '/')) colon = NULL; /* of a path; no key or value has a slash */
    TRY(read_model(line, colon ? (size_t)(colon - line) : strlen(line), c, given));
    if (!colon) return status_ok();
    for (const char *item = colon + 1;;) {
        const size_t length = strcspn(item, ",");
        TRY(read_item(item, length, c, given));
        if (!item[length]) return status_ok();
        item += length + 1;
    }
}

struct status case_parse(const char *line, struct check_case *c, bool *has_part) {
    struct case_given given;
    TRY(case_read(line, c, &given));
    case_finish(c);
    *has_part = given.part;
    return status_ok();
}

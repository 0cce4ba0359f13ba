/* How does one check become one line of text, and back?  A table of keys drives printing, parsing and the
 * errors. Whether a model allows the case is asked in case_check.c. */
/* SPDX-License-Identifier: MIT */
#include "harness/case.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "layer/choices.h"
#include "layer/plan.h"

static const char *const phase_names[PHASE_COUNT] = {
    [PHASE_PREFILL] = "prefill", [PHASE_CHUNKED] = "chunked", [PHASE_DECODE] = "decode"};
static const char *const layout_names[LAYOUT_COUNT] = {
    [LAYOUT_PACKED] = "packed", [LAYOUT_CONTIG] = "contig"};
static const char *const part_names[PART_COUNT] = {[PART_ATTENTION] = "attention", [PART_FFN] = "ffn"};

const char *phase_name(enum phase p) { return phase_names[p]; }
const char *layout_name(enum layout l) { return layout_names[l]; }
const char *part_name(enum part p) { return part_names[p]; }

/* Value names by number; NULL: a number that is no legal value of the key. */
static const char *phase_value(int i) { return phase_names[i]; }
static const char *layout_value(int i) { return layout_names[i]; }
static const char *dtype_value(int i) {
    return i == DTYPE_BF16 || i == DTYPE_F32 ? dtype_name((enum dtype)i) : NULL;
}
static const char *fill_value(int i) { return fill_name((enum fill_kind)i); }
static const char *device_value(int i) { return device_kind_name((enum device_kind)i); }

/* A key holds an int64_t (seed: uint64_t), or an enum where `value` names its numbers. */
struct key_row {
    const char *name;
    size_t offset;
    uint64_t min, max;
    const char *(*value)(int number);
    int n_values;
};
#define FIELD(name) offsetof(struct check_case, name)
static const struct key_row key_table[KEY_COUNT] = {
    [KEY_TP] = {"tp", FIELD(tp), 1, MAX_RANKS, NULL, 0},
    [KEY_EP] = {"ep", FIELD(ep), 1, MAX_RANKS, NULL, 0},
    [KEY_PHASE] = {"phase", FIELD(phase), 0, 0, phase_value, PHASE_COUNT},
    [KEY_TOKENS] = {"tokens", FIELD(tokens), 1, 65536, NULL, 0},
    [KEY_CACHED] = {"cached", FIELD(cached), 0, 65536, NULL, 0},
    [KEY_SEQS] = {"seqs", FIELD(seqs), 1, 256, NULL, 0},
    [KEY_LAYER] = {"layer", FIELD(layer), 0, 65535, NULL, 0},
    [KEY_DTYPE] = {"dtype", FIELD(dtype), 0, 0, dtype_value, DTYPE_COUNT},
    [KEY_LAYOUT] = {"layout", FIELD(layout), 0, 0, layout_value, LAYOUT_COUNT},
    [KEY_FILL] = {"fill", FIELD(fill), 0, 0, fill_value, FILL_COUNT},
    [KEY_DEVICE] = {"device", FIELD(device), 0, 0, device_value, DEVICE_COUNT},
    [KEY_SEED] = {"seed", FIELD(seed), 0, UINT64_MAX, NULL, 0},
};
#undef FIELD
_Static_assert(sizeof(enum phase) == sizeof(int) && sizeof(enum dtype) == sizeof(int),
               "enums are read as int");

static const char kernel_prefix[] = "kernel.";

const char *case_key_name(enum case_key key) { return key_table[key].name; }

struct check_case case_defaults(void) {
    return (struct check_case){
        .layer = -1,
        .phase = PHASE_PREFILL,
        .tokens = 33,
        .cached = -1,
        .seqs = 1,
        .tp = 1,
        .ep = 1,
        .dtype = DTYPE_BF16,
        .layout = LAYOUT_PACKED,
        .fill = FILL_RANDOM,
        .device = DEVICE_HOST,
        .seed = 1,
    };
}

static int64_t default_cached(enum phase phase) {
    static const int64_t cached[PHASE_COUNT] = {
        [PHASE_PREFILL] = 0, [PHASE_CHUNKED] = 64, [PHASE_DECODE] = 129};
    return cached[phase];
}

void case_finish(struct check_case *c) {
    if (c->cached < 0) c->cached = default_cached(c->phase);
}

/* ---- one key ---- */

static uint64_t key_load(const struct key_row *row, const struct check_case *c) {
    const char *at = (const char *)c + row->offset;
    int number;
    uint64_t wide;
    if (!row->value) return memcpy(&wide, at, sizeof wide), wide;
    memcpy(&number, at, sizeof number);
    return (uint64_t)number;
}

static void key_store(const struct key_row *row, struct check_case *c, uint64_t wide) {
    char *at = (char *)c + row->offset;
    const int number = (int)wide;
    if (row->value)
        memcpy(at, &number, sizeof number);
    else
        memcpy(at, &wide, sizeof wide);
}

/* Digits only: no sign, no space, no rest, no overflow. */
static bool parse_number(const char *text, uint64_t *out) {
    uint64_t n = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        if (__builtin_mul_overflow(n, (uint64_t)10, &n)) return false;
        if (__builtin_add_overflow(n, (uint64_t)(*text - '0'), &n)) return false;
    }
    *out = n;
    return true;
}

static bool parse_value(const struct key_row *row, const char *text, uint64_t *out) {
    if (!row->value) return parse_number(text, out) && *out >= row->min && *out <= row->max;
    for (int i = 0; i < row->n_values; i++)
        if (row->value(i) && !strcmp(row->value(i), text)) {
            *out = (uint64_t)i;
            return true;
        }
    return false;
}

static void value_choices(const struct key_row *row, const char *typed, char *text, size_t size) {
    if (!row->value) {
        snprintf(text, size, "an integer from %llu to %llu", (unsigned long long)row->min,
                 (unsigned long long)row->max);
        return;
    }
    struct choices choices = {0};
    for (int i = 0; i < row->n_values; i++)
        if (row->value(i)) choices_add(&choices, "%s", row->value(i));
    choices_text(&choices, typed, text, size);
}

void case_key_values(enum case_key key, char *text, size_t size) {
    value_choices(&key_table[key], NULL, text, size);
}

/* "--tp 3" on the command line, "tp=3" in a case line: a label that ends in '=' takes the value as it is. */
static const char *label_gap(const char *label) {
    return *label && label[strlen(label) - 1] == '=' ? "" : " ";
}

static struct status set_kernel(struct check_case *c, const char *label, const char *stage,
                                const char *name) {
    struct choices choices = {0};
    char text[300];
    const int s = stage_by_name(stage);
    if (s < 0) {
        for (int i = 0; i < S_COUNT; i++) choices_add(&choices, "%s", stage_table[i].name);
        choices_text(&choices, stage, text, sizeof text);
        return status_error("%s%s%.48s: no stage %.48s; use %s", label, label_gap(label), name, stage, text);
    }
    const enum op op = stage_table[s].op;
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op != op) continue;
        if (!strcmp(k->name, name)) {
            c->kernel[s] = k;
            return status_ok();
        }
        choices_add(&choices, "%s", k->name);
    }
    choices_text(&choices, name, text, sizeof text);
    const struct kernel *other = kernel_by_name(name);
    if (other)
        return status_error("%s%s%s: computes %s, the stage needs %s; use %s", label, label_gap(label), name,
                            op_name(other->op), op_name(op),
                            choices.n ? text : "none, this build has no kernel for it");
    return status_error("%s%s%.48s: no such kernel for stage %s; use %s", label, label_gap(label), name,
                        stage, choices.n ? text : "none, this build has no kernel for it");
}

static const struct key_row *key_by_name(const char *name) {
    for (int k = 0; k < KEY_COUNT; k++)
        if (!strcmp(key_table[k].name, name)) return &key_table[k];
    return NULL;
}

struct status case_set(struct check_case *c, const char *label, const char *key, const char *value) {
    if (!strncmp(key, kernel_prefix, strlen(kernel_prefix)))
        return set_kernel(c, label, key + strlen(kernel_prefix), value);
    const struct key_row *row = key_by_name(key);
    uint64_t wide;
    char text[300];
    if (!row) {
        struct choices choices = {0};
        for (int k = 0; k < KEY_COUNT; k++) choices_add(&choices, "%s", key_table[k].name);
        choices_add(&choices, "kernel.STAGE");
        choices_text(&choices, key, text, sizeof text);
        return status_error("%s%s%.48s: no such key; use %s", label, label_gap(label), value, text);
    }
    if (!parse_value(row, value, &wide)) {
        value_choices(row, value, text, sizeof text);
        return status_error("%s%s%.48s: use %s", label, label_gap(label), value, text);
    }
    key_store(row, c, wide);
    return status_ok();
}

/* ---- the line ---- */

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
        if (c->kernel[s]) append(t, ",%s%s=%s", kernel_prefix, stage_table[s].name, c->kernel[s]->name);
}

static size_t print_case(const struct check_case *c, char *line, size_t size) {
    const struct check_case defaults = case_defaults();
    struct text t = {line, size, 0};
    append(&t, "%s/%s", c->model, part_name(c->part));
    for (int k = 0; k < KEY_COUNT; k++) {
        const struct key_row *row = &key_table[k];
        const uint64_t value = key_load(row, c);
        if (k == KEY_SEED) append_kernels(&t, c);
        if (k != KEY_TP && value == key_load(row, &defaults)) continue;
        if (k == KEY_CACHED && c->phase == PHASE_PREFILL && c->cached == 0)
            continue; /* else it is always printed */
        append(&t, "%c%s=", k == KEY_TP ? ':' : ',', row->name);
        if (row->value)
            append(&t, "%s", row->value((int)value));
        else
            append(&t, "%llu", (unsigned long long)value);
    }
    return t.length;
}

void case_print(const struct check_case *c, char *line, size_t size) {
    const size_t length = print_case(c, line, size);
    assert(length < size);
    (void)length;
}

size_t case_line_length(const struct check_case *c) { return print_case(c, NULL, 0); }

static bool part_by_name(const char *name, enum part *out) {
    for (int p = 0; p < PART_COUNT; p++)
        if (!strcmp(part_names[p], name)) {
            *out = (enum part)p;
            return true;
        }
    return false;
}

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
    const struct key_row *row = key_by_name(key);
    if (row) return &given->key[row - key_table];
    if (strncmp(key, kernel_prefix, strlen(kernel_prefix))) return NULL;
    const int stage = stage_by_name(key + strlen(kernel_prefix));
    return stage < 0 ? NULL : &given->kernel[stage];
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
    if (colon && strchr(colon, '/')) colon = NULL; /* a colon inside a path; no key or value has a slash */
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

/* What are the keys of a case?  One table of them serves printing, parsing, the errors, the
 * options of the command line and their help; here is what is done with one key. Lines are in
 * case_line.c. */
/* SPDX-License-Identifier: MIT */
#include "harness/case.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "layer/choices.h"
#include "layer/plan.h"

static const char *const phase_names[PHASE_COUNT] = {
    [PHASE_PREFILL] = "prefill", [PHASE_CHUNKED] = "chunked", [PHASE_DECODE] = "decode"};
static const char *const layout_names[LAYOUT_COUNT] = {
    [LAYOUT_PACKED] = "packed", [LAYOUT_CONTIG] = "contig"};
static const char *const lengths_names[LENGTHS_COUNT] = {
    [LENGTHS_RAGGED] = "ragged", [LENGTHS_EQUAL] = "equal", [LENGTHS_SPREAD] = "spread"};

const char *phase_name(enum phase p) { return phase_names[p]; }
const char *layout_name(enum layout l) { return layout_names[l]; }

/* Value names by number; NULL: a number that is no legal value of the key. */
static const char *phase_value(int i) { return phase_names[i]; }
static const char *lengths_value(int i) { return lengths_names[i]; }
static const char *layout_value(int i) { return layout_names[i]; }
static const char *dtype_value(int i) {
    return dtype_is_storage((enum dtype)i) ? dtype_name((enum dtype)i) : NULL;
}
static const char *fill_value(int i) { return fill_name((enum fill_kind)i); }
static const char *device_value(int i) { return device_kind_name((enum device_kind)i); }

static const char *const switch_names[] = {"off", "on"};
static const char *const bias_names[] = {"none", "qkv", "qkvo"};
static const char *const score_names[] = {[SCORE_SOFTMAX] = "softmax", [SCORE_SIGMOID] = "sigmoid"};
static const char *const group_fill_names[] = {[GROUP_FILL_INF] = "-inf", [GROUP_FILL_ZERO] = "0"};
static const char *switch_value(int i) { return switch_names[i]; }
static const char *bias_value(int i) { return bias_names[i]; }
static const char *score_value(int i) { return score_names[i]; }
static const char *group_fill_value(int i) { return group_fill_names[i]; }

/* ---- what a key makes of the model's layer ---- */

static void set_hidden(struct layer_spec *s, int64_t n) { s->hidden = n; }
static void set_heads(struct layer_spec *s, int64_t n) { s->n_heads = n; }
static void set_kv(struct layer_spec *s, int64_t n) { s->n_kv_heads = n; }
static void set_rot(struct layer_spec *s, int64_t n) { s->rot_dim = n; }
static void set_qk_norm(struct layer_spec *s, int64_t on) { s->qk_norm = on; }
static void set_experts(struct layer_spec *s, int64_t n) { s->n_experts = n; }
static void set_top(struct layer_spec *s, int64_t n) { s->top_k = n; }
static void set_width(struct layer_spec *s, int64_t n) { s->expert_width = n; }
static void set_shared(struct layer_spec *s, int64_t n) { s->shared_width = n; }
static void set_groups(struct layer_spec *s, int64_t n) { s->n_group = n; }
static void set_topk_groups(struct layer_spec *s, int64_t n) { s->topk_group = n; }
static void set_group_fill(struct layer_spec *s, int64_t i) { s->group_fill = (enum group_fill)i; }
static void set_score(struct layer_spec *s, int64_t i) { s->score = (enum score_function)i; }
static void set_select_bias(struct layer_spec *s, int64_t on) { s->select_bias = on; }

/* Of a head of another size the same share rotates, and the scale is made the same way. */
static void set_dim(struct layer_spec *s, int64_t n) {
    const int64_t rot = s->rot_dim * n / s->head_dim / 2 * 2;
    if (s->attn_scale == 1 / sqrt((double)s->head_dim)) s->attn_scale = 1 / sqrt((double)n);
    if (s->rot_dim > 0) s->rot_dim = rot > 2 ? rot : 2;
    s->head_dim = n;
}

static void set_bias(struct layer_spec *s, int64_t i) {
    s->qkv_bias = i > 0;
    s->o_bias = i > 1;
}

static void set_renorm(struct layer_spec *s, int64_t on) {
    s->renormalise = on;
    if (!on) s->renorm_eps = 0;
}

/* ---- the table ---- */

enum { MAX_WIDTH = CONFIG_MAX_WIDTH, MAX_EXPERTS = 1 << 16 };
#define KEY(field) .name = #field, .offset = offsetof(struct check_case, field)
#define INTEGER(least, most, none) .min = least, .max = most, .absent = none
#define NAME(function, count, none) .value = function, .n_values = count, .absent = none
#define OF_LAYER(field, where) KEY(field), .absent = -1, .override = set_##field, .scope = where
#define SIZE(field, where, least, most) OF_LAYER(field, where), .min = least, .max = most
#define CHOICE(field, where, names)                                                                          \
    OF_LAYER(field, where), .value = names##_value, .n_values = sizeof names##_names / sizeof *names##_names
const struct case_key case_keys[] = {
    {KEY(tp), INTEGER(1, MAX_RANKS, 1), .nest = NEST_TP, .help = "ranks",
     .otherwise = "every one of 1, 2, 4, 8 the model allows"},
    {KEY(ep), INTEGER(1, MAX_RANKS, 1), .nest = NEST_EP, .scope = SCOPE_EXPERTS,
     .help = "groups of ranks the routed experts are dealt to; divides tp"},
    {KEY(phase), NAME(phase_value, PHASE_COUNT, PHASE_PREFILL)},
    {KEY(tokens), INTEGER(1, 65536, 33), .help = "new tokens of a sequence (decode: sequences)"},
    {KEY(cached), INTEGER(0, 65536, -1), .help = "keys cached before",
     .otherwise = "64 in chunked, 129 in decode"},
    {KEY(seqs), INTEGER(1, 256, 1), .help = "sequences of prefill and chunked"},
    {KEY(lengths), NAME(lengths_value, LENGTHS_COUNT, LENGTHS_RAGGED),
     .help = "of the sequences: close, alike or far apart"},
    {KEY(layer), INTEGER(0, MAX_LAYERS - 1, -1), .nest = NEST_OUTERMOST,
     .otherwise = "0, for ffn the first layer with experts"},

    {SIZE(hidden, SCOPE_ALL, 1, MAX_WIDTH), .help = "channels"},
    {SIZE(heads, SCOPE_ATTENTION, 1, MAX_WIDTH), .help = "query heads"},
    {SIZE(kv, SCOPE_ATTENTION, 1, MAX_WIDTH), .help = "kv heads"},
    {SIZE(dim, SCOPE_ATTENTION, 1, CONFIG_MAX_HEAD_DIM),
     .help = "dims of a head; those that rotate and the scale follow"},
    {SIZE(rot, SCOPE_ATTENTION, 0, MAX_WIDTH), .help = "leading dims of a head that rotate"},
    {CHOICE(bias, SCOPE_ATTENTION, bias), .help = "biases of the projections"},
    {CHOICE(qk_norm, SCOPE_ATTENTION, switch), .help = "q and k normalised head by head"},
    {SIZE(experts, SCOPE_EXPERTS, 1, MAX_EXPERTS), .help = "routed experts"},
    {SIZE(top, SCOPE_EXPERTS, 1, MAX_EXPERTS), .help = "experts per token"},
    {SIZE(width, SCOPE_EXPERTS, 1, MAX_WIDTH), .help = "columns of a routed expert"},
    {SIZE(shared, SCOPE_FFN, 0, MAX_WIDTH),
     .help = "width of the shared experts together, or of a dense ffn"},
    {SIZE(groups, SCOPE_EXPERTS, 1, MAX_EXPERTS), .help = "groups of experts"},
    {SIZE(topk_groups, SCOPE_EXPERTS, 1, MAX_EXPERTS), .help = "groups a token may choose from"},
    {CHOICE(group_fill, SCOPE_EXPERTS, group_fill), .help = "what experts of the other groups count as"},
    {CHOICE(score, SCOPE_EXPERTS, score), .help = "how logits become scores"},
    {CHOICE(select_bias, SCOPE_EXPERTS, switch), .help = "added to the scores for the choice only"},
    {CHOICE(renorm, SCOPE_EXPERTS, switch), .help = "the gates of a token sum to one"},

    {KEY(dtype), NAME(dtype_value, DTYPE_COUNT, DTYPE_BF16), .help = "storage of weights and activations"},
    {KEY(layout), NAME(layout_value, LAYOUT_COUNT, LAYOUT_PACKED),
     .help = "q, k, v as views of the fused qkv or copies"},
    {KEY(fill), NAME(fill_value, FILL_COUNT, FILL_RANDOM), .help = "values of the inputs"},
    {KEY(device), NAME(device_value, DEVICE_COUNT, DEVICE_HOST)},
    {KEY(seed), INTEGER(0, UINT64_MAX, 1)},
    {0},
};
enum { N_KEYS = sizeof case_keys / sizeof *case_keys - 1 };
_Static_assert((int)N_KEYS <= (int)MAX_CASE_KEYS, "room for what is given");
_Static_assert(sizeof(enum phase) == sizeof(int) && sizeof(enum dtype) == sizeof(int),
               "enums are read as int");

int case_key_by_name(const char *name) {
    for (int k = 0; k < N_KEYS; k++)
        if (!strcmp(case_keys[k].name, name)) return k;
    return -1;
}

int case_key_at(size_t offset) {
    int k = 0;
    while (k < N_KEYS && case_keys[k].offset != offset) k++;
    assert(k < N_KEYS);
    return k;
}

/* ---- its value ---- */

uint64_t case_key_get(int key, const struct check_case *c) {
    const char *const at = (const char *)c + case_keys[key].offset;
    int number;
    uint64_t wide;
    if (!case_keys[key].value) return memcpy(&wide, at, sizeof wide), wide;
    memcpy(&number, at, sizeof number);
    return (uint64_t)number;
}

bool case_key_is_set(int key, const struct check_case *c) {
    return case_key_get(key, c) != (uint64_t)case_keys[key].absent;
}

bool case_key_in_part(int key, enum part part) {
    const enum case_scope scope = case_keys[key].scope;
    return scope == SCOPE_ALL || (scope == SCOPE_ATTENTION) == (part == PART_ATTENTION);
}

static void key_store(int key, struct check_case *c, uint64_t wide) {
    char *const at = (char *)c + case_keys[key].offset;
    const int number = (int)wide;
    if (case_keys[key].value)
        memcpy(at, &number, sizeof number);
    else
        memcpy(at, &wide, sizeof wide);
}

void case_key_reset(int key, struct check_case *c) { key_store(key, c, (uint64_t)case_keys[key].absent); }

struct check_case case_defaults(void) {
    struct check_case c = {0};
    for (int k = 0; k < N_KEYS; k++) case_key_reset(k, &c);
    return c;
}

static int64_t default_cached(enum phase phase) {
    static const int64_t cached[PHASE_COUNT] = {
        [PHASE_PREFILL] = 0, [PHASE_CHUNKED] = 64, [PHASE_DECODE] = 129};
    return cached[phase];
}

void case_finish(struct check_case *c) {
    if (c->cached < 0) c->cached = default_cached(c->phase);
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

static bool parse_value(const struct case_key *row, const char *text, uint64_t *out) {
    if (!row->value) return parse_number(text, out) && *out >= row->min && *out <= row->max;
    for (int i = 0; i < row->n_values; i++)
        if (row->value(i) && !strcmp(row->value(i), text)) {
            *out = (uint64_t)i;
            return true;
        }
    return false;
}

/* ---- its texts ---- */

void case_key_text(int key, const struct check_case *c, char *text, size_t size) {
    const uint64_t value = case_key_get(key, c);
    if (case_keys[key].value)
        snprintf(text, size, "%s", (int)value < 0 ? "" : case_keys[key].value((int)value));
    else
        snprintf(text, size, "%llu", (unsigned long long)value);
}

/* Nearest to `typed` first; NULL keeps the order. */
static void value_choices(const struct case_key *row, const char *typed, char *text, size_t size) {
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

void case_key_values(int key, char *text, size_t size) { value_choices(&case_keys[key], NULL, text, size); }

void case_key_help(int key, char *text, size_t size) {
    const struct case_key *const row = &case_keys[key];
    const struct check_case defaults = case_defaults();
    const bool has_default = !row->override; /* the others are the model's */
    char absent[32] = "", values[120] = "";
    if (has_default && !row->otherwise) case_key_text(key, &defaults, absent, sizeof absent);
    if (row->value) case_key_values(key, values, sizeof values);
    snprintf(text, size, "%s%s%s%s%s%s%s", row->help ? row->help : "", row->help && has_default ? "; " : "",
             has_default ? "default " : "", row->otherwise ? row->otherwise : absent, *values ? " (" : "",
             values, *values ? ")" : "");
}

struct case_label case_label(const struct case_given *given, int key) {
    struct case_label label;
    const bool line = given && given->key[key];
    snprintf(label.text, sizeof label.text, line ? "%s=" : "--%s ", case_keys[key].name);
    return label;
}

struct case_label case_kernel_label(const struct case_given *given, int stage) {
    struct case_label label;
    const bool line = given && given->kernel[stage];
    snprintf(label.text, sizeof label.text, line ? "kernel.%s=" : "--kernel %s=", stage_table[stage].name);
    return label;
}

/* ---- setting it ---- */

static struct status set_kernel(struct check_case *c, const char *label, const char *stage,
                                const char *name) {
    struct choices choices = {0};
    char text[300];
    const int s = stage_by_name(stage);
    if (s < 0) {
        for (int i = 0; i < S_COUNT; i++) choices_add(&choices, "%s", stage_table[i].name);
        choices_text(&choices, stage, text, sizeof text);
        return status_error("%s%.48s: no stage %.48s; use %s", label, name, stage, text);
    }
    const enum op op = stage_table[s].op;
    const struct kernel *const other = kernel_by_name(name);
    if (other && other->op == op) {
        c->kernel[s] = other;
        return status_ok();
    }
    for (const struct kernel *k = kernel_table; k->name; k++)
        if (k->op == op) choices_add(&choices, "%s", k->name);
    choices_text(&choices, name, text, sizeof text);
    if (other)
        return status_error("%s%s: computes %s, the stage needs %s; use %s", label, name, op_name(other->op),
                            op_name(op), choices.n ? text : "none, this build has no kernel for it");
    return status_error("%s%.48s: no such kernel for stage %s; use %s", label, name, stage,
                        choices.n ? text : "none, this build has no kernel for it");
}

struct status case_set(struct check_case *c, const char *label, const char *key, const char *value) {
    if (!strncmp(key, "kernel.", strlen("kernel.")))
        return set_kernel(c, label, key + strlen("kernel."), value);
    const int k = case_key_by_name(key);
    uint64_t wide;
    char text[300];
    if (k < 0) {
        struct choices choices = {0};
        for (int i = 0; i < N_KEYS; i++) choices_add(&choices, "%s", case_keys[i].name);
        choices_add(&choices, "kernel.STAGE");
        choices_text(&choices, key, text, sizeof text);
        return status_error("%s%.48s: no such key; use %s", label, value, text);
    }
    if (!parse_value(&case_keys[k], value, &wide)) {
        value_choices(&case_keys[k], value, text, sizeof text);
        return status_error("%s%.48s: use %s", label, value, text);
    }
    key_store(k, c, wide);
    return status_ok();
}

/* In all but some keys (ended by -1)? */
static bool agree(const struct check_case *a, const struct check_case *b, const int *but) {
    if (a->part != b->part) return false;
    for (int k = 0; case_keys[k].name; k++) {
        const int *free_key = but;
        while (*free_key >= 0 && *free_key != k) free_key++;
        if (*free_key < 0 && case_key_get(k, a) != case_key_get(k, b)) return false;
    }
    return !strcmp(a->model, b->model) && !memcmp(a->kernel, b->kernel, sizeof a->kernel);
}

bool case_shares_trunk(const struct check_case *a, const struct check_case *b) {
    return agree(a, b, (const int[]){CASE_KEY(tp), CASE_KEY(ep), -1});
}

bool case_same_but_sequences(const struct check_case *a, const struct check_case *b) {
    return agree(a, b,
                 (const int[]){CASE_KEY(phase), CASE_KEY(cached), CASE_KEY(tokens), CASE_KEY(seqs),
                               CASE_KEY(lengths), -1});
}

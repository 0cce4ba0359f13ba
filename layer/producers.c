/* Which producer is meant, with what a user changes of it, and what does it do at a stage? */
/* SPDX-License-Identifier: MIT */
#include "layer/producers.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a user may change ---- */

enum value_kind { VALUE_UNIT, VALUE_DTYPE, VALUE_COUNT, VALUE_SWITCH, VALUE_ORDER };

/* UNIT: a double, the unit of the named dtype; DTYPE, COUNT (int64), SWITCH (bool), ORDER (enum
 * sum_order): as they are. */
static const struct key {
    const char *name, *describes;
    enum op op;
    enum value_kind kind;
    size_t at; /* in struct contract */
} keys[] = {
    {"attention.p", "what P is rounded to before P V", OP_ATTENTION, VALUE_UNIT,
     offsetof(struct contract, u.attention.p_unit)},
    {"attention.p_in_l", "the denominator adds the rounded P", OP_ATTENTION, VALUE_SWITCH,
     offsetof(struct contract, u.attention.p_in_l)},
    {"attention.block", "keys of a softmax tile", OP_ATTENTION, VALUE_COUNT,
     offsetof(struct contract, u.attention.block)},
    {"attention.scores", "what q.k and its product with the scale are rounded to", OP_ATTENTION, VALUE_DTYPE,
     offsetof(struct contract, u.attention.scores)},
    {"attention.weights", "what P over l is rounded to", OP_ATTENTION, VALUE_DTYPE,
     offsetof(struct contract, u.attention.weights)},
    {"combine.products", "what a gated row is rounded to", OP_COMBINE, VALUE_DTYPE,
     offsetof(struct contract, u.combine.products)},
    {"combine.sums", "what every sum of two gated rows is rounded to", OP_COMBINE, VALUE_DTYPE,
     offsetof(struct contract, u.combine.sums)},
    {"linear.order", "how products are added up", OP_LINEAR, VALUE_ORDER,
     offsetof(struct contract, u.linear.acc.order)},
    {"gated_linear.order", "the same, where the activation follows at once", OP_GATED_LINEAR, VALUE_ORDER,
     offsetof(struct contract, u.gated_linear.acc.order)},
    {"norm.mid", "what x r is rounded to before the weight", OP_NORM, VALUE_DTYPE,
     offsetof(struct contract, u.norm.mid)},
    {"qk_norm.mid", "the same, of the heads of q and k", OP_QK_NORM, VALUE_DTYPE,
     offsetof(struct contract, u.norm.mid)},
    {"rope.table", "what cosines and sines are rounded to", OP_ROPE, VALUE_DTYPE,
     offsetof(struct contract, u.rope.table)},
    {"rope.products", "what a c and b s are rounded to before they are added up", OP_ROPE, VALUE_DTYPE,
     offsetof(struct contract, u.rope.products)},
    {"route.logits", "what logits are rounded to before the score", OP_ROUTE, VALUE_DTYPE,
     offsetof(struct contract, u.route.logits)},
    {"route.scores", "what scores are rounded to", OP_ROUTE, VALUE_DTYPE,
     offsetof(struct contract, u.route.scores)},
    {"route.logsumexp", "what every step of exp(x - logsumexp) is rounded to, where those are the gates",
     OP_ROUTE, VALUE_DTYPE, offsetof(struct contract, u.route.logsumexp)},
    {"activation.mid", "what silu is rounded to before up", OP_ACTIVATION, VALUE_DTYPE,
     offsetof(struct contract, u.activation.mid)},
    {"sum.rank", "what the sum of a rank's parts is rounded to before the ranks are added up", OP_SUM,
     VALUE_DTYPE, offsetof(struct contract, u.sum.rank)},
    {"sum.step", "what every addition of two ranks rounds to", OP_SUM, VALUE_DTYPE,
     offsetof(struct contract, u.sum.step)},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* The names of a table, separated by commas, as far as there is room. */
struct names {
    char text[400];
    size_t n;
};
static void add_name(struct names *names, const char *name) {
    if (names->n + strlen(name) + 3 < sizeof names->text)
        names->n += (size_t)snprintf(names->text + names->n, sizeof names->text - names->n, "%s%s",
                                     names->n ? ", " : "", name);
}

static struct names producer_names(void) {
    struct names names = {0};
    for (const struct producer_row *r = producer_table; r->name; r++) add_name(&names, r->name);
    return names;
}

static struct names key_names(void) {
    struct names names = {0};
    for (int i = 0; i < N_KEYS; i++) add_name(&names, keys[i].name);
    add_name(&names, "or a tensor between two steps (o_part, moe_part, act, ...)");
    return names;
}

/* `none`, or a float format narrower than fp64. */
static bool parse_rounding(const char *text, int *value) {
    enum dtype d = DTYPE_F64;
    if (strcmp(text, "none") && (!dtype_parse(text, &d) || d == DTYPE_F64 || d == DTYPE_I32)) return false;
    *value = (int)d;
    return true;
}

static bool parse_value(enum value_kind kind, const char *text, int *value) {
    char *end;
    switch (kind) {
    case VALUE_ORDER:
        *value = strcmp(text, "any") ? ORDER_INTERVAL : ORDER_ANY;
        return !strcmp(text, "any") || !strcmp(text, "runs");
    case VALUE_SWITCH: *value = !strcmp(text, "yes"); return *value || !strcmp(text, "no");
    case VALUE_COUNT: {
        enum { MOST = 1 << 24 };
        const long n = strtol(text, &end, 10);
        *value = (int)n;
        return *text >= '0' && *text <= '9' && !*end && n > 0 && n <= MOST;
    }
    default: return parse_rounding(text, value);
    }
}

static const char *const legal_values[] = {
    [VALUE_UNIT] = "none, fp32, bf16 or fp16",
    [VALUE_DTYPE] = "none, fp32, bf16 or fp16",
    [VALUE_COUNT] = "a whole number from 1 on",
    [VALUE_SWITCH] = "yes or no",
    [VALUE_ORDER] = "any, or runs where every partial sum is one of neighbours",
};

static int key_by_name(const char *name) {
    for (int i = 0; i < N_KEYS; i++)
        if (!strcmp(keys[i].name, name)) return i;
    const enum tensor_id id = tensor_by_name(name);
    const bool rounded = id != T_NONE && tensor_table[id].dtype != DTYPE_I32 &&
                         (tensor_table[id].role == ROLE_ACTIVATION || tensor_table[id].role == ROLE_PARTIAL);
    return rounded ? N_KEYS + (int)id : -1;
}

/* KEY=VALUE */
static struct status add_change(struct producer *p, const char *word, size_t length) {
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)length, word);
    char *const equal = strchr(text, '=');
    if (!equal || length >= sizeof text)
        return status_error("contract %s: '%s' is no KEY=VALUE; keys are %s", p->row->name, text,
                            key_names().text);
    *equal = 0;
    struct producer_change change = {.key = key_by_name(text)};
    if (change.key < 0)
        return status_error("contract %s: no key '%s'; use %s", p->row->name, text, key_names().text);
    const enum value_kind kind = change.key < N_KEYS ? keys[change.key].kind : VALUE_DTYPE;
    if (!parse_value(kind, equal + 1, &change.value))
        return status_error("contract %s: %s=%s; use %s", p->row->name, text, equal + 1, legal_values[kind]);
    if (p->n_changes == MAX_PRODUCER_CHANGES)
        return status_error("contract %s: more than %d keys; use fewer", p->row->name, MAX_PRODUCER_CHANGES);
    p->change[p->n_changes++] = change;
    return status_ok();
}

struct status producer_find(const char *text, struct producer *out) {
    const size_t length = strcspn(text, ":");
    *out = (struct producer){0};
    for (const struct producer_row *r = producer_table; r->name && !out->row; r++)
        if (strlen(r->name) == length && !strncmp(r->name, text, length)) out->row = r;
    if (!out->row)
        return status_error("contract '%.*s': no such producer; use %s", (int)length, text,
                            producer_names().text);
    out->storage = out->row->storage;
    for (const char *at = text + length; *at;) {
        const size_t n = strcspn(++at, ":");
        TRY(add_change(out, at, n));
        at += n;
    }
    return status_ok();
}

/* ---- answers ---- */

static void apply(const struct key *key, int value, struct contract *c) {
    char *const field = (char *)c + key->at;
    switch (key->kind) {
    case VALUE_UNIT: *(double *)(void *)field = value == DTYPE_F64 ? 0 : dtype_unit((enum dtype)value); break;
    case VALUE_DTYPE: *(enum dtype *)(void *)field = (enum dtype)value; break;
    case VALUE_COUNT: *(int64_t *)(void *)field = value; break;
    case VALUE_ORDER: *(enum sum_order *)(void *)field = (enum sum_order)value; break;
    case VALUE_SWITCH: *(bool *)(void *)field = value; break;
    }
}

struct contract producer_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    struct contract c = p->row->contract(p, stage, range);
    for (int i = 0; i < p->n_changes; i++)
        if (p->change[i].key < N_KEYS && keys[p->change[i].key].op == c.op)
            apply(&keys[p->change[i].key], p->change[i].value, &c);
    return c;
}

enum dtype producer_between(const struct producer *p, enum tensor_id id) {
    if (tensor_table[id].dtype == DTYPE_I32) return DTYPE_F64;
    for (int i = p->n_changes; i-- > 0;)
        if (p->change[i].key == N_KEYS + (int)id) return (enum dtype)p->change[i].value;
    for (const enum tensor_id *keeps = p->row->keeps; *keeps != T_NONE; keeps++)
        if (*keeps == id) return DTYPE_F64;
    if (id == T_LOGITS && p->router_fp32) return DTYPE_F32;
    if (id == T_LOGITS && p->row->rounds_logits) return p->storage;
    return p->row->between ? p->row->between(p, id) : tensor_dtype(id, p->storage);
}

enum dtype producer_rounds(const struct producer *p, int stage, enum dtype d) {
    return d == DTYPE_BF16 && p->row->cuts && p->row->cuts(p, stage) ? DTYPE_BF16_CUT : d;
}

/* The table of producers, and the keys that a user may change. */
/* SPDX-License-Identifier: MIT */
#include "layer/producers.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- contracts ---- */

/* Softmax tiles of fp32 kernels are at least so many keys. */
enum { SMALLEST_TILE = 16 };

static struct contract exact_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    (void)p, (void)range;
    struct contract c = contract_exact(stage_table[stage].op);
    if (c.op == OP_ATTENTION) c.u.attention.block = SMALLEST_TILE;
    return c;
}

/* q and k come from the file, or from rope with radii: the table's error is in them already. */
static struct contract hf64_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    if (stage == S_ROUTER && p->router_fp32) return contract_hf64_router();
    struct contract c = contract_hf64_of(stage_table[stage].op, range);
    if (c.op == OP_ATTENTION) c.u.attention.score_norm_error = 0;
    return c;
}

const struct producer_row producer_table[] = {
    {.name = "exact",
     .describes = "fp32 arithmetic, one rounding a stage",
     .source = "kernels of this project and others that round nothing inside",
     .storage = DTYPE_BF16,
     .contract = exact_contract,
     .keeps = {T_NONE}},
    {.name = "hf64",
     .describes = "Hugging Face transformers in float64, with the float32 steps of its code",
     .source = "transformers 5.17, modeling_llama.py and its kin",
     .storage = DTYPE_F64,
     .contract = hf64_contract,
     .keeps = {T_NONE}},
    {0},
};

/* ---- what a user may change ---- */

enum value_kind { VALUE_UNIT, VALUE_DTYPE, VALUE_COUNT, VALUE_SWITCH };

/* UNIT: a double, the unit of the named dtype; DTYPE, COUNT (int64), SWITCH (bool): as they are. */
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
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* The names of a table, separated by commas, as far as there is room. */
struct names {
    char text[300];
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
    [VALUE_UNIT] = "none, bf16 or fp32",
    [VALUE_DTYPE] = "none, bf16 or fp32",
    [VALUE_COUNT] = "a whole number from 1 on",
    [VALUE_SWITCH] = "yes or no",
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
    return tensor_dtype(id, p->storage);
}

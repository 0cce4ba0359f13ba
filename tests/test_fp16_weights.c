/* P in fp16 is subnormal for small weights, and loses up to half of them: many such keys beside one that has a
 * large weight and small values. Inside the sets of a contract that says fp16, outside of one that knows its unit
 * only. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>

#include "reference/reference.h"

enum { KEYS = 2000 };

/* One query of one dim: key 0 has score 0, the others `score`. Values are `first`, then ones. */
static struct call one_query(float score, float first) {
    static float q, k[KEYS], v[KEYS];
    static int32_t page, start[2] = {0, 1}, length = KEYS;
    struct call c = {.op = OP_ATTENTION};
    const struct view cache = {k, DTYPE_F32, {KEYS, 1, 1}, 0, KEYS};
    q = 1;
    for (int j = 0; j < KEYS; j++) k[j] = j ? score : 0, v[j] = j ? 1 : first;
    c.u.attention = (struct attention_args){.q = {&q, DTYPE_F32, {1, 1}, 0, 1},
                                            .k_cache = cache,
                                            .v_cache = cache,
                                            .page_table = {&page, DTYPE_I32, {1}, 0, 1},
                                            .query_start = {start, DTYPE_I32, {1}, 0, 2},
                                            .kv_len = {&length, DTYPE_I32, {1}, 0, 1},
                                            .n_tokens = 1,
                                            .n_seqs = 1,
                                            .n_heads = 1,
                                            .n_kv_heads = 1,
                                            .head_dim = 1,
                                            .page_size = KEYS,
                                            .n_pages = 1,
                                            .max_queries = 1,
                                            .max_kv = KEYS,
                                            .scale = 1};
    c.u.attention.v_cache.data = v;
    return c;
}

static double stored(float score, float first, bool in_l, bool over_l) {
    const float p = expf(score);
    float l = 1, o = first;
    for (int j = 1; j < KEYS; j++) l += in_l ? (float)dtype_round(DTYPE_F16, (double)p) : p;
    const float rounded = (float)dtype_round(DTYPE_F16, (double)(over_l ? p / l : p));
    if (over_l) o = first * (float)dtype_round(DTYPE_F16, (double)(1 / l));
    for (int j = 1; j < KEYS; j++) o = fmaf(rounded, 1, o);
    return (double)(over_l ? o : o / l);
}

static enum verdict_kind judged(const struct call *call, double got, double unit, bool in_l) {
    struct contract c = contract_exact(OP_ATTENTION);
    double y, e;
    struct ref_out out[MAX_REF_OUT] = {{&y, &e, NULL}};
    c.u.attention.p_unit = unit;
    c.u.attention.p_in_l = in_l;
    ref_compute(call, &c, NULL, 0, 1, out);
    return element_judge(DTYPE_F32, got, y, e).kind;
}

Test(fp16_weights, subnormal_weights_are_inside_where_fp16_is_declared_only) {
    int outside = 0;
    for (int i = 0; i < 60; i++)
        for (int how = 0; how < 3; how++) {
            const float score = -17.4f + 0.1f * (float)i, first = i % 3 ? 0.0f : 0.01f;
            const bool in_l = how == 1, over_l = how == 2;
            const struct call call = one_query(score, first);
            const double got = stored(score, first, in_l, over_l);
            cr_expect_eq(judged(&call, got, UNIT_F16, in_l), ELEMENT_OK, "score %g, %d: %g", (double)score,
                         how, got);
            outside += judged(&call, got, UNIT_F16 * (1 + 0x1p-40), in_l) != ELEMENT_OK;
        }
    cr_expect_gt(outside, 60, "%d", outside);
}

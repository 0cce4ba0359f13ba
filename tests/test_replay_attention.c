/* Is P that is rounded as declared told from P that is not? Honest kernels of the declared blocks stay
 * inside; others, and slips that no wider set notices, do not. */
/* SPDX-License-Identifier: MIT */
#include "reference/replay.h"
#include "tests/score_problem.h"

struct count {
    int64_t wide, sharp, judged; /* outside the set of any order, of the declared one; elements */
};

static double peaked(void) { return 3 * uniform(); }
static double near_one(void) { return 1 + uniform() / 16; }

/* What `by` stores with a slip, against a contract that declares blocks of `declared` keys. */
static struct count look(struct problem *p, const struct honest *by, const struct mistake *m,
                         int64_t declared) {
    const int64_t n = p->tokens * p->heads * p->dim;
    struct count k = {0};
    struct contract contract = contract_of(p, by);
    double *const y = calloc((size_t)n, sizeof *y), *const e = calloc((size_t)n, sizeof *e);
    examine(p, by, m, &k.wide);
    contract.u.attention.block = declared;
    contract.u.attention.p_in_order = true;
    cr_assert(ref_replays(&p->call, &contract));
    ref_replay(&p->call, &contract, 0, p->tokens, 1, y, e);
    for (int64_t i = 0; i < n; i++) {
        k.judged += isfinite(e[i]);
        k.sharp +=
            element_judge(p->storage, dtype_load(p->stored, p->storage, i), y[i], e[i]).kind != ELEMENT_OK;
    }
    free(y), free(e);
    return k;
}

Test(replay_attention, honest_kernels_of_the_declared_blocks_are_inside) {
    static double (*const fills[])(void) = {uniform, peaked, near_one};
    static const int64_t sizes[][3] = {{33, 33, 64}, {16, 200, 32}, {3, 5, 64}, {2, 700, 128}, {64, 130, 32}};
    static const int tiles[] = {16, 64, 128};
    int64_t judged = 0;
    srand48(41);
    for (int f = 0; f < 3; f++)
        for (int s = 0; s < 5; s++)
            for (int t = 0; t < 6; t++) {
                const struct honest by = {tiles[t % 3], 1, DTYPE_BF16, t < 3};
                struct problem p = {.tokens = sizes[s][0],
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .dim = sizes[s][2],
                                    .keys = sizes[s][1],
                                    .causal = (s + t) % 2,
                                    .storage = t % 2 ? DTYPE_BF16 : DTYPE_F32};
                problem_make(&p, fills[f]);
                const struct count k = look(&p, &by, &none, by.tile);
                cr_assert(k.sharp == 0 && k.judged == p.tokens * p.heads * p.dim, "%d %d %d: %lld", f, s, t,
                          (long long)k.sharp);
                judged += k.judged;
                problem_free(&p);
            }
    cr_assert(judged > 300000);
}

Test(replay_attention, slips_that_every_wider_set_holds_are_outside) {
    static const struct honest by = {64, 1, DTYPE_BF16, true};
    static const struct {
        const char *what;
        struct mistake m;
        int64_t declared;
    } rows[] = {
        {"scale + 1e-3", {.scale = 1e-3, .dropped = -1}, 64},
        {"gain + 1e-3", {.gain = 1e-3, .dropped = -1}, 64},
        {"scores of 64 keys + 1e-3", {.bias = 1e-3, .dropped = -1}, 64},
        {"P truncated", {.p = TRUNCATED, .dropped = -1}, 64},
        {"other blocks than declared", {.dropped = -1}, 32},
    };
    struct problem p = {
        .tokens = 16, .heads = 8, .kv_heads = 2, .dim = 64, .keys = 300, .storage = DTYPE_BF16};
    srand48(42);
    problem_make(&p, uniform);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct count k = look(&p, &by, &rows[i].m, rows[i].declared);
        fprintf(stderr, "%-28s outside %lld, of the declared blocks %lld of %lld\n", rows[i].what,
                (long long)k.wide, (long long)k.sharp, (long long)k.judged);
        cr_assert_eq(k.wide, 0, "%s", rows[i].what);
        cr_assert_gt(k.sharp, 10, "%s", rows[i].what);
    }
    problem_free(&p);
}

Test(replay_attention, what_does_not_say_how_P_is_rounded_is_not_replayed) {
    static const struct honest by = {64, 1, DTYPE_BF16, true};
    struct problem p = {.tokens = 2, .heads = 1, .kv_heads = 1, .dim = 8, .keys = 4, .storage = DTYPE_BF16};
    problem_make(&p, uniform);
    struct contract c = contract_of(&p, &by);
    cr_assert_not(ref_replays(&p.call, &c));
    c.u.attention.p_in_order = true;
    cr_assert(ref_replays(&p.call, &c));
    for (int i = 0; i < 4; i++) {
        struct contract other = c;
        if (i == 0) other.u.attention.p_unit = 0;
        if (i == 1) other.u.attention.splits = 3; /* each with a maximum of its own */
        if (i == 2) other.u.attention.p_in_l = true;
        if (i == 3) other.u.attention.block = 0;
        cr_expect_not(ref_replays(&p.call, &other), "%d", i);
    }
    problem_free(&p);
}

/* Which lines would make the grid show more? Of 64 random legal cases the one with the most new pairs
 * of axis values and 8 times its new facts, per second that it took; then the next. Lines go to
 * fixtures/gallery by hand: what a run does is decided by a person, once.
 *   bench/grid [LINES] */
/* SPDX-License-Identifier: MIT */
#include "harness/coverage.h"
#include "harness/grid.h"
#include "harness/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CANDIDATES = 64, ROOM = 512, FACT_WORTH = 8, TRIES = 100000 };

/* What the lines so far show. */
struct shown {
    struct grid_taker taker;
    struct grid_pairs pairs;
    struct fact_set facts;
    struct check_case cases[ROOM];
    int64_t n;
};

/* ---- random cases ---- */

static uint64_t state = 1;
static int64_t draw(int64_t n) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int64_t)((state >> 33) % (uint64_t)n);
}
#define ONE_OF(...)                                                                                          \
    (((const int64_t[]){__VA_ARGS__})[draw(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))])

/* Sizes at ends of tiles, and a few others. */
static void draw_attention(struct check_case *c) {
    c->phase = (enum phase)draw(PHASE_COUNT);
    c->tokens = ONE_OF(1, 2, 3, 5, 17, 33, 63, 65);
    if (c->phase != PHASE_PREFILL) c->cached = ONE_OF(0, 15, 16, 63, 64, 200);
    if (c->phase != PHASE_DECODE) c->seqs = ONE_OF(1, 2, 3, 4);
    if (c->phase == PHASE_DECODE && c->tokens > 5) c->tokens = 4;
    c->lengths = (enum lengths)draw(LENGTHS_COUNT);
    c->kv = ONE_OF(1, 2, 4);
    c->heads = c->kv * ONE_OF(1, 2, 3, 4, 6, 8, 17);
    c->dim = ONE_OF(8, 16, 20, 32);
    c->rot = draw(2) ? -1 : c->dim / 4 * 2;
    c->bias = (int)draw(3);
    c->qk_norm = (int)draw(2);
    c->layout = (enum layout)draw(LAYOUT_COUNT);
}

static void draw_ffn(struct check_case *c) {
    c->tokens = ONE_OF(1, 2, 3, 5, 17, 33, 65);
    c->ep = ONE_OF(1, 1, 2, 4, 8);
    c->experts = ONE_OF(8, 16, 32, 33, 64);
    c->top = ONE_OF(1, 2, 3, 4, 8);
    c->width = ONE_OF(8, 16, 32);
    c->shared = ONE_OF(0, 8, 32);
    c->score = (int)draw(2);
    c->select_bias = (int)draw(2);
    c->renorm = (int)draw(2);
    if (draw(2)) return;
    c->groups = ONE_OF(2, 4, 8);
    c->topk_groups = ONE_OF(1, 2, 4);
    c->group_fill = (int)draw(2);
}

static bool draw_case(struct check_case *c, struct model *model) {
    *c = case_defaults();
    if (case_set_model(c, "tiny", 4).code || model_load("tiny", model).code) return false;
    c->part = (enum part)draw(PART_COUNT);
    c->tp = ONE_OF(1, 2, 4, 8);
    c->dtype = (enum dtype)ONE_OF(DTYPE_BF16, DTYPE_F32, DTYPE_F16);
    c->fill = (enum fill_kind)draw(FILL_COUNT);
    c->hidden = ONE_OF(8, 16, 32, 63, 65);
    c->part == PART_ATTENTION ? draw_attention(c) : draw_ffn(c);
    case_finish(c);
    return !case_check(c, model, NULL).code;
}

/* ---- choosing ---- */

static struct status take(struct grid_taker *taker, const struct check_case *c, const struct model *model) {
    struct shown *const all = (struct shown *)taker;
    const struct layer_spec spec = case_spec(c, model);
    if (all->n == ROOM) return status_error("more than %d cases", ROOM);
    all->cases[all->n++] = *c;
    grid_pairs_add(&all->pairs, c, &spec);
    return status_ok();
}

static int add_facts(struct fact_set *all, const struct fact_set *more) {
    int n_new = 0;
    for (int w = 0; w < FACT_WORDS; w++) {
        n_new += __builtin_popcountll(more->word[w] & ~all->word[w]);
        all->word[w] |= more->word[w];
    }
    return n_new;
}

static struct status run_shown(struct shown *all) {
    const struct run_request request = {.cases = all->cases, .n_cases = all->n};
    struct run_output out;
    TRY(run_cases(&request, &out));
    for (int64_t i = 0; i < all->n; i++) add_facts(&all->facts, &out.cases[i].facts);
    run_output_free(&out);
    return status_ok();
}

static int64_t n_unmet(const struct grid_pairs *p) {
    int64_t n = 0;
    for (int a = 0; a < GRID_AXES; a++)
        for (int b = a + 1; b < GRID_AXES; b++)
            for (int va = 0; grid_axes[a].values[va]; va++)
                for (int vb = 0; grid_axes[b].values[vb]; vb++)
                    n += grid_can_meet(a, va, b, vb) && !p->met[a][va][b][vb];
    return n;
}

static bool shows_pairs(const struct shown *all, const struct check_case *c, const struct model *model) {
    static struct grid_pairs copy;
    const struct layer_spec spec = case_spec(c, model);
    copy = all->pairs;
    return grid_pairs_add(&copy, c, &spec) > 0;
}

static int n_missing(const struct fact_set *facts) {
    int n = coverage_count();
    for (int w = 0; w < FACT_WORDS; w++) n -= __builtin_popcountll(facts->word[w]);
    return n;
}

/* One more line; *found: it shows something. */
static struct status propose(struct shown *all, bool *found) {
    static struct check_case cases[CANDIDATES];
    static struct model model; /* of all of them */
    struct run_output out;
    int64_t best = -1, n = 0, pairs = 0;
    int facts = 0;
    double best_worth = 0;
    for (int try = 0; n < CANDIDATES && try < TRIES; try++)
        n += draw_case(&cases[n], &model) && (shows_pairs(all, &cases[n], &model) || n_missing(&all->facts));
    *found = n > 0;
    if (!n) return status_ok();
    const struct run_request request = {.cases = cases, .n_cases = n};
    TRY(run_cases(&request, &out));
    for (int64_t i = 0; i < n; i++) {
        static struct grid_pairs copy;
        struct fact_set known = all->facts;
        const struct layer_spec spec = case_spec(&cases[i], &model);
        copy = all->pairs;
        const int64_t new_pairs = grid_pairs_add(&copy, &cases[i], &spec);
        const int new_facts = add_facts(&known, &out.cases[i].facts);
        const double worth =
            (double)(new_pairs + FACT_WORTH * new_facts) / (0.01 + out.cases[i].seconds); /* and its frames */
        if (out.cases[i].verdict == CASE_PASSED && worth > best_worth)
            best_worth = worth, best = i, pairs = new_pairs, facts = new_facts;
    }
    *found = best >= 0;
    if (*found) {
        printf("%s\n", out.cases[best].line);
        fprintf(stderr, "  %lld new pairs, %d new facts, %.3f s\n", (long long)pairs, facts,
                out.cases[best].seconds);
        add_facts(&all->facts, &out.cases[best].facts);
    }
    run_output_free(&out);
    return *found ? take(&all->taker, &cases[best], &model) : status_ok();
}

int main(int argc, char **argv) {
    static struct shown all = {.taker = {take}};
    int lines = argc > 1 ? atoi(argv[1]) : 8;
    bool found = true;
    struct status s = grid_gallery(&all.taker);
    if (!s.code) s = grid_twins(model_preset_names()[0], &all.taker);
    if (!s.code) s = run_shown(&all);
    while (!s.code && found && lines-- > 0 && (n_unmet(&all.pairs) || n_missing(&all.facts)))
        s = propose(&all, &found);
    if (s.code) return fprintf(stderr, "grid: %s\n", s.message), 2;
    fprintf(stderr, "%lld pairs and %d facts are not met\n", (long long)n_unmet(&all.pairs),
            n_missing(&all.facts));
    return 0;
}

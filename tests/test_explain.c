/* Is a mistake named when it is the one, and only then? What a known mistake would store is put in
 * place of the right answer, whole, with one element changed, in some rows only; so is garbage. */
/* SPDX-License-Identifier: MIT */
#include "harness/explain.h"
#include "harness/inputs.h"
#include "harness/kernel_seat.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* ---- rank 1 of 2 at one stage ---- */

static struct layer_spec spec;
static struct fill fill;
static struct batch batch;
static struct store whole, own[2];
static struct crew crew;
static struct device *device;
static struct kernel_seat kernels;
static struct outcome outcome;
static struct answer answer;
static struct placed at;

static void fill_whole(enum tensor_id id) {
    const int64_t n = slice_count(&crew.plan, id, -1);
    void *const x = store_renew(&whole, id, crew.storage, n);
    for (int64_t k = 0; k < n; k++) dtype_store(x, crew.storage, k, drand48() * 2 - 1);
}

static void open_stage(int stage, enum layout layout, int64_t tokens) {
    struct check_case c = case_defaults();
    srand48(2);
    omp_set_num_threads(1);
    c.tokens = tokens;
    case_finish(&c);
    spec = layer_defaults();
    spec.hidden = 16, spec.n_heads = 4, spec.n_kv_heads = 2, spec.head_dim = spec.rot_dim = 8;
    spec.attn_scale = 0.3;
    fill = (struct fill){.kind = FILL_RANDOM, .seed = 3, .spec = &spec};
    batch_build(&batch, &c, &fill);
    crew = (struct crew){.storage = DTYPE_BF16, .layout = layout, .whole = &whole, .own = own};
    crew_open(&crew, &spec, PART_ATTENTION, &batch, 2, 1);
    crew_indices(&crew, DTYPE_F32);
    inputs_caches(&crew, &fill);
    for (enum tensor_id id = T_Q; id <= T_V; id++) fill_whole(id);
    if (stage == S_ATTENTION) fill_whole(T_K_CACHE), fill_whole(T_V_CACHE);
    cr_assert_eq(device_open(DEVICE_HOST, &device).code, STATUS_OK);
    kernel_seat_open(&kernels, device, NULL, 1);
    at = (struct placed){&crew, stage, 1};
    outcome = (struct outcome){.by = "fake"};
    cr_assert_eq(kernels.seat.prepare(&kernels.seat, &at, &outcome).code, STATUS_OK);
    outcome.contract = contract_exact(outcome.call.op);
    for (const enum tensor_id *id = placed_row(&at)->out; *id != T_NONE; id++) {
        void *const got = store_renew(&outcome.got, *id, DTYPE_BF16, placed_count(&at, *id));
        if (seat_in_place(*id)) placed_dense(&at, *id, got);
    }
    answer_compute(&answer, stage, &outcome, NULL);
}

static void close_stage(void) {
    answer_free(&answer);
    outcome_free(&outcome);
    kernel_seat_close(&kernels);
    device_close(device);
    store_free(&whole);
    store_free(&own[0]), store_free(&own[1]);
    batch_free(&batch);
}

/* Everything that `call` would store; rows that `only` does not name (NULL: it names all) stay
 * right. */
static void store_as(const struct call *call, const bool *only) {
    struct answer a;
    struct outcome o = outcome;
    o.call = *call;
    answer_compute(&a, at.stage, &o, NULL);
    for (int i = 0; i < a.n; i++) {
        for (int64_t n = 0; n < a.count[i]; n++)
            if (only && !only[n / a.row_size[i]]) a.y[i][n] = answer.y[i][n];
        struct stored *const got = &outcome.got.of[a.id[i]];
        if (placed_op(&at)->spread)
            placed_op(&at)->spread(&at, &outcome.got, i, a.y[i]);
        else
            for (int64_t n = 0; n < a.count[i]; n++) dtype_store(got->memory.data, got->dtype, n, a.y[i][n]);
    }
    answer_free(&a);
}

static bool mistaken(const struct mutant *m, struct call *call) {
    return placed_bind(&at, m, &outcome.operands, call);
}

static char likely[400];
static const char *explained(void) {
    likely[0] = 0;
    explain(&at, &outcome, &answer, likely, sizeof likely);
    return likely;
}

static void expect_named(const struct mutant *m) {
    const char *const by = explained();
    cr_expect(!strncmp(by, m->name, strlen(m->name)) && strstr(by, m->source), "%s at %s: '%s'", m->name,
              placed_row(&at)->name, by);
}

static uint16_t *stored_bits(int64_t *n) { /* of the stage's last output, a row of this call's */
    const enum tensor_id id = at.stage == S_KV_WRITE ? T_V_CACHE : T_O;
    const int64_t row = placed_count(&at, at.stage == S_KV_WRITE ? T_V : T_O) / batch.n_tokens;
    const int64_t first = at.stage == S_KV_WRITE ? batch.slots[3] : 3;
    *n = row;
    return (uint16_t *)outcome.got.of[id].memory.data + first * row;
}

/* ---- at small sizes every row is replayed ---- */

Test(explain, a_mutant_of_the_table_is_named_by_what_it_stores_and_not_when_one_element_differs) {
    static const int stages[] = {S_KV_WRITE, S_ATTENTION};
    static const struct {
        const char *name;
        enum layout layout;
    } rows[] = {{"packed-view", LAYOUT_PACKED}, {"global-head-count", LAYOUT_CONTIG}};
    for (int r = 0; r < 2; r++)
        for (int s = 0; s < 2; s++) {
            struct call call;
            const struct mutant *const m = mutant_by_name(rows[r].name);
            open_stage(stages[s], rows[r].layout, 5);
            cr_assert(mistaken(m, &call), "%s changes nothing at %s", m->name, stage_table[stages[s]].name);
            store_as(&call, NULL);
            expect_named(m);
            cr_expect(strstr(likely, "every element (margin"), "%s", likely);
            int64_t n;
            uint16_t *const bits = stored_bits(&n);
            for (int64_t i = 0; i < n; i += 3) {
                const uint16_t was = bits[i];
                bits[i] = was ^ 0x4000; /* far away, or no longer NaN */
                cr_expect_str_empty(explained(), "element %lld: %s", (long long)i, likely);
                bits[i] = was;
            }
            close_stage();
        }
}

Test(explain, garbage_is_nobodys_mistake) {
    for (int seed = 0; seed < 5; seed++) {
        open_stage(S_ATTENTION, seed % 2 ? LAYOUT_PACKED : LAYOUT_CONTIG, 5);
        srand48(seed);
        struct stored *const o = &outcome.got.of[T_O];
        for (int64_t i = 0; i < o->count; i++)
            dtype_store(o->memory.data, o->dtype, i, seed ? drand48() : (double)NAN);
        cr_expect_str_empty(explained(), "%s", likely);
        store_as(&outcome.call, NULL);
        dtype_store(o->memory.data, o->dtype, o->count - 1, 7);
        cr_expect_str_empty(explained(), "one wrong element: %s", likely);
        close_stage();
    }
}

/* Of one token the stride between rows is never used: the replay of both mutants is the right
 * answer. */
Test(explain, nothing_wrong_has_no_explanation, .fini = close_stage) {
    struct call call;
    open_stage(S_ATTENTION, LAYOUT_PACKED, 1);
    const struct mutant *const m = mutant_by_name("packed-view");
    cr_assert(mistaken(m, &call));
    store_as(&outcome.call, NULL);
    strcpy(outcome.problem, "wrote outside its output");
    cr_expect_str_empty(explained(), "%s", likely);
}

/* ---- at large sizes only what failed, and a few rows that did not ---- */

enum { ROWS = 20 }; /* rows 0, 6, 12 and 18 are replayed whatever became of them */

/* A call that says it is large. */
static void open_large(struct call *call) {
    open_stage(S_ATTENTION, LAYOUT_PACKED, ROWS);
    cr_assert(mistaken(mutant_by_name("packed-view"), call));
    outcome.call.u.attention.max_kv = (int64_t)1 << 40;
}

static void spoil_rows(const struct call *call, const int *rows, int n) {
    bool only[ROWS] = {false};
    for (int i = 0; i < n; i++) only[rows[i]] = true;
    store_as(call, only);
}

Test(explain, at_large_sizes_rows_that_failed_are_enough, .fini = close_stage) {
    struct call call;
    open_large(&call);
    spoil_rows(&call, (const int[]){0, 5, 6, 12, 18}, 5);
    expect_named(mutant_by_name("packed-view"));
    cr_expect(strstr(likely, "every element of the rows that failed"), "%s", likely);
    outcome.call.u.attention.max_kv =
        batch.max_kv; /* the same at its real size: rows 1 to 4 would be wrong */
    cr_expect_str_empty(explained(), "%s", likely);
}

Test(explain, at_large_sizes_a_row_that_the_mistake_would_have_spoilt_speaks_against_it,
     .fini = close_stage) {
    struct call call;
    open_large(&call);
    spoil_rows(&call, (const int[]){5, 6, 12}, 3); /* row 18 is right */
    cr_expect_str_empty(explained(), "%s", likely);
    spoil_rows(&call, (const int[]){5, 6, 12, 18}, 4); /* row 0 begins where it should in any case */
    expect_named(mutant_by_name("packed-view"));
    dtype_store(outcome.got.of[T_O].memory.data, DTYPE_BF16, 9 * 16, 50); /* a row that failed otherwise */
    cr_expect_str_empty(explained(), "%s", likely);
}

/* A stand-in for a contract under which anything may be stored. */
Test(explain, a_bound_that_holds_the_right_value_too_names_nobody, .fini = close_stage) {
    struct call call;
    open_stage(S_ATTENTION, LAYOUT_PACKED, 5);
    const struct mutant *const m = mutant_by_name("packed-view");
    cr_assert(mistaken(m, &call));
    store_as(&call, NULL);
    expect_named(m);
    outcome.contract.u.attention.exp_error = 1e6;
    cr_expect_str_empty(explained(), "%s", likely);
}

/* How do operands lie, and what do the seats leave behind? On plain memory, on a device between
 * what nobody owns, and in the reference's own seat. */
/* SPDX-License-Identifier: MIT */
#include "harness/answer_seat.h"
#include "harness/inputs.h"
#include "harness/kernel_seat.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 5, HEADS = 4, KV = 2, DIM = 8, HIDDEN = 16 };
static struct layer_spec spec;
static struct fill fill;
static struct batch batch;
static struct store whole, own[2];
static struct crew crew;

/* Two ranks in `storage`; everything that no stage makes, and q, k and v, of the whole layer. */
static void open_layer(enum dtype storage, enum layout layout) {
    struct check_case c = case_defaults();
    omp_set_num_threads(1);
    c.tokens = TOKENS;
    case_finish(&c);
    spec = layer_defaults();
    spec.hidden = HIDDEN, spec.n_heads = HEADS, spec.n_kv_heads = KV, spec.head_dim = spec.rot_dim = DIM;
    spec.attn_scale = 0.3, spec.qkv_bias = true;
    fill = (struct fill){.kind = FILL_RANDOM, .seed = 3, .spec = &spec};
    batch_build(&batch, &c, &fill);
    crew = (struct crew){.storage = storage, .layout = layout, .whole = &whole, .own = own};
    crew_open(&crew, &spec, PART_ATTENTION, &batch, 2, 1);
    crew_indices(&crew, storage == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32);
    inputs_caches(&crew, &fill);
    for (int s = 0; s < S_COUNT; s++)
        if (stage_applies(s, PART_ATTENTION, &spec)) inputs_fill(&crew, &fill, s);
    static const enum tensor_id made[] = {T_NORMED, T_QKV, T_Q, T_K, T_V, T_O};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        const int64_t n = slice_count(&crew.plan, made[i], -1);
        void *const x = store_renew(&whole, made[i], storage, n);
        for (int64_t k = 0; k < n; k++) dtype_store(x, storage, k, (double)(k % 13) / 8 - 0.7);
    }
}

static void close_layer(void) {
    store_free(&whole);
    store_free(&own[0]), store_free(&own[1]);
    batch_free(&batch);
}

/* ---- on plain memory ---- */

Test(desk, an_operand_that_a_stage_lacks_is_not_the_one_of_the_stage_before, .fini = close_layer) {
    struct desk desk = {0};
    struct outcome o = {.by = NULL};
    static const double none[1];
    open_layer(DTYPE_F64, LAYOUT_CONTIG);
    desk_prepare(&desk, &(struct placed){&crew, S_QKV_PROJ, 1}, &o);
    cr_expect_not_null(o.call.u.linear.bias.data);
    o.radius[2] = none; /* as if its bias had had one */
    desk_prepare(&desk, &(struct placed){&crew, S_O_PROJ, 1}, &o);
    cr_expect_null(o.call.u.linear.bias.data, "o_proj has no bias, and got the one of qkv_proj");
    cr_expect(!o.radius[2] && !o.fuzzy);
    outcome_free(&o);
    desk_free(&desk);
}

Test(desk, outputs_begin_as_poison_and_caches_as_they_were, .fini = close_layer) {
    struct desk desk = {0};
    struct outcome o = {.by = NULL};
    open_layer(DTYPE_F32, LAYOUT_CONTIG);
    const struct placed at = {&crew, S_ROPE, 1}, write = {&crew, S_KV_WRITE, 1};
    desk_prepare(&desk, &at, &o);
    memset(o.got.of[T_Q].memory.data, 0, 8);
    desk_prepare(&desk, &at, &o);
    for (int64_t i = 0; i < o.got.of[T_Q].count; i++)
        cr_expect(isnan(((float *)o.got.of[T_Q].memory.data)[i]), "q begins as %g",
                  (double)((float *)o.got.of[T_Q].memory.data)[i]);
    const int64_t n = placed_count(&write, T_K_CACHE);
    float *const before = memory_zeroed((size_t)n, sizeof *before);
    for (int64_t i = 0; i < 2 * n; i++) ((float *)whole.of[T_K_CACHE].memory.data)[i] = (float)i;
    placed_dense(&write, T_K_CACHE, before);
    desk_prepare(&desk, &write, &o);
    cr_expect_eq(memcmp(before, o.got.of[T_K_CACHE].memory.data, (size_t)n * sizeof *before), 0);
    free(before);
    outcome_free(&o);
    desk_free(&desk);
}

/* ---- on a device ---- */

static struct device *device;
static struct kernel_seat kernels;

static void open_device(enum layout layout) {
    open_layer(DTYPE_BF16, layout);
    cr_assert_eq(device_open(DEVICE_HOST, &device).code, STATUS_OK);
    kernel_seat_open(&kernels, device, NULL, 1);
}
static void close_device(void) {
    kernel_seat_close(&kernels);
    device_close(device);
    close_layer();
}

/* In stage rope; the other kind for the other rank. */
static uint16_t rank_poison(int rank) { return rank == 0 ? 0x7b7b : 0xffff; }

/* Every element of a view's buffer: the rows hold the operand, all else is poison. Returns how much
 * else there is. */
static int64_t expect_rows_in_poison(const struct placed *at, enum tensor_id id, const struct view *v) {
    const int64_t row = placed_count(at, id) / TOKENS;
    uint16_t dense[TOKENS * HEADS * DIM];
    const uint16_t poison = rank_poison(at->rank);
    int64_t gaps = 0;
    placed_dense(at, id, dense);
    for (int64_t i = v->lo; i < v->hi; i++) {
        const uint16_t bits = ((const uint16_t *)v->data)[i];
        const bool in_row = i >= 0 && i % v->stride[0] < row;
        gaps += !in_row;
        cr_expect_eq(bits, in_row ? dense[i / v->stride[0] * row + i % v->stride[0]] : poison,
                     "%s element %lld is %04x", tensor_table[id].name, (long long)i, bits);
    }
    return gaps;
}

Test(desk, gaps_between_packed_rows_are_poison_again_at_every_stage, .fini = close_device) {
    struct outcome o = {.by = NULL};
    open_device(LAYOUT_PACKED);
    const int64_t fused = (HEADS / 2 + 2) * DIM, rest = TOKENS * (fused - HEADS / 2 * DIM);
    for (int round = 0; round < 2; round++)
        for (int rank = 0; rank < 2; rank++) { /* in between, dense operands lie in the same buffers */
            const struct placed dense = {&crew, S_QKV_PROJ, rank}, rope = {&crew, S_ROPE, rank};
            cr_assert_eq(kernels.seat.prepare(&kernels.seat, &dense, &o).code, STATUS_OK);
            cr_expect_eq(o.operands.in[0].stride[0], HIDDEN);
            cr_assert_eq(kernels.seat.prepare(&kernels.seat, &rope, &o).code, STATUS_OK);
            cr_expect_eq(o.call.u.rope.q.stride[0], fused);
            cr_expect_eq(expect_rows_in_poison(&rope, T_Q, &o.call.u.rope.q), rest);
            cr_expect_eq(expect_rows_in_poison(&rope, T_K, &o.call.u.rope.k), TOKENS * (fused - DIM));
            memset((uint16_t *)o.call.u.rope.q.data + HEADS / 2 * DIM, 0, 4); /* somebody dirties a gap */
        }
    outcome_free(&o);
}

Test(desk, copies_have_no_gaps, .fini = close_device) {
    struct outcome o = {.by = NULL};
    open_device(LAYOUT_CONTIG);
    const struct placed at = {&crew, S_ROPE, 1};
    cr_assert_eq(kernels.seat.prepare(&kernels.seat, &at, &o).code, STATUS_OK);
    cr_expect(o.call.u.rope.q.stride[0] == HEADS / 2 * DIM && o.call.u.rope.q.lo == 0);
    cr_expect_eq(expect_rows_in_poison(&at, T_Q, &o.call.u.rope.q), 0);
    outcome_free(&o);
}

/* ---- the reference's own seat ---- */

static struct answer_seat answers;

static void sit(int stage, const struct mutant *seeded, struct outcome *o) {
    const struct placed at = {&crew, stage, 1};
    cr_assert_eq(answers.seat.prepare(&answers.seat, &at, o).code, STATUS_OK);
    cr_assert_eq(answers.seat.fill(&answers.seat, &at, seeded, o).code, STATUS_OK);
}

Test(desk, the_answer_seat_stores_y_and_beside_it_the_radii, .fini = close_layer) {
    struct outcome o = {.by = NULL};
    double y[TOKENS * HEADS * DIM], e[TOKENS * HEADS * DIM];
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    open_layer(DTYPE_F64, LAYOUT_CONTIG);
    answer_seat_open(&answers, contract_f64);
    sit(S_QKV_PROJ, NULL, &o);
    const struct contract c = contract_f64(OP_LINEAR);
    ref_compute(&o.call, &c, NULL, 0, TOKENS, out);
    const int64_t n = o.got.of[T_QKV].count;
    cr_assert(n == TOKENS * (HEADS / 2 + 2) * DIM && answers.moved.of[T_QKV].count == n);
    cr_expect_eq(memcmp(o.got.of[T_QKV].memory.data, y, (size_t)n * sizeof *y), 0);
    cr_expect_eq(memcmp(answers.moved.of[T_QKV].memory.data, e, (size_t)n * sizeof *e), 0);
    cr_expect(e[3] > 0 && o.contract.op == OP_LINEAR && !strcmp(o.by, "answer"));
    outcome_free(&o);
    answer_seat_close(&answers);
}

Test(desk, radii_of_what_moves_into_a_cache_lie_where_it_lies, .fini = close_layer) {
    struct outcome o = {.by = NULL};
    static struct store radius[2];
    enum { ROW = KV / 2 * DIM };
    open_layer(DTYPE_F64, LAYOUT_CONTIG);
    answer_seat_open(&answers, contract_f64);
    for (enum tensor_id id = T_K; id <= T_V; id++) {
        double *const x = store_renew(&own[1], id, DTYPE_F64, TOKENS * ROW);
        double *const r = store_renew(&radius[1], id, DTYPE_F64, TOKENS * ROW);
        for (int i = 0; i < TOKENS * ROW; i++) x[i] = i, r[i] = (1 + i) * 1e-9 * (id == T_V ? 2 : 1);
    }
    crew.radius = radius;
    sit(S_KV_WRITE, NULL, &o);
    cr_expect(o.fuzzy);
    for (int i = 0; i < 2; i++) {
        const double *const moved = answers.moved.of[T_K_CACHE + i].memory.data;
        double sum = 0;
        for (int64_t k = 0; k < answers.moved.of[T_K_CACHE + i].count; k++) sum += moved[k];
        for (int k = 0; k < TOKENS * ROW; k++) {
            const double r = moved[batch.slots[k / ROW] * ROW + k % ROW];
            cr_expect_eq(r, (1 + k) * 1e-9 * (1 + i), "element %d: %g", k, r);
            sum -= r;
        }
        cr_expect(fabs(sum) < 1e-18, "slots that nobody wrote are exact");
    }
    store_free(&radius[1]);
    outcome_free(&o);
    answer_seat_close(&answers);
}

static bool other_eps(struct call *call, const struct layer_spec *w, const struct layer_spec *l) {
    (void)w, (void)l;
    if (call->op == OP_NORM) call->u.norm.eps += 1;
    return call->op == OP_NORM;
}

Test(desk, a_mistake_seeded_into_the_answer_seat_is_in_what_it_stores_and_not_in_the_call,
     .fini = close_layer) {
    struct outcome right = {.by = NULL}, wrong = {.by = NULL};
    const struct mutant m = {.name = "m", .hooks.call = other_eps};
    open_layer(DTYPE_F64, LAYOUT_CONTIG);
    answer_seat_open(&answers, contract_f64);
    sit(S_ATTN_NORM, NULL, &right);
    sit(S_ATTN_NORM, &m, &wrong);
    cr_expect_neq(*(double *)right.got.of[T_NORMED].memory.data,
                  *(double *)wrong.got.of[T_NORMED].memory.data);
    cr_expect_eq(wrong.call.u.norm.eps, spec.norm_eps, "it would be judged by its own mistake");
    outcome_free(&right);
    outcome_free(&wrong);
    answer_seat_close(&answers);
}

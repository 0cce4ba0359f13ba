/* Mistakes around the routed experts: which rows go where, with which weights, and back. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "harness/mistake.h"
#include "harness/mutants/mutants.h"
#include "reference/plain.h"

enum { BLOCK = 16 }; /* tokens of a block of those that are launched, or padded to */

static bool at_combine(struct mistake *m) { return m->call.op == OP_COMBINE; }

/* ---- who holds which expert ---- */

static bool scattered(struct mistake *m) { return m->call.op == OP_PERMUTE && mistake_plan(m)->ep > 1; }

/* Ids as another rule of placement makes them: the call's own range of experts, or nobody's. */
static bool place_ids(struct mistake *m,
                      int64_t (*place)(const struct permute_args *a, int64_t ep, int64_t id)) {
    struct permute_args *const a = &m->call.u.permute;
    const int64_t n = a->n_tokens * a->ids.stride[0];
    if (!scattered(m) || !mistake_copy(m, &a->ids, n)) return false;
    int32_t *const ids = a->ids.data;
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)place(a, mistake_plan(m)->ep, ids[i]);
    return true;
}

/* The table of a rank has its own experts; the index into it is the whole layer's. */
static int64_t global_index(const struct permute_args *a, int64_t ep, int64_t id) {
    const bool own = id >= a->expert_first && id < a->expert_first + a->expert_count;
    (void)ep;
    return own && id < a->expert_count ? a->expert_first + id : -1;
}
static int64_t round_robin(const struct permute_args *a, int64_t ep, int64_t id) {
    const int64_t group = a->expert_first / a->expert_count;
    return id >= 0 && id % ep == group ? a->expert_first + id / ep : -1;
}
static bool index_globally(struct mistake *m) { return place_ids(m, global_index); }
static bool deal_round_robin(struct mistake *m) { return place_ids(m, round_robin); }
static void as_the_call_says(const struct mistake *m) { (void)m; }

/* ---- gates ---- */

/* Where slot (t, j) of a token should be, t is. */
static bool gates_by_token(struct mistake *m) {
    struct combine_args *const a = &m->call.u.combine;
    const int64_t n = a->n_tokens * a->top_k;
    const struct view right = a->gates;
    if (!at_combine(m) || a->top_k == 1 || !mistake_copy(m, &a->gates, n)) return false;
    for (int64_t s = 0; s < n; s++)
        dtype_store(a->gates.data, a->gates.dtype, s, dtype_load(right.data, right.dtype, s / a->top_k));
    return true;
}

/* Rows times gates go into the experts, and none is multiplied by afterwards. */
static bool gates_on_input(struct mistake *m) {
    struct combine_args *const a = &m->call.u.combine;
    const int64_t n = a->n_tokens * a->top_k;
    if (m->call.op == OP_PERMUTE) return mistake_whole(m, T_GATES) != NULL;
    if (!at_combine(m) || !mistake_copy(m, &a->gates, n)) return false;
    for (int64_t s = 0; s < n; s++) dtype_store(a->gates.data, a->gates.dtype, s, 1);
    return true;
}
static void scale_rows(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct permute_args *const a = &m->call.u.permute;
    const struct stored *const gates = mistake_whole(m, T_GATES);
    if (m->call.op != OP_PERMUTE) return;
    for (int64_t r = row0; r < row1; r++) {
        const double gate =
            dtype_load(gates->memory.data, gates->dtype, ((const int32_t *)a->row_slot.data)[r]);
        for (int64_t c = 0; c < a->width; c++) out->y[(r - row0) * a->width + c] *= gate;
    }
}

/* ---- rows ---- */

/* Slots whose expert is elsewhere have no row; what was in memory is added. */
static void add_unwritten(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct combine_args *const a = &m->call.u.combine;
    for (int64_t t = row0; t < row1; t++)
        for (int64_t j = 0; j < a->top_k; j++) {
            if (dtype_load(a->slot_row.data, DTYPE_I32, t * a->slot_row.stride[0] + j) >= 0) continue;
            for (int64_t c = 0; c < a->width; c++) out->y[(t - row0) * a->width + c] = (double)NAN;
        }
}

/* n / BLOCK blocks are launched. */
static void lose_tail(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct combine_args *const a = &m->call.u.combine;
    for (int64_t t = row0; t < row1; t++)
        for (int64_t c = 0; c < a->width && t >= a->n_tokens / BLOCK * BLOCK; c++)
            out->y[(t - row0) * a->width + c] = (double)NAN;
}

/* Tokens that fill a block up are token 0 again, sent to the first expert. */
static void add_padding(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct combine_args *const a = &m->call.u.combine;
    const int64_t padding = (BLOCK - a->n_tokens % BLOCK) % BLOCK;
    for (int64_t c = 0; c < a->width && row0 == 0 && row1 > 0 && a->n_rows > 0; c++)
        out->y[c] += (double)padding * dtype_load(a->down.data, a->down.dtype, c);
}

/* ---- gate and up ---- */

/* Row `flat` of the 2 F rows of an expert's whole weight that a rank has as row (b, f), b = 0 the
 * gate. */
struct gate_up {
    int64_t width, local; /* F, whole and of the rank */
    int64_t part;         /* which of the ranks that share the expert */
    int64_t b, f;
};

static int64_t right_place(const struct gate_up *r) { return r->b * r->width + r->part * r->local + r->f; }
static int64_t swapped(const struct gate_up *r) { return (1 - r->b) * r->width + r->part * r->local + r->f; }
static int64_t even_chunk(const struct gate_up *r) { return (2 * r->part + r->b) * r->local + r->f; }
static int64_t interleaved(const struct gate_up *r) { return 2 * (r->part * r->local + r->f) + r->b; }
static int64_t of_rank_0(const struct gate_up *r) { return r->b * r->width + r->f; }

/* The weight of gate and up that the call reads, and its rows. */
static struct view *gate_up_of(struct mistake *m, enum tensor_id *id, int64_t *n_inner) {
    const bool gated = m->call.op == OP_GATED_LINEAR;
    *id = placed_row(m->at)->in[1];
    if (*id != T_W_GATE_UP && *id != T_W_SHARED_GATE_UP) return NULL;
    *n_inner = gated ? m->call.u.gated_linear.n_inner : m->call.u.linear.n_inner;
    return gated ? &m->call.u.gated_linear.w : &m->call.u.linear.w;
}

static bool load_gate_up(struct mistake *m, int64_t (*from)(const struct gate_up *r)) {
    const struct shard_plan *const plan = mistake_plan(m);
    enum tensor_id id;
    int64_t n_inner;
    struct view *const w = gate_up_of(m, &id, &n_inner);
    if (!w) return false;
    const struct stored *const whole = mistake_whole(m, id);
    const bool routed = id == T_W_GATE_UP;
    const enum axis_name axis = routed ? AXIS_F : AXIS_S;
    const struct span experts = routed ? plan->rank[m->at->rank][AXIS_E] : (struct span){0, 1};
    struct gate_up r = {.width = plan->size[axis], .local = plan->rank[m->at->rank][axis].count};
    const size_t bytes = (size_t)n_inner * dtype_bytes(w->dtype);
    bool changed = false;
    r.part = plan->rank[m->at->rank][axis].first / r.local;
    if (!whole || !mistake_copy(m, w, experts.count * 2 * r.local * n_inner)) return false;
    for (int64_t e = 0; e < experts.count; e++)
        for (r.b = 0; r.b < 2; r.b++)
            for (r.f = 0; r.f < r.local; r.f++) {
                const int64_t row = (e * 2 + r.b) * r.local + r.f, flat = from(&r);
                changed |= flat != right_place(&r);
                memcpy((char *)w->data + (size_t)row * bytes,
                       (const char *)whole->memory.data +
                           (size_t)((experts.first + e) * 2 * r.width + flat) * bytes,
                       bytes);
            }
    return changed;
}

static bool load_swapped(struct mistake *m) { return load_gate_up(m, swapped); }
static void swap_in_plain(struct plain_layer *l, struct layer_spec *spec) {
    const double *const gate = l->w_gate, *const shared_gate = l->shared_gate;
    (void)spec;
    l->w_gate = l->w_up, l->w_up = gate;
    l->shared_gate = l->shared_up, l->shared_up = shared_gate;
}
static bool load_even_chunk(struct mistake *m) { return load_gate_up(m, even_chunk); }
static bool load_interleaved(struct mistake *m) { return load_gate_up(m, interleaved); }
static bool load_of_rank_0(struct mistake *m) { return load_gate_up(m, of_rank_0); }

/* ---- the table ---- */

#define OF_RANKS .edge = EDGE_SHARD, .part = PART_FFN
#define OF_ALL .edge = EDGE_KERNEL, .part = PART_FFN, .unsharded = true
const struct mutant mutants_of_experts[] = {
    {.name = "gate-up-swapped",
     .source = "kestrel PR #126",
     .describes = "the rows of gate are read as those of up",
     OF_ALL,
     .hooks.inside = load_swapped,
     .hooks.plain = swap_in_plain,
     .exposes = "tiny/ffn:tp=1,tokens=9"},
    {.name = "gate-up-interleaved",
     .source = "kestrel PR #126",
     .describes = "rows of gate and up are read as if they alternated",
     OF_ALL,
     .hooks.inside = load_interleaved,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,width=1,shared=1"},
    {.name = "gate-up-even-chunks",
     .source = "Automodel PR #1324",
     .describes = "the fused rows of gate and up are cut into even pieces",
     OF_RANKS,
     .hooks.inside = load_even_chunk,
     .exposes = "tiny/ffn:tp=2,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "gate-up-of-rank-0",
     .source = "vllm-gguf-plugin PR #106",
     .describes = "every rank loads rank 0's rows of gate and up",
     OF_RANKS,
     .hooks.inside = load_of_rank_0,
     .exposes = "tiny/ffn:tp=2,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "expert-index-global",
     .source = "vllm-gaudi PR #1796",
     .describes = "the whole layer's number of an expert is the index into the rank's own experts",
     OF_RANKS,
     .hooks.inside = index_globally,
     .hooks.chooses = as_the_call_says,
     .exposes = "tiny/ffn:tp=2,ep=2,tokens=9",
     .clean = "tiny/ffn:tp=2,ep=1,tokens=9"},
    {.name = "experts-round-robin",
     .source = "vLLM's placements of experts, linear and round_robin",
     .describes = "experts are dealt out one by one, their weights in rows",
     OF_RANKS,
     .hooks.inside = deal_round_robin,
     .hooks.chooses = as_the_call_says,
     .exposes = "tiny/ffn:tp=2,ep=2,tokens=9",
     .clean = "tiny/ffn:tp=2,ep=1,tokens=9"},
    {.name = "absent-rows-added",
     .source = "prime-rl PR #2035",
     .describes = "slots whose expert is on another rank bring what was in memory",
     OF_RANKS,
     .hooks.inside = at_combine,
     .hooks.stores = add_unwritten,
     .exposes = "tiny/ffn:tp=2,ep=2,top=2",
     .clean = "tiny/ffn:tp=2,ep=1,top=2"},
    {.name = "gates-by-token",
     .source = "vllm-xpu-kernels PR #66",
     .describes = "gate t serves every choice of token t",
     OF_ALL,
     .hooks.inside = gates_by_token,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,top=1"},
    {.name = "gates-on-input",
     .source = "vLLM PR #43694",
     .describes = "the gates multiply what goes into the experts, not what comes out",
     OF_ALL,
     .hooks.inside = gates_on_input,
     .hooks.stores = scale_rows,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "qwen3-30b-a3b/ffn:tp=1,tokens=9,hidden=64,experts=16,top=1,width=32"},
    {.name = "tail-of-tokens-lost",
     .source = "sglang PR #3679, vLLM PR #20392",
     .describes = "tokens behind the last whole block of 16 are not added up",
     OF_ALL,
     .hooks.inside = at_combine,
     .hooks.stores = lose_tail,
     .exposes = "tiny/ffn:tp=1,tokens=33",
     .clean = "tiny/ffn:tp=1,tokens=32"},
    {.name = "padding-to-expert-0",
     .source = "vLLM PR #35161",
     .describes = "tokens that fill the last block of 16 up go to the first expert, and to token 0",
     OF_ALL,
     .hooks.inside = at_combine,
     .hooks.stores = add_padding,
     .exposes = "tiny/ffn:tp=1,tokens=30",
     .clean = "tiny/ffn:tp=1,tokens=32"},
    {.name = "width-rounded-down",
     .source = "TensorRT-LLM PR #16198",
     .describes = "columns of an expert behind the last whole share are left out",
     .part = PART_FFN,
     .missing = "experts whose width the ranks do not divide"},
    {.name = "swiglu-clamp-dropped",
     .source = "tokenspeed PR #1647",
     .describes = "gate and up are not clamped",
     .part = PART_FFN,
     .missing = "clamp of gate and up"},
    {.name = "expert-bias-dropped",
     .source = "flashinfer issue #3423",
     .describes = "the bias of gate and up is left out",
     .part = PART_FFN,
     .missing = "biases of experts"},
    {.name = "weight-scales-uncut",
     .source = "vLLM issue #41511",
     .describes = "the scales of a quantised weight are not cut with it",
     .part = PART_FFN,
     .missing = "quantised weights"},
    {0},
};

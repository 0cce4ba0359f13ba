/* Mistakes of who holds which head, and of what is done to a head before attention: the rows of the
 * fused qkv weight that a rank loads, and the rotation. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "harness/mistake.h"
#include "harness/mutants/mutants.h"
#include "reference/plain.h"

enum block { Q, K, V };

/* A row of the rank's qkv weight: which block, which of its heads there, which dim. */
struct qkv_row {
    const struct layer_spec *whole;
    const struct shard_plan *plan;
    int rank;
    enum block block;
    int64_t head, dim;
    int64_t index; /* of all the rank's rows */
};

static struct span heads_of(const struct qkv_row *r) {
    return r->plan->rank[r->rank][r->block == Q ? AXIS_H : AXIS_G];
}
static int64_t n_rows_whole(const struct qkv_row *r) {
    return (r->whole->n_heads + 2 * r->whole->n_kv_heads) * r->whole->head_dim;
}

/* Where head `head` of the whole layer's block lies in the whole weight: q, then k, then v. */
static int64_t row_of_head(const struct qkv_row *r, int64_t head) {
    const int64_t before = r->block == Q ? 0 : r->whole->n_heads + (r->block - K) * r->whole->n_kv_heads;
    return (before + head) * r->whole->head_dim + r->dim;
}

/* A row of every rank's own. */
static int64_t right_row(const struct qkv_row *r) { return row_of_head(r, heads_of(r).first + r->head); }

static bool replicated(const struct qkv_row *r) { return r->plan->tp > r->whole->n_kv_heads; }

static int64_t kv_by_modulo(const struct qkv_row *r) {
    return r->block == Q || !replicated(r) ? right_row(r) : row_of_head(r, r->rank % r->whole->n_kv_heads);
}
static int64_t kv_head_zero(const struct qkv_row *r) {
    return r->block == Q || !replicated(r) ? right_row(r) : row_of_head(r, r->head);
}
static int64_t q_by_replica(const struct qkv_row *r) {
    if (r->block != Q || !replicated(r)) return right_row(r);
    return row_of_head(r, r->rank / (r->plan->tp / r->whole->n_kv_heads) * heads_of(r).count + r->head);
}
static int64_t even_chunk(const struct qkv_row *r) {
    const int64_t rows = n_rows_whole(r), row = r->rank * (rows / r->plan->tp) + r->index;
    return r->plan->tp == 1 ? right_row(r) : row < rows ? row : rows - 1;
}
static int64_t of_rank_0(const struct qkv_row *r) { return row_of_head(r, r->head); }
/* Every kv head's query heads, then its k, then its v. */
static int64_t group_by_group(const struct qkv_row *r) {
    const int64_t size = r->whole->n_heads / r->whole->n_kv_heads, head = heads_of(r).first + r->head;
    const int64_t slot =
        r->block == Q ? head / size * (size + 2) + head % size : head * (size + 2) + size + (r->block - K);
    return slot * r->whole->head_dim + r->dim;
}

/* The rank's rows of `id` [rows, width], read from those of the whole that `from` names, in the place
 * of *view. */
static bool load_rows(struct mistake *m, struct view *view, enum tensor_id id, int64_t width,
                      int64_t (*from)(const struct qkv_row *r)) {
    const struct layer_spec local = placed_local(m->at);
    const int64_t count[] = {local.n_heads, local.n_kv_heads, local.n_kv_heads};
    const struct stored *const whole = mistake_whole(m, id);
    struct qkv_row r = {.whole = mistake_spec(m), .plan = mistake_plan(m), .rank = m->at->rank};
    const size_t bytes = (size_t)width * dtype_bytes(view->dtype);
    bool changed = false;
    if (!whole || !mistake_copy(m, view, placed_count(m->at, id))) return false;
    for (r.block = Q; r.block <= V; r.block++)
        for (r.head = 0; r.head < count[r.block]; r.head++)
            for (r.dim = 0; r.dim < local.head_dim; r.dim++, r.index++) {
                const int64_t row = from(&r);
                changed |= row != right_row(&r);
                memcpy((char *)view->data + (size_t)r.index * bytes,
                       (const char *)whole->memory.data + (size_t)row * bytes, bytes);
            }
    return changed;
}

static bool load_qkv(struct mistake *m, int64_t (*from)(const struct qkv_row *r)) {
    struct linear_args *const a = &m->call.u.linear;
    if (m->at->stage != S_QKV_PROJ || !load_rows(m, &a->w, T_W_QKV, a->n_inner, from)) return false;
    return !a->bias.data || load_rows(m, &a->bias, T_B_QKV, 1, from);
}

static bool load_kv_by_modulo(struct mistake *m) { return load_qkv(m, kv_by_modulo); }
static bool load_kv_head_zero(struct mistake *m) { return load_qkv(m, kv_head_zero); }
static bool load_q_by_replica(struct mistake *m) { return load_qkv(m, q_by_replica); }
static bool load_even_chunk(struct mistake *m) { return load_qkv(m, even_chunk); }
static bool load_of_rank_0(struct mistake *m) { return load_qkv(m, of_rank_0); }
static bool load_group_by_group(struct mistake *m) { return load_qkv(m, group_by_group); }

/* ---- the rotation ---- */

static bool flip_pairing(struct mistake *m) {
    struct rope_args *const a = &m->call.u.rope;
    if (m->call.op != OP_ROPE || a->rot_dim <= 2) return false;
    a->pairing = a->pairing == ROPE_NEOX ? ROPE_GPTJ : ROPE_NEOX;
    return true;
}

static void flip_plain_pairing(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->rope_pairing = spec->rope_pairing == ROPE_NEOX ? ROPE_GPTJ : ROPE_NEOX;
}

static bool rotate_whole_head(struct mistake *m) {
    struct rope_args *const a = &m->call.u.rope;
    const int64_t n = mistake_plan(m)->size[AXIS_P];
    if (m->call.op != OP_ROPE || a->rot_dim == a->head_dim) return false;
    const enum dtype dtype = a->table.dtype;
    void *const table = mistake_memory(m, n * a->head_dim, dtype_bytes(dtype));
    if (!table) return false;
    ref_rope_table(table, dtype, n, a->head_dim, mistake_spec(m));
    a->table = (struct view){.data = table, .dtype = dtype, .stride = {a->head_dim}, .hi = n * a->head_dim};
    a->rot_dim = a->head_dim;
    return true;
}

static void rotate_plain_head(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->rot_dim = spec->head_dim;
}

/* ---- the table ---- */

#define OF_RANKS .edge = EDGE_SHARD, .part = PART_ATTENTION
#define OF_ALL .edge = EDGE_KERNEL, .part = PART_ATTENTION, .unsharded = true
const struct mutant mutants_of_heads[] = {
    {.name = "kv-replica-modulo",
     .source = "vLLM PR #2379",
     .describes = "with more ranks than kv heads rank r holds kv head r % G, not r / (tp/G)",
     OF_RANKS,
     .hooks.inside = load_kv_by_modulo,
     .exposes = "tiny/attention:tp=4,tokens=5,kv=2",
     .clean = "tiny/attention:tp=4,tokens=5,kv=1"},
    {.name = "kv-head-zero",
     .source = "sglang issue #23746, flash-sparse-attention PR #355",
     .describes = "with more ranks than kv heads G/tp is 0: every rank holds kv head 0",
     OF_RANKS,
     .hooks.inside = load_kv_head_zero,
     .exposes = "tiny/attention:tp=8,tokens=5",
     .clean = "tiny/attention:tp=4,tokens=5"},
    {.name = "q-by-replica",
     .source = "vLLM PR #2379",
     .describes = "with more ranks than kv heads the query heads are cut by the kv heads' numbers",
     OF_RANKS,
     .hooks.inside = load_q_by_replica,
     .exposes = "tiny/attention:tp=2,tokens=5,kv=1",
     .clean = "tiny/attention:tp=2,tokens=5"},
    {.name = "qkv-even-chunks",
     .source = "vLLM issue #42803, lorax PR #120",
     .describes = "the fused rows of q, k and v are cut into even pieces",
     OF_RANKS,
     .hooks.inside = load_even_chunk,
     .exposes = "tiny/attention:tp=2,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "qkv-of-rank-0",
     .source = "vllm-gguf-plugin PR #106",
     .describes = "every rank loads rank 0's rows of q, k and v",
     OF_RANKS,
     .hooks.inside = load_of_rank_0,
     .exposes = "tiny/attention:tp=2,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "qkv-by-group",
     .source = "DeepSpeed PR #3844",
     .describes = "rows of q, k and v are read as if each kv head's stood together",
     OF_ALL,
     .hooks.inside = load_group_by_group,
     .exposes = "tiny/attention:tp=1,tokens=5,kv=2",
     .clean = "tiny/attention:tp=1,tokens=5,kv=1"},
    {.name = "rope-pairs-flipped",
     .source = "vLLM PR #941",
     .describes = "the other dims of a head are rotated as a pair",
     OF_ALL,
     .hooks.inside = flip_pairing,
     .hooks.plain = flip_plain_pairing,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5,rot=2"},
    {.name = "rope-whole-head",
     .source = "vLLM PR #43770",
     .describes = "the whole head is rotated, not its first dims",
     OF_ALL,
     .hooks.inside = rotate_whole_head,
     .hooks.plain = rotate_plain_head,
     .exposes = "tiny/attention:tp=1,tokens=5,rot=8",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "qk-norm-of-own-heads",
     .source = "vLLM PR #39298",
     .describes = "a norm across all heads takes the mean over the rank's own",
     .part = PART_ATTENTION,
     .missing = "qk-norm across all heads"},
    {.name = "k-norm-by-rank",
     .source = "vLLM PR #38191",
     .describes = "the weight of a norm across all kv heads is cut by the rank, the heads by the replica",
     .part = PART_ATTENTION,
     .missing = "qk-norm across all heads"},
    {.name = "rope-amplitude",
     .source = "sglang PR #22711",
     .describes = "the amplitude of YaRN is taken from one field, not from the ratio of two",
     .part = PART_ATTENTION,
     .missing = "YaRN"},
    {.name = "rope-one-position",
     .source = "sglang PR #35744",
     .describes = "the first row of positions serves every section of a head",
     .part = PART_ATTENTION,
     .missing = "several positions of a token"},
    {0},
};

/* Mistakes of the all-reduce: a term that is left out, or added by more than one rank. What the
 * ranks bring is [T, M] each, of an ffn the routed part and then the shared one. */
/* SPDX-License-Identifier: MIT */
#include "harness/crew.h"
#include "harness/mistake.h"
#include "harness/mutants/mutants.h"

static int64_t n_ranks(const struct placed *at) { return at->crew->plan.tp; }

static bool skip_sum(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)parts;
    if (n_ranks(at) < 2) return false;
    *n_parts /= n_ranks(at);
    return true;
}

/* Twice reduced: what the ranks hold after the sum is added up again. */
static bool sum_twice(const struct placed *at, struct view *parts, int64_t *n_parts) {
    const int64_t n = *n_parts;
    if (n_ranks(at) < 2 || n * n_ranks(at) > MAX_PARTS) return false;
    for (int64_t i = n; i < n * n_ranks(at); i++) parts[(*n_parts)++] = parts[i % n];
    return true;
}

/* x is added once after the sum; here by every rank but one before it, too. */
static bool residual_every_rank(const struct placed *at, struct view *parts, int64_t *n_parts) {
    const struct stored *const x = &at->crew->whole->of[T_X];
    if (!x->count || n_ranks(at) < 2) return false;
    for (int64_t r = 1; r < n_ranks(at) && *n_parts < MAX_PARTS; r++)
        parts[(*n_parts)++] = view_dense(&at->crew->plan, T_X, -1, x->memory.data, x->dtype);
    return true;
}

/* Where the layer has experts of both kinds a rank brings two parts, the shared one second. */
static bool has_both(const struct placed *at) {
    return at->crew->spec.moe && at->crew->spec.shared_width > 0 && at->crew->part == PART_FFN;
}

static bool shared_every_rank(const struct placed *at, struct view *parts, int64_t *n_parts) {
    const int64_t n = *n_parts;
    if (!has_both(at) || n_ranks(at) < 2) return false;
    for (int64_t times = 1; times < n_ranks(at); times++)
        for (int64_t i = 1; i < n && *n_parts < MAX_PARTS; i += 2) parts[(*n_parts)++] = parts[i];
    return true;
}

static bool shared_of_one_rank(const struct placed *at, struct view *parts, int64_t *n_parts) {
    const int64_t n = *n_parts;
    if (!has_both(at) || n_ranks(at) < 2) return false;
    *n_parts = 2;
    for (int64_t i = 2; i < n; i += 2) parts[(*n_parts)++] = parts[i];
    return true;
}

/* By 1 / scale, for a factor that comes later, and does not. */
static bool divides_shared(struct mistake *m) {
    return m->call.op == OP_SUM && has_both(m->at) && mistake_spec(m)->routed_scale != 1;
}

static void divide_shared(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct sum_args *const a = &m->call.u.sum;
    for (int64_t p = 1; p < a->n_parts; p += 2)
        for (int64_t t = row0; t < row1; t++)
            for (int64_t c = 0; c < a->width; c++)
                out->y[(t - row0) * a->width + c] +=
                    (1 / mistake_spec(m)->routed_scale - 1) *
                    dtype_load(a->part[p].data, a->part[p].dtype, t * a->part[p].stride[0] + c);
}

/* ---- the bias of a row-parallel projection ---- */

/* It is rank 0's; here the others, which have none, add it too. */
static bool bias_every_rank(struct mistake *m) {
    const struct stored *const bias = mistake_whole(m, T_B_O);
    if (m->at->stage != S_O_PROJ || m->call.u.linear.bias.data || !bias || !mistake_spec(m)->o_bias)
        return false;
    m->call.u.linear.bias = view_dense(mistake_plan(m), T_B_O, -1, bias->memory.data, bias->dtype);
    return true;
}

const struct mutant mutants_of_sums[] = {
    {.name = "attention-sum-skipped",
     .source = "vllm-ascend PR #10557",
     .describes = "what rank 0 brings to the sum is taken for the sum",
     .edge = EDGE_SHARD,
     .part = PART_ATTENTION,
     .hooks.sum = skip_sum,
     .exposes = "tiny/attention:tp=2,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "ffn-sum-skipped",
     .source = "vllm-ascend PR #10557",
     .describes = "what rank 0 brings to the sum is taken for the sum",
     .edge = EDGE_SHARD,
     .part = PART_FFN,
     .hooks.sum = skip_sum,
     .exposes = "tiny/ffn:tp=2,ep=2,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "ffn-sum-twice",
     .source = "vllm-gaudi PR #1451",
     .describes = "the sum is added up again, over ranks that all hold it",
     .edge = EDGE_SHARD,
     .part = PART_FFN,
     .hooks.sum = sum_twice,
     .exposes = "tiny/ffn:tp=4,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "bias-every-rank",
     .source = "MinivLLM issue #80, FastDeploy PR #5247",
     .describes = "every rank adds the bias of o_proj, not rank 0 alone",
     .edge = EDGE_SHARD,
     .part = PART_ATTENTION,
     .hooks.inside = bias_every_rank,
     .exposes = "tiny/attention:tp=2,tokens=5,bias=qkvo",
     .clean = "tiny/attention:tp=2,tokens=5"},
    {.name = "residual-every-rank",
     .source = "mirage PR #722",
     .describes = "every rank adds the residual before the sum",
     .edge = EDGE_SHARD,
     .part = PART_ATTENTION,
     .hooks.sum = residual_every_rank,
     .exposes = "tiny/attention:tp=2,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "shared-every-rank",
     .source = "vLLM PR #49366, sglang PR #35535",
     .describes = "the shared experts are added up on their own, and then once more with the routed ones",
     .edge = EDGE_SHARD,
     .part = PART_FFN,
     .hooks.sum = shared_every_rank,
     .exposes = "tiny/ffn:tp=2,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "shared-of-one-rank",
     .source = "tpu-inference PR #3435",
     .describes = "the shared experts' parts are not added up: rank 0's is taken for the sum",
     .edge = EDGE_SHARD,
     .part = PART_FFN,
     .hooks.sum = shared_of_one_rank,
     .exposes = "tiny/ffn:tp=2,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "shared-divided",
     .source = "sglang PR #28237",
     .describes = "the shared experts are divided by the factor of the routed ones",
     .edge = EDGE_KERNEL,
     .part = PART_FFN,
     .unsharded = true,
     .hooks.inside = divides_shared,
     .hooks.stores = divide_shared,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,shared=0"},
    {.name = "expert-bias-every-rank",
     .source = "MinivLLM issue #80",
     .describes = "every rank adds the bias of an expert's down projection",
     .part = PART_FFN,
     .missing = "biases of experts"},
    {0},
};

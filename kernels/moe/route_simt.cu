/* route_simt - which K experts a token goes to, and with what weight (ops.h says the maths).
 * Shapes  logits f32 [T, E], bias f32 [E] or absent -> ids int32 [T, K], gates f32 [T, K].
 * Grid    (T): a block owns one token.   Block  one warp; a lane owns experts lane, lane + 32, ...
 * Tile    scores and choices in shared memory, [E] f32 each, group scores [n_group]
 *         f32: at most 6 KiB.
 * Traffic logits once, bias once per token; K argmax reductions of 5 shuffle steps.
 * Numerics f32; softmax relative to the row maximum, sums as lane chains joined by a butterfly;
 *         choice = score + bias, one rounding. A NaN choice counts as -inf, so that ids are always
 *         K different experts; its gate stays NaN. Ties go to the lower index, among groups too.
 * Needs   E <= 512, K <= 16, E % n_group == 0. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/kernel.cuh"
#include "kernels/kernels.h"

constexpr int LANES = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

static __device__ __forceinline__ float warp_max(float v) {
    for (int step = LANES / 2; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, step));
    return v;
}

static __device__ __forceinline__ float warp_sum(float v) {
    for (int step = LANES / 2; step; step /= 2) v += __shfl_xor_sync(ALL_LANES, v, step);
    return v;
}

/* 1 / (1 + exp(-z)); the exponential of a negative number neither overflows nor loses
 * relative accuracy. */
static __device__ __forceinline__ float sigmoid(float z) {
    const float e = expf(-fabsf(z));
    return (z >= 0 ? 1.0f : e) / (1.0f + e);
}

/* score[e] for the lane's experts. fmaxf drops NaN: a NaN logit reaches every softmax
 * score by the sum. */
static __device__ void compute_scores(float *score, const float *logits, int n_experts,
                                      enum score_function kind) {
    const int lane = (int)threadIdx.x;
    if (kind == SCORE_SIGMOID) {
        for (int e = lane; e < n_experts; e += LANES) score[e] = sigmoid(logits[e]);
        return;
    }
    float top = -INFINITY, sum = 0;
    for (int e = lane; e < n_experts; e += LANES) top = fmaxf(top, logits[e]);
    if (!SEEDED(BUG_ROUTE_LANES_ELSEWHERE) || lane < n_experts) top = warp_max(top);
    for (int e = lane; e < n_experts; e += LANES) sum += score[e] = expf(logits[e] - top);
    sum = warp_sum(sum);
    for (int e = lane; e < n_experts; e += LANES) score[e] /= sum;
}

/* Experts of rejected groups get choice -inf, or 0. A group's score is its best choice, or its best
 * two added. */
static __device__ void limit_groups(float *choice, float *group, const struct route_args &a) {
    const int lane = (int)threadIdx.x, n_groups = (int)a.n_group, size = (int)(a.n_experts / a.n_group);
    for (int g = lane; g < n_groups; g += LANES) {
        float best = -INFINITY, second = -INFINITY;
        for (int e = g * size; e < (g + 1) * size; e++) {
            second = fmaxf(second, fminf(best, choice[e]));
            best = fmaxf(best, choice[e]);
        }
        group[g] = a.group_score == GROUP_TOP2_SUM && size > 1 ? best + second : best;
    }
    __syncwarp(ALL_LANES);
    for (int g = lane; g < n_groups; g += LANES) {
        int better = 0;
        for (int other = 0; other < n_groups; other++)
            better += group[other] > group[g] || (group[other] == group[g] && other < g);
        if (better < a.topk_group) continue;
        for (int e = g * size; e < (g + 1) * size; e++)
            choice[e] = a.group_fill == GROUP_FILL_ZERO ? 0.0f : -INFINITY;
    }
    __syncwarp(ALL_LANES);
}

struct candidate {
    float choice;
    int expert; /* n_experts: none */
};

static __device__ __forceinline__ bool beats(candidate a, candidate b) {
    return a.choice > b.choice || (a.choice == b.choice && a.expert < b.expert);
}

/* The best expert whose bit in the owning lane's `taken` is clear; the same answer in
 * every lane. */
static __device__ int pick_best(const float *choice, int n_experts, unsigned taken) {
    candidate best = {-INFINITY, n_experts};
    for (int e = (int)threadIdx.x, i = 0; e < n_experts; e += LANES, i++) {
        const candidate mine = {choice[e], e};
        if (!(taken >> i & 1) && beats(mine, best)) best = mine;
    }
    for (int step = LANES / 2; step; step /= 2) {
        const candidate other = {__shfl_xor_sync(ALL_LANES, best.choice, step),
                                 __shfl_xor_sync(ALL_LANES, best.expert, step)};
        if (beats(other, best)) best = other;
    }
    return best.expert;
}

static __global__ void __launch_bounds__(LANES) route_kernel(const struct route_args a) {
    const int lane = (int)threadIdx.x, n_experts = (int)a.n_experts, top_k = (int)a.top_k;
    const float *bias = static_cast<const float *>(a.bias.data);
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    float *const score = carve.take<float>(n_experts);  /* [E] */
    float *const choice = carve.take<float>(n_experts); /* [E] */
    float *const group = carve.take<float>(a.n_group);  /* [n_group] */

    compute_scores(score, static_cast<const float *>(a.logits.data) + blockIdx.x * a.logits.stride[0],
                   n_experts, a.score);
    for (int e = lane; e < n_experts; e += LANES) {
        const float c = bias ? score[e] + bias[e] : score[e];
        choice[e] = c == c ? c : -INFINITY;
    }
    __syncwarp(ALL_LANES);
    if (a.n_group > 1) limit_groups(choice, group, a);

    if (SEEDED(BUG_ROUTE_LANES_LEFT) && lane >= n_experts) return;
    unsigned taken = 0; /* bit i: my expert lane + 32 i */
    int my_expert = 0;  /* lane j keeps the j-th choice */
    float sum = 0;
    for (int j = 0; j < top_k; j++) {
        const int expert = pick_best(choice, n_experts, taken);
        if (expert % LANES == lane) taken |= 1u << expert / LANES;
        if (j == lane) my_expert = expert;
        sum += score[expert];
    }
    if (lane >= top_k) return;
    float gate = score[my_expert];
    if (a.renormalise) gate /= sum + (float)a.renorm_eps;
    static_cast<int32_t *>(a.ids.data)[blockIdx.x * a.ids.stride[0] + lane] = my_expert;
    static_cast<float *>(a.gates.data)[blockIdx.x * a.gates.stride[0] + lane] = gate * (float)a.routed_scale;
}

extern "C" const char *KERNEL_SYMBOL(route_simt)(const struct call *call, void *, void *stream) {
    const struct route_args &a = call->u.route;
    if (!a.n_tokens) return nullptr;
    const size_t shared = 2 * carve_bytes<float>((size_t)a.n_experts) + carve_bytes<float>((size_t)a.n_group);
    return LAUNCH(route_kernel, dim3((unsigned)a.n_tokens), dim3(LANES), shared, stream, a);
}

#ifndef __CUDACC__
enum { MAX_EXPERTS = 512, MAX_TOP_K = 16 };
static_assert(MAX_EXPERTS <= LANES * 32 && MAX_TOP_K <= LANES, "a bit an expert, a lane a choice");

/* expf: 2 ulp in CUDA's single-precision accuracy table, at most 2^-22 relative;
 * glibc's is below 1 ulp. */
extern "C" struct contract route_simt_contract(const struct call *call) {
    struct contract c = {};
    c.op = OP_ROUTE;
    c.u.route.unit = UNIT_F32;
    c.u.route.exp_error = 0x1p-22;
    c.u.route.depth = (call->u.route.n_experts + LANES - 1) / LANES + 5; /* a lane's experts, the butterfly */
    c.u.route.ties_lower = true;                                         /* `beats` */
    return c;
}

extern "C" const char *route_simt_unsupported(const struct call *call) {
    const struct route_args &a = call->u.route;
    if (a.logits.dtype != DTYPE_F32 || a.gates.dtype != DTYPE_F32 ||
        (a.bias.data && a.bias.dtype != DTYPE_F32))
        return "needs logits, bias and gates in fp32";
    if (a.n_experts > MAX_EXPERTS) return "needs at most 512 experts";
    if (a.top_k > MAX_TOP_K || a.top_k > a.n_experts) return "needs top_k of at most 16 and n_experts";
    if (a.n_group < 1 || a.n_experts % a.n_group) return "needs n_group to divide n_experts";
    if (a.n_group > 1 &&
        (a.topk_group < 1 || a.topk_group > a.n_group || a.topk_group * (a.n_experts / a.n_group) < a.top_k))
        return "needs topk_group groups to hold top_k experts";
    return nullptr;
}

extern "C" struct tile_sizes route_simt_tiles(const struct call *) {
    struct tile_sizes t = {};
    t.of[EXTENT_EXPERTS] = {LANES, 1};
    return t;
}
#endif

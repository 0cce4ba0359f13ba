/* permute_simt - gather the tokens of each local expert into neighbouring rows: a stable
 * counting sort of the (token, choice) slots by expert, without atomics, so that the
 * order is the same in every run.
 * Shapes  x [T, M], ids int32 [T, K] -> offsets int32 [count + 1], row_slot int32 [n],
 *         slot_row int32 [T, K], rows [n, M] as x. Experts first..first+count are local.
 * permute_index   Grid (count + 1): a block owns one local expert, the last one all slots that are
 *         elsewhere. Block one warp: it counts the slots of the experts before its own (its
 *         offset), then walks all slots 32 at a time; a ballot gives every match its rank.
 *         Traffic ids twice per expert.
 * permute_gather  Grid (n, column blocks), 128 threads: bit copies of whole rows.
 *         Traffic rows once each.
 * Needs   T * K < 2^30. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/storage.cuh"
#include "kernels/kernels.h"

constexpr int LANES = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int COPY_THREADS = 128, COPY_COLS = 1024; /* a block copies 1024 columns of one row */

static __device__ __forceinline__ int slot_expert(const struct permute_args &a, int slot) {
    const int k = (int)a.top_k;
    return static_cast<const int32_t *>(a.ids.data)[slot / k * a.ids.stride[0] + slot % k];
}

static __device__ __forceinline__ int32_t *slot_row(const struct permute_args &a, int slot) {
    const int k = (int)a.top_k;
    return static_cast<int32_t *>(a.slot_row.data) + slot / k * a.slot_row.stride[0] + slot % k;
}

static __device__ __forceinline__ bool is_local(const struct permute_args &a, int expert) {
    return expert >= a.expert_first && expert - a.expert_first < a.expert_count;
}

/* How many slots went to local experts before local expert `before`. */
static __device__ int count_before(const struct permute_args &a, int before, int n_slots) {
    int count = 0;
    for (int slot = (int)threadIdx.x; slot < n_slots; slot += LANES) {
        const int expert = slot_expert(a, slot);
        count += is_local(a, expert) && expert - a.expert_first < before;
    }
    for (int step = LANES / 2; step; step /= 2) count += __shfl_xor_sync(ALL_LANES, count, step);
    return count;
}

static __global__ void __launch_bounds__(LANES) permute_index(const struct permute_args a) {
    const int lane = (int)threadIdx.x, mine = (int)blockIdx.x, n_slots = (int)(a.n_tokens * a.top_k);
    const int first = count_before(a, mine, n_slots);
    if (!lane) static_cast<int32_t *>(a.offsets.data)[mine] = first;

    if (mine == a.expert_count) {
        for (int slot = lane; slot < n_slots; slot += LANES)
            if (!is_local(a, slot_expert(a, slot))) *slot_row(a, slot) = -1;
        return;
    }
    for (int base = 0, row = first; base < n_slots; base += LANES) {
        const int slot = base + lane;
        const bool match = slot < n_slots && slot_expert(a, slot) - a.expert_first == mine;
        const unsigned matches = __ballot_sync(ALL_LANES, match);
        if (match) {
            const int at = row + __popc(matches & ((1u << lane) - 1));
            *slot_row(a, slot) = at;
            if (at < a.n_rows) static_cast<int32_t *>(a.row_slot.data)[at] = slot;
        }
        row += __popc(matches);
    }
}

/* rows[r] = x[row_slot[r] / K]. A row without a slot (the caller's n_rows is too
 * large) stays as it was. */
template <class Bits>
static __global__ void __launch_bounds__(COPY_THREADS) permute_gather(const struct permute_args a) {
    const int64_t row = blockIdx.x, slot = static_cast<const int32_t *>(a.row_slot.data)[row];
    if (slot < 0 || slot >= a.n_tokens * a.top_k) return;
    const Bits *from = static_cast<const Bits *>(a.x.data) + slot / a.top_k * a.x.stride[0];
    Bits *to = static_cast<Bits *>(a.rows.data) + row * a.rows.stride[0];
    const int64_t col0 = (int64_t)blockIdx.y * COPY_COLS, end = min(a.width, col0 + COPY_COLS);
    for (int64_t col = col0 + threadIdx.x; col < end; col += COPY_THREADS) to[col] = from[col];
}

extern "C" const char *KERNEL_SYMBOL(permute_simt)(const struct call *call, void *, void *stream) {
    const struct permute_args &a = call->u.permute;
    const char *problem =
        LAUNCH(permute_index, dim3((unsigned)(a.expert_count + 1)), dim3(LANES), 0, stream, a);
    if (problem || !a.n_rows) return problem;
    const dim3 grid((unsigned)a.n_rows, (unsigned)((a.width + COPY_COLS - 1) / COPY_COLS));
    if (a.x.dtype == DTYPE_F32)
        return LAUNCH((permute_gather<uint32_t>), grid, dim3(COPY_THREADS), 0, stream, a);
    return LAUNCH((permute_gather<uint16_t>), grid, dim3(COPY_THREADS), 0, stream, a);
}

#ifndef __CUDACC__
/* Data movement: nothing is computed. */
extern "C" struct contract permute_simt_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_PERMUTE;
    return c;
}

extern "C" const char *permute_simt_unsupported(const struct call *call) {
    const struct permute_args &a = call->u.permute;
    const struct view *const views[] = {&a.x, &a.rows};
    if (a.n_tokens * a.top_k > INT32_MAX / 2) return "needs fewer than 2^30 slots";
    return storage_unsupported(views, 2);
}

extern "C" struct tile_sizes permute_simt_tiles(const struct call *) {
    struct tile_sizes t = {};
    t.of[EXTENT_SLOTS] = {LANES, 1};
    t.of[EXTENT_WIDTH] = {COPY_COLS, 1};
    return t;
}
#endif

/* grouped_gemm_wgmma - out[r, c] = w[i, c] . x[r] for the rows r of group i, on
 * Hopper's own instructions (sm_90a). Serves dense products (one group) and the
 * experts. gemm_wgmma.cuh says how.
 * Shapes  x [rows, K], w [groups, N, K], offsets int32 [groups + 1] or absent -> out
 *         [rows, N]; bf16.
 * Numerics one tensor-core chain an element, one rounding to bf16: the bits depend on
 *         its row of x and of w alone.
 * Needs   compute capability 9.0, rows at 16-byte multiples, N % 8 == 0, no bias. */
/* SPDX-License-Identifier: MIT */
#include "kernels/dense/gemm_wgmma.cuh"

namespace {

struct plain_output {
    static constexpr int ROWS_OF_W = 1;

    template <int SUMS>
    static __device__ __forceinline__ uint32_t pair(const float (&s)[2][SUMS], int h, int i) {
        return pack_bf16(s[h][i], s[h][i + 1]);
    }
};

struct product product_of(const struct linear_args &a) {
    return {a.x,       a.w,        a.out,         a.offsets, a.n_rows,     a.n_cols,
            a.n_inner, a.n_groups, a.w.stride[1], 0,         a.w.stride[0]};
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(grouped_gemm_wgmma)(const struct call *call, void *, void *stream) {
    return launch_product<plain_output>(product_of(call->u.linear), stream);
}

#ifndef __CUDACC__
extern "C" struct contract grouped_gemm_wgmma_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_LINEAR;
    c.u.linear.acc = sm_90_chain;
    return c;
}

extern "C" const char *grouped_gemm_wgmma_unsupported(const struct call *call) {
    return product_unsupported(product_of(call->u.linear));
}

extern "C" struct tile_sizes grouped_gemm_wgmma_tiles(const struct call *call) {
    return product_tiles<plain_output>(product_of(call->u.linear));
}
#endif

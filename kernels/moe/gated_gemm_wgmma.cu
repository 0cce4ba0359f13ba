/* gated_gemm_wgmma - the first two steps of an expert in one, on Hopper's own
 * instructions (sm_90a):
 *   out[r, c] = silu(w[i, 0, c] . x[r]) * (w[i, 1, c] . x[r])     for the rows r of group i
 * gemm_wgmma.cuh says how. Half of a tile's rows of w are gates, half the ups of the same columns,
 * so that one product leaves both in one thread's registers.
 * Shapes  x [rows, K], w [groups, 2, F, K], offsets int32 [groups + 1] or
 *         absent -> out [rows, F]; bf16.
 * Numerics one tensor-core chain for each of the two; silu and product in fp32 on the sums, then
 *         one rounding to bf16: the bits depend on the element's row of x and its two of w alone.
 * Needs   compute capability 9.0, rows at 16-byte multiples, F % 8 == 0. */
/* SPDX-License-Identifier: MIT */
#include "kernels/dense/gemm_wgmma.cuh"

namespace {

/* exp(-x) overflows only where silu is 0 to storage. Two ulp each for exp2f and the quotient. */
__device__ __forceinline__ float silu(float x) {
    const float denominator = 1.0f + exp2f(x * -0x1.715476p+0f); /* log2 e */
#ifdef __CUDACC__
    return __fdividef(x, denominator);
#else
    return x / denominator;
#endif
}

struct gated_output {
    static constexpr int ROWS_OF_W = 2;

    template <int SUMS>
    static __device__ __forceinline__ uint32_t pair(const float (&s)[2][SUMS], int, int i) {
        return pack_bf16(silu(s[0][i]) * s[1][i], silu(s[0][i + 1]) * s[1][i + 1]);
    }
};

struct product product_of(const struct gated_linear_args &a) {
    return {a.x,       a.w,        a.out,         a.offsets,     a.n_rows,     a.width,
            a.n_inner, a.n_groups, a.w.stride[2], a.w.stride[1], a.w.stride[0]};
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(gated_gemm_wgmma)(const struct call *call, void *, void *stream) {
    return launch_product<gated_output>(product_of(call->u.gated_linear), stream);
}

#ifndef __CUDACC__
/* The activation is what silu_mul does, on the unrounded sums: x log2(e) is off by 1.3 units of x,
 * exp2f by 2 ulp (2^-22), 1 + e by one unit, the quotient by 2 ulp, the product by one unit. */
extern "C" struct contract gated_gemm_wgmma_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_GATED_LINEAR;
    c.u.gated_linear.acc = sm_90_chain;
    c.u.gated_linear.activation.unit = UNIT_F32;
    c.u.gated_linear.activation.exp_error = 0x1p-22;
    return c;
}

extern "C" const char *gated_gemm_wgmma_unsupported(const struct call *call) {
    return product_unsupported(product_of(call->u.gated_linear));
}

extern "C" struct tile_sizes gated_gemm_wgmma_tiles(const struct call *call) {
    return product_tiles<gated_output>(product_of(call->u.gated_linear));
}
#endif

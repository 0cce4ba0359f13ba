/* linear_cublas - the dense product out = x w^T + bias by cuBLAS, the library real layers call.
 * Row-major [rows, N] = [rows, K] [N, K]^T is column-major [N, rows] = [K, N]^T [K, rows]: operands
 * swapped. Cuda only.
 * Shapes  x [rows, K], w [N, K], bias [N] or absent -> out [rows, N]; x, w alike, out
 *         as x or f32; any row strides.
 * Grid    cuBLAS's own; before it spread_bias: (rows, column blocks), 128 threads, an element each.
 * Traffic cuBLAS's own; with a bias out twice more: it is written there first and enters as beta C.
 * Numerics f32 accumulation: reductions in reduced precision are disallowed, TF32 is never asked
 *         for. The algorithm (tiles, split-K) is cuBLAS's choice and depends on the sizes, so a
 *         column's bits may see the shard.
 * Needs   one group; sizes below 2^31; out in f32 where there is a bias: on an H200 a bf16 C was added
 *         to a product that had been rounded to bf16 already. */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"

/* NULL, or why the library cannot be called. */
extern "C" const char *linear_cublas_missing(void);

#ifdef __CUDACC__
#include <cublas_v2.h>
#include <dlfcn.h>
#include <stdio.h>

#include "kernels/lang/storage.cuh"

constexpr int BIAS_THREADS = 128;

/* out[r, n] = bias[n].  Grid (rows, column blocks), a thread an element. */
template <class Bias> static __global__ void spread_bias(const struct linear_args a) {
    const int64_t col = (int64_t)blockIdx.y * BIAS_THREADS + threadIdx.x;
    if (col >= a.n_cols) return;
    static_cast<float *>(a.out.data)[blockIdx.x * a.out.stride[0] + col] =
        to_float(static_cast<const Bias *>(a.bias.data)[col]);
}

static const char *launch_bias(const struct linear_args &a, void *stream) {
    const dim3 grid((unsigned)a.n_rows, (unsigned)((a.n_cols + BIAS_THREADS - 1) / BIAS_THREADS));
    return with_storage(a.bias.dtype, [&](auto t) {
        return LAUNCH((spread_bias<decltype(t)>), grid, dim3(BIAS_THREADS), 0, stream, a);
    });
}

typedef cublasStatus_t gemm_ex(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                               const void *, const void *, cudaDataType, int, const void *, cudaDataType, int,
                               const void *, void *, cudaDataType, int, cublasComputeType_t,
                               cublasGemmAlgo_t);

/* The library, opened when it is first asked for: linked in, it costs every process about 0.1 s, those
 * too that run no kernel. Found by the loader's rules, the toolkit of the build (rpath) among them. */
struct cublas {
    decltype(&cublasCreate) create;
    decltype(&cublasDestroy) destroy;
    decltype(&cublasSetStream) set_stream;
    decltype(&cublasSetMathMode) set_math_mode;
    decltype(&cublasGetStatusString) status_string;
    decltype(static_cast<gemm_ex *>(cublasGemmEx)) gemm; /* of two overloads the one that is exported */
    char problem[180];                                   /* empty: all of the above are there */
};

template <class F> static bool resolve(void *library, const char *name, F *out) {
    return (*out = reinterpret_cast<F>(dlsym(library, name))) != nullptr;
}

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)

static struct cublas open_cublas() {
    struct cublas c = {};
    void *library = nullptr;
    /* The build's own first; what is called here is the same in all of them. */
    static const char *const names[] = {"libcublas.so." TEXT_OF(CUBLAS_VER_MAJOR), "libcublas.so.13",
                                        "libcublas.so.12"};
    for (const char *name : names) {
        if ((library = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
        if (!c.problem[0])
            snprintf(c.problem, sizeof c.problem,
                     "needs cuBLAS (%.90s); install it or set LD_LIBRARY_PATH to its folder", dlerror());
    }
    if (!library) return c;
    const bool complete = resolve(library, "cublasCreate_v2", &c.create) &&
                          resolve(library, "cublasDestroy_v2", &c.destroy) &&
                          resolve(library, "cublasSetStream_v2", &c.set_stream) &&
                          resolve(library, "cublasSetMathMode", &c.set_math_mode) &&
                          resolve(library, "cublasGetStatusString", &c.status_string) &&
                          resolve(library, "cublasGemmEx", &c.gemm);
    snprintf(c.problem, sizeof c.problem, "%s",
             complete ? "" : "needs a cuBLAS of CUDA 12 or 13; the one found lacks functions of it");
    return c;
}

static const struct cublas &cublas() {
    static const struct cublas opened = open_cublas();
    return opened;
}

extern "C" const char *linear_cublas_missing(void) {
    return cublas().problem[0] ? cublas().problem : nullptr;
}

static const char *failure(const char *what, cublasStatus_t status) {
    static thread_local char text[160];
    snprintf(text, sizeof text, "linear_cublas: %s: %s", what, cublas().status_string(status));
    return text;
}

/* Created once a process, on first use: it belongs to the device, not to a call. */
static const char *shared_handle(cublasHandle_t *out) {
    static cublasHandle_t handle;
    cublasStatus_t status;
    if (!handle) {
        cublasHandle_t fresh;
        if ((status = cublas().create(&fresh))) return failure("cublasCreate", status);
        const int mode = CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        if ((status = cublas().set_math_mode(fresh, (cublasMath_t)mode))) {
            cublas().destroy(fresh);
            return failure("cublasSetMathMode", status);
        }
        handle = fresh;
    }
    *out = handle;
    return nullptr;
}

static cudaDataType_t cuda_type(enum dtype d) {
    return d == DTYPE_F32 ? CUDA_R_32F : d == DTYPE_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

extern "C" const char *KERNEL_SYMBOL(linear_cublas)(const struct call *call, void *, void *stream) {
    const struct linear_args &a = call->u.linear;
    const float alpha = 1, beta = a.bias.data ? 1.0f : 0.0f;
    cublasHandle_t handle;
    cublasStatus_t status;
    const char *problem;
    if (!a.n_rows) return nullptr;
    if ((problem = linear_cublas_missing())) return problem;
    if ((problem = shared_handle(&handle))) return problem;
    if ((status = cublas().set_stream(handle, (cudaStream_t)stream)))
        return failure("cublasSetStream", status);
    if (a.bias.data && (problem = launch_bias(a, stream))) return problem;
    status = cublas().gemm(
        handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)a.n_cols, (int)a.n_rows, (int)a.n_inner, &alpha, a.w.data,
        cuda_type(a.w.dtype), (int)a.w.stride[1], a.x.data, cuda_type(a.x.dtype), (int)a.x.stride[0], &beta,
        a.out.data, cuda_type(a.out.dtype), (int)a.out.stride[0], CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return status ? failure("cublasGemmEx", status) : nullptr;
}
#else

enum { MAX_SPLITS = 32 }; /* partial sums of split-K, added in f32 in any order */

/* cuBLAS says nothing about its order of summation: sliced-K and split-K interleave, hence
 * ORDER_ANY. 16-bit types run on tensor cores. The bits kept differ by generation: (16, 25, 24) on sm_90,
 * (8, 24, 24) on sm_80, whose bound is the wider one and covers both. */
extern "C" struct contract linear_cublas_contract(const struct call *call) {
    struct contract c = {};
    struct accumulator *acc = &c.u.linear.acc;
    const bool tensor_core = call->u.linear.x.dtype != DTYPE_F32;
    c.op = OP_LINEAR;
    acc->unit = UNIT_F32;
    acc->block = tensor_core ? 8 : 1;
    acc->fraction = acc->keep = tensor_core ? 24 : 0;
    acc->splits = MAX_SPLITS;
    acc->order = ORDER_ANY;
    return c;
}

static bool fits_int(int64_t n) { return n <= INT32_MAX; }

extern "C" const char *linear_cublas_unsupported(const struct call *call) {
    const struct linear_args &a = call->u.linear;
    if (a.x.dtype != a.w.dtype) return "needs x and w in one dtype";
    if (!dtype_is_storage(a.x.dtype)) return "needs x and w in " STORAGE_NAMES;
    if (a.out.dtype != a.x.dtype && a.out.dtype != DTYPE_F32) return "needs out in fp32 or in the dtype of x";
    if (a.bias.data && a.out.dtype != DTYPE_F32)
        return "needs out in fp32 where there is a bias, which cuBLAS may add to a rounded product";
    if (!fits_int(a.n_rows) || !fits_int(a.n_cols) || !fits_int(a.n_inner) || !fits_int(a.x.stride[0]) ||
        !fits_int(a.w.stride[1]) || !fits_int(a.out.stride[0]))
        return "needs sizes and strides below 2^31";
    if (a.x.stride[0] < a.n_inner || a.w.stride[1] < a.n_inner || a.out.stride[0] < a.n_cols)
        return "needs rows that do not overlap";
#ifdef SHARDCHECK_CUDA
    return linear_cublas_missing();
#else
    return nullptr; /* no such kernel in this build */
#endif
}
#endif

/* kernel_cuda - what kernels/lang/kernel.cuh means under nvcc: names for CUDA, no
 * machinery. A launch raises the kernel's dynamic shared memory limit where it needs more
 * than the 48 KiB every kernel has. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_KERNEL_CUDA_CUH
#define KERNELS_LANG_KERNEL_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define KERNEL_SYMBOL(name) name##_cuda
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define SHARED_RED_ZONE 0
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                               \
    device_cuda_launch(#kernel, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

/* One line about a refused launch, thread-local; in device_cuda.cu. */
extern "C" const char *device_cuda_launch_error(const char *kernel, cudaError_t error, dim3 grid, dim3 block,
                                                size_t shared_bytes);

template <class... Parameters, class... Arguments>
const char *device_cuda_launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                               size_t shared_bytes, void *stream, Arguments... arguments) {
    cudaError_t error = cudaSuccess;
    if (shared_bytes > 48 * 1024)
        error = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (error == cudaSuccess) {
        kernel<<<grid, block, shared_bytes, (cudaStream_t)stream>>>(static_cast<Parameters>(arguments)...);
        error = cudaPeekAtLastError();
    }
    if (error == cudaSuccess) return nullptr;
    (void)cudaGetLastError();
    return device_cuda_launch_error(name, error, grid, block, shared_bytes);
}

typedef __nv_bfloat16 bf16;
__device__ __forceinline__ float bf16_to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ bf16 bf16_from_float(float x) { return __float2bfloat16_rn(x); }
typedef __half f16;
__device__ __forceinline__ float f16_to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ f16 f16_from_float(float x) { return __float2half_rn(x); }
__device__ __forceinline__ void shared_stale(void *, size_t) {}
__device__ __forceinline__ void shared_red_zone(void *, size_t) {}

#endif

/* kernel_cuda - what kernels/lang/kernel.cuh means under nvcc: names for CUDA, no
 * machinery. A launch raises the kernel's dynamic shared memory limit where it needs more
 * than the 48 KiB every kernel has. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_KERNEL_CUDA_CUH
#define KERNELS_LANG_KERNEL_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/device/device.h"

#define KERNEL_SYMBOL(name) name##_cuda
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define SHARED_RED_ZONE 0
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                               \
    device_cuda_launch(#kernel, false, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)
/* The same of a kernel that begins with wait_for_launch_before: it may start early. */
#define LAUNCH_BEHIND(kernel, grid, block, shared_bytes, stream, ...)                                        \
    device_cuda_launch(#kernel, true, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

/* One line about a refused launch, thread-local; in device_cuda.cu. */
extern "C" const char *device_cuda_launch_error(const char *kernel, cudaError_t error, dim3 grid, dim3 block,
                                                size_t shared_bytes);

/* behind: it may start before the launch before it has ended (wait_for_launch_before). */
template <class... Parameters, class... Arguments>
const char *device_cuda_launch(const char *name, bool behind, void (*kernel)(Parameters...), dim3 grid,
                               dim3 block, size_t shared_bytes, void *stream, Arguments... arguments) {
    cudaError_t error = cudaSuccess;
    if (shared_bytes > 48 * 1024)
        error = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (error == cudaSuccess) {
        cudaLaunchAttribute early = {};
        early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early.val.programmaticStreamSerializationAllowed = 1;
        cudaLaunchConfig_t config = {};
        config.gridDim = grid, config.blockDim = block;
        config.dynamicSmemBytes = shared_bytes, config.stream = (cudaStream_t)stream;
        config.attrs = &early, config.numAttrs = behind && device_compute(DEVICE_CUDA) >= 90;
        error = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
    }
    if (error == cudaSuccess) return nullptr;
    (void)cudaGetLastError();
    return device_cuda_launch_error(name, error, grid, block, shared_bytes);
}

/* griddepcontrol (PTX ISA; sm_90): the launch behind may be started as far as there is room; and all that the
 * launch before has stored is there. Before sm_90 launches do not overlap. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ void next_launch_may_start() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ __forceinline__ void wait_for_launch_before() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
#else
__device__ __forceinline__ void next_launch_may_start() {}
__device__ __forceinline__ void wait_for_launch_before() {}
#endif

typedef __nv_bfloat16 bf16;
__device__ __forceinline__ float bf16_to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ bf16 bf16_from_float(float x) { return __float2bfloat16_rn(x); }
typedef __half f16;
__device__ __forceinline__ float f16_to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ f16 f16_from_float(float x) { return __float2half_rn(x); }
__device__ __forceinline__ void shared_stale(void *, size_t) {}
__device__ __forceinline__ void shared_red_zone(void *, size_t) {}

#endif

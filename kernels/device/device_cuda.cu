/* device_cuda - the device interface over the CUDA runtime. Guards lie inside one cudaMalloc, the
 * CPU works on a pinned staging copy made when it is first needed. One stream; a launch error that
 * only shows later (an illegal access) breaks the process's CUDA context, and the line says so. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime.h>

#include "kernels/device/device_ops.h"
#include "layer/copy.h"

static const size_t ALIGNMENT = 256;

/* base: one allocation of `capacity` bytes, data somewhere inside; staging: host
 * memory of `staging_bytes` */
struct cuda_buffer {
    char name[64];
    unsigned char *base;
    size_t capacity;
    void *staging;
    size_t staging_bytes;
};

static size_t round_up(size_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }
static size_t needed(size_t bytes, size_t guard) { return 2 * round_up(guard) + round_up(bytes) + ALIGNMENT; }
static cudaStream_t stream_of(const struct device *device) { return (cudaStream_t)device->stream; }

/* After these nothing works in this process any more. */
static bool is_sticky(cudaError_t error) {
    return error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure ||
           error == cudaErrorLaunchTimeout || error == cudaErrorMisalignedAddress ||
           error == cudaErrorIllegalInstruction || error == cudaErrorInvalidAddressSpace ||
           error == cudaErrorInvalidPc || error == cudaErrorHardwareStackError || error == cudaErrorAssert ||
           error == cudaErrorECCUncorrectable;
}

static struct status cuda_status(cudaError_t error, const char *doing, const char *name) {
    if (error == cudaSuccess) return status_ok();
    (void)cudaGetLastError(); /* told here, and of no launch that follows */
    return status_error(
        "cuda: %s%s%s: %s (%s)%s", doing, *name ? " " : "", name, cudaGetErrorString(error),
        cudaGetErrorName(error),
        is_sticky(error) ? "; the GPU context is lost, every later call of this process fails too" : "");
}

extern "C" const char *device_cuda_launch_error(const char *kernel, cudaError_t error, dim3 grid, dim3 block,
                                                size_t shared_bytes) {
    static thread_local char text[400];
    const size_t length = strlen(kernel);
    const bool wrapped = kernel[0] == '(' && kernel[length - 1] == ')';
    int most_shared = 0;
    cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    snprintf(
        text, sizeof text,
        "kernel %.*s: %s (grid %ux%ux%u, block %ux%ux%u, %zu bytes of dynamic shared memory of at most %d)",
        (int)(length - (wrapped ? 2 : 0)), kernel + wrapped, cudaGetErrorString(error), grid.x, grid.y,
        grid.z, block.x, block.y, block.z, shared_bytes, most_shared);
    return text;
}

static struct status cuda_open(struct device *device) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
    if (error != cudaSuccess)
        return status_error("--device cuda: no CUDA device found (%s); "
                            "run on a machine with an NVIDIA GPU or use --device host",
                            cudaGetErrorString(error));
    cudaDeviceProp properties;
    error = cudaGetDeviceProperties(&properties, 0);
    if (error == cudaSuccess && properties.major < 8)
        return status_error(
            "--device cuda: %s has compute capability %d.%d, the kernels need 8.0; use --device host",
            properties.name, properties.major, properties.minor);
    cudaStream_t stream = nullptr;
    if (error == cudaSuccess) error = cudaSetDevice(0);
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error != cudaSuccess)
        return status_error(
            "--device cuda: the GPU cannot be used (%s); check nvidia-smi or use --device host",
            cudaGetErrorString(error));
    device->stream = stream;
    snprintf(device->label, sizeof device->label, "%s (cuda)", properties.name);
    return status_ok();
}

extern "C" int device_cuda_compute(void) {
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess) return 0;
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    return 10 * major + minor;
}

extern "C" int device_cuda_processors(void) {
    int n = 0;
    return cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess && n > 0 ? n : 1;
}

static void cuda_close(struct device *device) { cudaStreamDestroy(stream_of(device)); }

static void cuda_release(struct device *device, struct device_buffer *buffer) {
    struct cuda_buffer *owned = (struct cuda_buffer *)buffer->owner;
    cudaStreamSynchronize(
        stream_of(device)); /* a kernel may still use it; what went wrong there is sync's to say */
    cudaFree(owned->base);
    device->bytes -= owned->capacity;
    cudaFreeHost(owned->staging);
    free(owned);
}

/* Data as close to the end as its alignment allows, so that little lies between the guard and the
 * allocation's end. */
static struct status lay_out(struct device *device, struct cuda_buffer *owned, const char *name, size_t bytes,
                             size_t guard, bool poison, struct device_buffer *out) {
    snprintf(owned->name, sizeof owned->name, "%s", name);
    if (owned->staging_bytes < bytes) {
        cudaFreeHost(owned->staging);
        owned->staging = nullptr;
        owned->staging_bytes = 0;
        TRY(cuda_status(cudaMallocHost(&owned->staging, bytes), "staging memory of", name));
        owned->staging_bytes = bytes;
    }
    out->data = owned->base + (owned->capacity - guard - bytes) / ALIGNMENT * ALIGNMENT;
    out->bytes = bytes;
    out->guard = guard;
    out->poison = device->poison;
    out->host = owned->staging ? owned->staging : out->data;
    out->owner = owned;
    if (!poison) {
        unsigned char *const data = (unsigned char *)out->data;
        TRY(cuda_status(cudaMemsetAsync(data - guard, device->poison, guard, stream_of(device)), "poisoning",
                        name));
        return cuda_status(cudaMemsetAsync(data + bytes, device->poison, guard, stream_of(device)),
                           "poisoning", name);
    }
    set_bytes(out->host, device->poison, bytes);
    return cuda_status(cudaMemsetAsync(owned->base, device->poison, owned->capacity, stream_of(device)),
                       "poisoning", name);
}

static struct status cuda_alloc(struct device *device, const char *name, size_t bytes, size_t guard,
                                bool poison, struct device_buffer *out) {
    if (bytes > SIZE_MAX / 8 || guard > SIZE_MAX / 8)
        return status_error("buffer %s: %zu bytes with guards of %zu cannot be", name, bytes, guard);
    struct cuda_buffer *owned = (struct cuda_buffer *)calloc(1, sizeof *owned);
    if (!owned) return status_error("buffer %s: out of memory", name);
    owned->capacity = needed(bytes, guard);
    const cudaError_t error = cudaMalloc((void **)&owned->base, owned->capacity);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        const struct status failed = status_error(
            "buffer %s: no GPU memory for %zu bytes and two guards of %zu (%s); use a smaller case", name,
            bytes, guard, cudaGetErrorString(error));
        free(owned);
        return failed;
    }
    const struct status laid_out = lay_out(device, owned, name, bytes, guard, poison, out);
    if (laid_out.code) {
        cudaFree(owned->base);
        cudaFreeHost(owned->staging);
        free(owned);
        *out = {};
        return laid_out;
    }
    device->bytes += owned->capacity;
    if (device->bytes > device->most_bytes) device->most_bytes = device->bytes;
    return laid_out;
}

static struct status cuda_reuse(struct device *device, const char *name, size_t bytes, size_t guard,
                                bool poison, struct device_buffer *buffer) {
    struct cuda_buffer *owned = (struct cuda_buffer *)buffer->owner;
    if (bytes <= owned->capacity && guard <= owned->capacity && needed(bytes, guard) <= owned->capacity)
        return lay_out(device, owned, name, bytes, guard, poison, buffer);
    cuda_release(device, buffer);
    *buffer = {};
    return cuda_alloc(device, name, bytes, guard, poison, buffer);
}

static const char *name_of(const struct device_buffer *buffer) {
    return ((struct cuda_buffer *)buffer->owner)->name;
}

/* Waits: the caller may write its staging copy again at once. */
static cudaError_t copy_now(struct device *device, void *to, const void *from, size_t bytes,
                            cudaMemcpyKind kind) {
    const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, stream_of(device));
    return error == cudaSuccess ? cudaStreamSynchronize(stream_of(device)) : error;
}

static struct status cuda_push(struct device *device, struct device_buffer *buffer) {
    if (!buffer->bytes) return status_ok();
    return cuda_status(copy_now(device, buffer->data, buffer->host, buffer->bytes, cudaMemcpyHostToDevice),
                       "copying to the GPU", name_of(buffer));
}

static struct status cuda_pull(struct device *device, struct device_buffer *buffer) {
    if (!buffer->bytes) return status_ok();
    return cuda_status(copy_now(device, buffer->host, buffer->data, buffer->bytes, cudaMemcpyDeviceToHost),
                       "copying from the GPU", name_of(buffer));
}

static __device__ unsigned count_bytes(unsigned word, unsigned poison) {
    return __popc(__vcmpne4(word, poison)) / 8;
}

/* Bytes of [from, from + n) that are not `poison`; 16 at a time but for the ends. */
static __global__ void count_changed(const unsigned char *from, const size_t n, const unsigned char poison,
                                     unsigned long long *changed) {
    const size_t step = (size_t)gridDim.x * blockDim.x, self = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const size_t head = (16 - (size_t)from % 16) % 16, begin = head < n ? head : n, words = (n - begin) / 16;
    const uint4 *const word = (const uint4 *)(from + begin);
    const unsigned four = poison * 0x01010101u;
    unsigned long long mine = 0;
    for (size_t i = self; i < words; i += step) {
        const uint4 w = word[i];
        if (((w.x ^ four) | (w.y ^ four) | (w.z ^ four) | (w.w ^ four)) == 0) continue;
        mine +=
            count_bytes(w.x, four) + count_bytes(w.y, four) + count_bytes(w.z, four) + count_bytes(w.w, four);
    }
    for (size_t i = self; i < begin; i += step) mine += from[i] != poison;
    for (size_t i = begin + 16 * words + self; i < n; i += step) mine += from[i] != poison;
    if (mine) atomicAdd(changed, mine);
}

/* Counted where the guards are: copied they would cost more than the kernel. */
static cudaError_t count_guards(struct device *device, const struct device_buffer *buffer,
                                unsigned long long *counter, unsigned long long *changed) {
    enum { BLOCKS = 1024 };
    const unsigned char *const data = (const unsigned char *)buffer->data;
    const cudaStream_t stream = stream_of(device);
    cudaError_t error = cudaMemsetAsync(counter, 0, sizeof *counter, stream);
    if (error != cudaSuccess) return error;
    count_changed<<<BLOCKS, 256, 0, stream>>>(data - buffer->guard, buffer->guard, buffer->poison, counter);
    count_changed<<<BLOCKS, 256, 0, stream>>>(data + buffer->bytes, buffer->guard, buffer->poison, counter);
    error = cudaPeekAtLastError();
    return error == cudaSuccess ? copy_now(device, changed, counter, sizeof *changed, cudaMemcpyDeviceToHost)
                                : error;
}

static struct status cuda_guard_damage(struct device *device, const struct device_buffer *buffer,
                                       size_t *damaged) {
    unsigned long long *counter = nullptr, changed = 0;
    if (!buffer->guard) return status_ok();
    cudaError_t error = cudaMallocAsync((void **)&counter, sizeof *counter, stream_of(device));
    if (error == cudaSuccess) error = count_guards(device, buffer, counter, &changed);
    if (counter) cudaFreeAsync(counter, stream_of(device));
    *damaged += (size_t)changed;
    return cuda_status(error, "reading the guards of", name_of(buffer));
}

static struct status cuda_sync(struct device *device) {
    cudaError_t error = cudaStreamSynchronize(stream_of(device));
    if (error == cudaSuccess) error = cudaGetLastError();
    return cuda_status(error, "the kernels failed", "");
}

extern "C" const struct device_ops device_cuda_ops = {cuda_open,  cuda_close, cuda_alloc, cuda_release,
                                                      cuda_reuse, cuda_push,  cuda_pull,  cuda_guard_damage,
                                                      cuda_sync,  nullptr,    nullptr};

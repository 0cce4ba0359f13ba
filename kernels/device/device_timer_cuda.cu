/* device_timer_cuda - events in the stream of launches. The driver's version is NVML's to say,
 * which comes with the driver and is opened only here. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include <cuda_runtime.h>
#include <dlfcn.h>

#include "kernels/device/device_timer_ops.h"

static const size_t COPY_BYTES = (size_t)1 << 30, LEAST_FLUSH = (size_t)256 << 20;

static cudaStream_t stream_of(const struct device_timer *timer) {
    return (cudaStream_t)device_stream(timer->device);
}

static struct status cuda_status(cudaError_t error, const char *doing) {
    if (error == cudaSuccess) return status_ok();
    (void)cudaGetLastError(); /* told here, and of no launch that follows */
    return status_error("cuda: %s: %s (%s)", doing, cudaGetErrorString(error), cudaGetErrorName(error));
}

static struct status timer_open(struct device_timer *timer) {
    int cache = 0;
    cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0);
    timer->copy_bytes = COPY_BYTES;
    timer->flush_bytes = 4 * (size_t)cache < LEAST_FLUSH ? LEAST_FLUSH : 4 * (size_t)cache;
    void *memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, 2 * timer->copy_bytes);
    timer->memory = (char *)memory;
    if (error == cudaSuccess) error = cudaMemset(memory, 0, 2 * timer->copy_bytes);
    for (int i = 0; i < DEVICE_MARKS && error == cudaSuccess; i++) {
        cudaEvent_t event = nullptr;
        error = cudaEventCreate(&event);
        timer->event[i] = event;
    }
    return cuda_status(error, "2 GiB and events to measure with");
}

static void timer_close(struct device_timer *timer) {
    for (void *event : timer->event)
        if (event) cudaEventDestroy((cudaEvent_t)event);
    cudaFree(timer->memory);
}

static struct status timer_mark(struct device_timer *timer, int mark) {
    return cuda_status(cudaEventRecord((cudaEvent_t)timer->event[mark], stream_of(timer)), "marking a time");
}

static struct status timer_seconds(struct device_timer *timer, int from, int to, double *seconds) {
    float ms = 0;
    const cudaError_t error =
        cudaEventElapsedTime(&ms, (cudaEvent_t)timer->event[from], (cudaEvent_t)timer->event[to]);
    *seconds = 1e-3 * (double)ms;
    return cuda_status(error, "reading a time");
}

static struct status timer_flush(struct device_timer *timer) {
    return cuda_status(cudaMemsetAsync(timer->memory, 0, timer->flush_bytes, stream_of(timer)),
                       "emptying the cache");
}

static struct status timer_copy(struct device_timer *timer) {
    return cuda_status(cudaMemcpyAsync(timer->memory + timer->copy_bytes, timer->memory, timer->copy_bytes,
                                       cudaMemcpyDeviceToDevice, stream_of(timer)),
                       "copying memory");
}

/* False: not known. */
static bool driver_version(char *text, unsigned size) {
    void *const nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml) return false;
    const auto init = (int (*)())dlsym(nvml, "nvmlInit_v2");
    const auto version = (int (*)(char *, unsigned))dlsym(nvml, "nvmlSystemGetDriverVersion");
    return init && version && init() == 0 && version(text, size) == 0;
}

static void timer_describe(char *text, size_t size) {
    char driver[96];
    int clock_khz = 0, cuda = 0;
    cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0);
    cudaDriverGetVersion(&cuda);
    if (!driver_version(driver, sizeof driver))
        snprintf(driver, sizeof driver, "of CUDA %d.%d", cuda / 1000, cuda % 1000 / 10);
    snprintf(text, size, "driver %s, at most %d MHz", driver, clock_khz / 1000);
}

extern "C" const struct device_timer_ops device_timer_cuda = {"cudaMemcpy", timer_open,    timer_close,
                                                              timer_mark,   timer_seconds, timer_flush,
                                                              timer_copy,   timer_describe};

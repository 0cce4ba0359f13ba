/* device_timer - the host's clock, and the way to the one of cuda (device_timer_cuda.cu). */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/device/device_timer_ops.h"

/* ---- host ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Twice the last cache, within what a small machine has. */
static struct status host_open(struct device_timer *timer) {
    const size_t least = (size_t)16 << 20, most = (size_t)64 << 20;
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const size_t twice = cache > 0 ? 2 * (size_t)cache : least;
    timer->copy_bytes = timer->flush_bytes = twice < least ? least : twice > most ? most : twice;
    timer->memory = calloc(2, timer->copy_bytes);
    return timer->memory ? status_ok() : status_error("--device host: no memory for its timer");
}

static void host_close(struct device_timer *timer) { free(timer->memory); }

static struct status host_mark(struct device_timer *timer, int mark) {
    timer->at[mark] = now();
    return status_ok();
}

static struct status host_seconds(struct device_timer *timer, int from, int to, double *seconds) {
    *seconds = timer->at[to] - timer->at[from];
    return status_ok();
}

static struct status host_flush(struct device_timer *timer) {
    static unsigned char byte; /* another one every time, or nothing would have to be written */
    memset(timer->memory, ++byte, timer->flush_bytes);
    return status_ok();
}

static struct status host_copy(struct device_timer *timer) {
    memcpy(timer->memory + timer->copy_bytes, timer->memory, timer->copy_bytes);
    return status_ok();
}

/* "model name : Intel(R) ..." of the first core. */
static void host_describe(char *text, size_t size) {
    char line[256];
    FILE *const file = fopen("/proc/cpuinfo", "re");
    snprintf(text, size, "unknown processor");
    while (file && fgets(line, sizeof line, file)) {
        const char *const colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(text, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file) fclose(file);
}

static const struct device_timer_ops device_timer_host = {.copier = "memcpy",
                                                          .open = host_open,
                                                          .close = host_close,
                                                          .mark = host_mark,
                                                          .seconds = host_seconds,
                                                          .flush = host_flush,
                                                          .copy = host_copy,
                                                          .describe = host_describe};

/* ---- either ---- */

static const struct device_timer_ops *const kinds[DEVICE_COUNT] = {
    [DEVICE_HOST] = &device_timer_host,
#ifdef SHARDCHECK_CUDA
    [DEVICE_CUDA] = &device_timer_cuda,
#endif
};

struct status device_timer_open(struct device *device, struct device_timer **out) {
    struct device_timer *timer = calloc(1, sizeof *timer);
    *out = NULL;
    if (!timer) return status_error("--device %s: out of memory", device_kind_name(device_kind_of(device)));
    timer->device = device;
    timer->ops = kinds[device_kind_of(device)];
    const struct status opened = timer->ops->open(timer);
    if (opened.code)
        device_timer_close(timer);
    else
        *out = timer;
    return opened;
}

void device_timer_close(struct device_timer *timer) {
    if (timer) timer->ops->close(timer);
    free(timer);
}

struct status device_timer_mark(struct device_timer *timer, int mark) {
    return timer->ops->mark(timer, mark);
}
struct status device_timer_seconds(struct device_timer *timer, int from, int to, double *seconds) {
    return timer->ops->seconds(timer, from, to, seconds);
}
struct status device_timer_flush(struct device_timer *timer) {
    return timer->ops->flush(timer);
}
struct status device_timer_copy(struct device_timer *timer) {
    return timer->ops->copy(timer);
}
size_t device_timer_flush_bytes(const struct device_timer *timer) { return timer->flush_bytes; }
size_t device_timer_copy_bytes(const struct device_timer *timer) { return timer->copy_bytes; }
const char *device_timer_copier(const struct device_timer *timer) { return timer->ops->copier; }
void device_timer_describe(const struct device_timer *timer, char *text, size_t size) {
    timer->ops->describe(text, size);
}

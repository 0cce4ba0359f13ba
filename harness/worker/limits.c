/* What may a worker take before it is given up? */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/limits.h"

#include <sched.h>
#include <stdio.h>

int machine_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    const int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > MAX_JOBS ? MAX_JOBS : n;
}

#if defined __SANITIZE_ADDRESS__ || defined SIMT_RACE
enum { SLOWER = 30 };
#else
enum { SLOWER = 1 };
#endif

double reference_limit(void) { return 120 * SLOWER; }

double launch_limit(double work, enum device_kind device) {
    return SLOWER * (60 + work / (device == DEVICE_HOST ? 1e7 : 1e10));
}

static int64_t number_in(const char *path, const char *format) {
    char line[256];
    long long value = -1;
    FILE *const file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, format, &value) == 1) break;
    if (file) fclose(file);
    return value;
}

int64_t memory_limit(void) {
    const int64_t available = number_in("/proc/meminfo", "MemAvailable: %lld kB") * 1024;
    const int64_t group = number_in("/sys/fs/cgroup/memory.max", "%lld");
    const int64_t least = group > 0 && group < available ? group : available;
    return least > 0 ? least / 10 * 9 : INT64_MAX;
}

/* What do the targets make of stored inputs?  corpus/TARGET/FILE goes to fuzz_TARGET, each in a
 * process of its own: a crash or a hang is counted, and the others still run. Compiled with
 * -DFUZZ=fuzz_TARGET it is the entry of libFuzzer instead. */
/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/fuzz.h"

#ifdef FUZZ

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    FUZZ(data, n);
    return 0;
}

#else

#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    void (*run)(const uint8_t *data, size_t n);
} targets[] = {{"axes", fuzz_axes},
               {"bench_report", fuzz_bench_report},
               {"bench_shape", fuzz_bench_shape},
               {"call_log", fuzz_call_log},
               {"case_line", fuzz_case_line},
               {"config", fuzz_config},
               {"options", fuzz_options},
               {"report", fuzz_report},
               {"tensors", fuzz_tensors},
               {"waivers", fuzz_waivers}};

enum { MAX_INPUT = 1 << 20, MAX_INPUT_SECONDS = 10 };

/* In the child. */
static int run_file(const char *path) {
    static uint8_t data[MAX_INPUT];
    FILE *const file = fopen(path, "rb");
    if (!file) return 1;
    const size_t n = fread(data, 1, sizeof data, file);
    alarm(MAX_INPUT_SECONDS);
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
        char folder[64];
        snprintf(folder, sizeof folder, "/%s/", targets[t].name);
        if (strstr(path, folder)) return targets[t].run(data, n), 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    int n_failed = 0;
    for (int i = 1; i < argc; i++) {
        int status;
        const pid_t child = fork();
        if (child == 0) _exit(run_file(argv[i]));
        const bool ended = child > 0 && waitpid(child, &status, 0) == child;
        if (ended && WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
        printf("FAIL %s\n", argv[i]);
        n_failed++;
    }
    printf("%d passed, %d failed\n", argc - 1 - n_failed, n_failed);
    return n_failed > 0 || argc == 1;
}

#endif

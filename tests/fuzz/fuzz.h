/* fuzz - targets: each takes any bytes and aborts where something is wrong with the answer. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/line.h"
#include "layer/status.h"

void fuzz_axes(const uint8_t *data, size_t n);
void fuzz_bench_report(const uint8_t *data, size_t n);
void fuzz_bench_shape(const uint8_t *data, size_t n);
void fuzz_call_log(const uint8_t *data, size_t n);
void fuzz_case_line(const uint8_t *data, size_t n);
void fuzz_config(const uint8_t *data, size_t n);
void fuzz_report(const uint8_t *data, size_t n);
void fuzz_waivers(const uint8_t *data, size_t n);
void fuzz_tensors(const uint8_t *data, size_t n);
void fuzz_options(const uint8_t *data, size_t n);

#define FUZZ_CHECK(condition)                                                                                \
    do {                                                                                                     \
        if (condition) break;                                                                                \
        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                      \
        abort();                                                                                             \
    } while (0)

/* A refusal is one clean line. */
static inline void fuzz_check_refusal(const struct status *s) {
    FUZZ_CHECK(s->message[0] && line_is_clean(s->message));
}

/* The bytes up to the first zero as a string, to be freed. */
static inline char *fuzz_text(const uint8_t *data, size_t n) {
    char *const text = malloc(n + 1);
    FUZZ_CHECK(text);
    if (n) memcpy(text, data, n);
    text[n] = 0;
    return text;
}

#endif

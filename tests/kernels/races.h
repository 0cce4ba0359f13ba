/* races - what tests/test_race.c launches in the race build: kernels with one race each (or one
 * read of what nobody has written), and the same exchanges done right. Host device only. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_KERNELS_RACES_H
#define TESTS_KERNELS_RACES_H

#ifdef __cplusplus
extern "C" {
#endif

enum { RACED_FLOATS = 8192 };

struct race_case {
    const char *name;
    const char *(*launch)(float *raced); /* [RACED_FLOATS], called "raced"; NULL, or why it was refused */
    const char *says[3];                 /* parts of the report; none: there must not be one */
};

/* Each ends with a row without a name. */
extern const struct race_case race_cases[];       /* plain accesses, atomics, cp.async */
extern const struct race_case race_async_cases[]; /* mbarrier, TMA, wgmma */

/* The source lines of the two accesses; a line no thread has come to is 0. */
extern int race_lines[2];

int race_detector_is_built(void);

#ifdef __cplusplus
}
#endif

/* Before an access, on its line: it is the first or the second of the two that race. */
#define ONE race_lines[0] = __LINE__,
#define TWO race_lines[1] = __LINE__,

#endif

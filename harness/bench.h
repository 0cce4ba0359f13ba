/* bench - how fast are the kernels, and whoever does the same elsewhere? Every shape: operands are
 * laid out, each way to do it runs once and is judged, and those that are right are timed, in
 * rounds that go around all of them, so that a machine that slows down does so for everybody. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_BENCH_H
#define HARNESS_BENCH_H

#include "harness/bench_calls.h"
#include "reports/bench.h"

enum { BENCH_ROUNDS = 10, BENCH_PER_ROUND = 6 }; /* at most so many launches a round; slow ones are fewer */

struct bench_request {
    enum device_kind device;
    const struct bench_shape *shape; /* [n_shapes] */
    int n_shapes;
    const struct kernel *const *wanted; /* [n_wanted] only ways with one of these; none: every way */
    int n_wanted;
    bool without[BENCH_CACHES]; /* not timed so */
    int rounds;                 /* 0: BENCH_ROUNDS */
    int (*asked)(void);         /* to stop, by which signal; 0: not. NULL: never */
    const char *python;         /* who times the peers (bench_peers.h); NULL: they are not timed */
    double most_work;           /* of the reference, a step (bench_judge.h); 0: BENCH_WORK */
    /* Told after the device's own rates, and after every shape: its rows are the last, from `first`
     * on. NULL: nobody is. */
    void (*done)(void *context, const struct bench_result *result, int64_t first);
    void *context;
};
/* Only which device that is and how fast: version, device and speed of *out. */
struct status bench_identify(enum device_kind device, struct bench_result *out);
/* Fills version, device, speed and rows of *out, which is to be freed; after an error too, with what
 * came out until then. STATUS_FAULT: a kernel broke the device, and its row says so. */
struct status bench_run(const struct bench_request *request, struct bench_result *out);

#endif

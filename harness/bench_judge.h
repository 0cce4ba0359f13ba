/* bench_judge - did the kernels that are about to be timed compute the right thing, on this very
 * call? */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_BENCH_JUDGE_H
#define HARNESS_BENCH_JUDGE_H

#include "harness/bench_calls.h"
#include "reports/bench.h"

#define BENCH_WORK 1e9 /* multiply-adds of the reference, of every step: a second or two on two cores */

/* The chain has run: every output is fetched and looked at. Rows of each step are held against the
 * reference on what the step before has stored: the first and the last of every sequence and every
 * expert, of others as many as `most_work` allows (where that is too much, fewer of them; the very
 * last always). All other elements must be numbers, and nothing may have been written outside of an
 * output. Into the row: BENCH_WRONG and the worst element, or what was judged. */
struct status bench_judge(struct bench_operands *operands, const struct bench_chain *chain, double most_work,
                          struct bench_row *row);

#endif

/* flashinfer - calls that FlashInfer logged (fixtures/call_log.h), each held against the
 * reference. No model is needed: a call brings its sizes. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_FLASHINFER_H
#define HARNESS_FLASHINFER_H

#include "harness/run.h"

/* One case a call, with one stage, whose oracle edge is judged. Calls that prepare others (plan,
 * __init__) are parts of theirs. What cannot be judged is a skipped case with its reason: a
 * function that is not known here, an argument that changes the result and is not read, no
 * outputs. work: multiply-adds that a call may take; of one that takes more, rows are sampled in
 * blocks, every sequence's last among them. 0: all rows. watch: hears a beat
 * after every call; may be NULL. An error: there are no such folders. */
#define FLASHINFER_WORK 2e10
struct status judge_flashinfer(const char *const *folders, int n_folders, double work, struct watch *watch,
                               struct run_output *out);

#endif

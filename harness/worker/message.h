/* message - what stands in the frames: a request as key=value items, each ended by a zero byte; a
 * step and a result as text. No struct of C crosses, so that a worker may be another program. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_MESSAGE_H
#define HARNESS_WORKER_MESSAGE_H

#include "harness/run.h"

struct message {
    char *text;
    size_t length;
};
void message_free(struct message *message);

/* Cases `index` [n] of a request, for a worker that uses so many threads. Keys: case (repeated,
 * in order), fixture, judge (repeated), judge_model, judge_contract, judge_stage (repeated),
 * dump, dump_name, dump_ranks, mutant, reference, schedules, threads. Without cases it asks what
 * there is to run. */
struct message request_write(const struct run_request *request, const int64_t *index, int64_t n, int threads);

/* A request as read; what the run_request points at is owned here. */
struct asked {
    struct run_request run;
    int threads;
    const char **judged; /* run.judge.dump */
    char *text;
};
/* An error names the item. `out` is to be freed after an error too. */
struct status request_read(const char *text, size_t length, struct asked *out);
void asked_free(struct asked *asked);

/* "DOING CASE STAGE RANK WORK WHO": numbers in decimal, WHO to the end. */
struct message step_write(const struct step *step);
/* step->who points into `who`. */
bool step_read(const char *text, size_t length, struct step *step, char *who, size_t size);

/* "CASE JSON": its place among the cases asked for, and what report_case_json says of it. */
struct message result_write(int64_t i, const struct case_result *result);
bool result_read(const char *text, size_t length, int64_t *i, struct case_result *out);

#endif

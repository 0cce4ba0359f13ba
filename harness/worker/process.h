/* process - one worker as its parent sees it: started, asked, heard, and ended. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_PROCESS_H
#define HARNESS_WORKER_PROCESS_H

#include <sys/types.h>

#include "harness/worker/frame.h"
#include "layer/status.h"

/* The program that serves as a worker when called with WORKER_OPTION; NULL: there is none, and what
 * should run in a worker runs in this process. Set by main. */
extern const char *worker_program;

struct process {
    pid_t pid; /* 0: none */
    int to, from;
    int said;  /* its standard output and error */
    bool echo; /* pass on what it says, to standard error */
    uint32_t heard;
    uint64_t nonce;
    struct frame_buffer in;
    char words[200]; /* the last line it said */
    size_t n_words;
    bool ended; /* it is no more */
    int wait_status;
};

struct status process_start(struct process *process, bool echo);
/* Sends a request. False: it does not listen. */
bool process_ask(struct process *process, enum frame_type type, const void *payload, size_t length);
/* Takes in what has come, without waiting; notices an end. */
void process_hear(struct process *process);
/* The next whole frame, until the next call. 0: none yet; -1: something else than a frame of this
 * worker that answers the last request; 1: one. */
int process_next(struct process *process, struct frame_head *head, const char **payload);
/* Resident bytes; 0: not known. */
int64_t process_memory(const struct process *process);
/* Ends it and whatever it has started. Back to {0}. */
void process_stop(struct process *process);

#endif

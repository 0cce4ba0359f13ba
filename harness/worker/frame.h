/* frame - messages over a pipe between the process that reports and the one that runs the code
 * under test. What must not happen by accident is that silence, an exit, a fork or a stray write is
 * taken for an answer: every frame names the request it answers, its number and its writer. Not a
 * protection against code that forges frames on purpose; in one process there is none. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_FRAME_H
#define HARNESS_WORKER_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_type {
    FRAME_RUN,      /* to a worker: cases to run (message.h) */
    FRAME_DESCRIBE, /* to a worker: a request without cases; what do its files bring? */
    FRAME_CALLS,    /* to a worker: a request without cases; are the calls that its folders log right? */
    FRAME_DEVICE,   /* the device is open: its label */
    FRAME_STEP,     /* something is about to happen (message.h) */
    FRAME_BEAT,     /* the reference has got on; empty */
    FRAME_CASE,     /* a result (message.h) */
    FRAME_JUDGED,   /* the same, as it stands if nothing follows (watch.h) */
    FRAME_FACTS,    /* struct facts: only between a program and itself */
    FRAME_NO_DUMP,  /* the dump could not be written: why, one line; the results stand */
    FRAME_TROUBLE,  /* it cannot be done as asked: why, one line; the last frame of its request */
    FRAME_FAULT,    /* the same, by the code under test; this worker is of no further use */
    FRAME_DONE,     /* all cases were sent: how many, in decimal; the last frame of its request */
    FRAME_TYPES
};

#define FRAME_MAGIC 0x73686b31u
enum { FRAME_MOST = 64 << 20 }; /* bytes of the longest payload */

struct frame_head {                       /* 32 bytes, in the order of the machine */
    uint32_t magic, type, length, number; /* number: from 0, of the frames a worker has written */
    uint64_t nonce;                       /* of the request; what answers it repeats it */
    int32_t pid;                          /* of the writer */
    uint32_t zero;
};

/* Writes one frame whole. False: nobody reads any more, or the descriptor is gone. */
bool frame_write(int fd, struct frame_head *head, enum frame_type type, const void *payload, size_t length);

/* Bytes that have come and are no whole frame yet. {0} is empty. */
struct frame_buffer {
    char *data;
    size_t used, size;
};
/* Reads once; false: the other end is closed, or an error. A descriptor that would block is none. */
bool frame_read(struct frame_buffer *buffer, int fd);
/* The frame at the front, valid until the next read or take. 1: there is one; 0: not yet; -1: these
 * bytes are no frame. */
int frame_front(struct frame_buffer *buffer, struct frame_head *head, const char **payload);
void frame_take(struct frame_buffer *buffer); /* drops the one at the front */
void frame_buffer_free(struct frame_buffer *buffer);

#endif

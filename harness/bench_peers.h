/* bench_peers - the libraries that people use, timed by a Python process beside this one, round by
 * round in turn with our kernels (python/shardcheck/peers.py says how the two talk). Whatever
 * happens to that process, the run goes on without it and says so. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_BENCH_PEERS_H
#define HARNESS_BENCH_PEERS_H

#include <sys/types.h>

#include "harness/bench_shape.h"

struct bench_peers {
    pid_t pid; /* 0: there are none */
    int to, from;
    char about[300]; /* "torch 2.11.0", or why there are none, or no longer any */
    char *heard;     /* the line that is coming in; owned */
    size_t n_heard, room;
    int (*asked)(void); /* to stop: no answer is waited for any more; NULL: never */
};

/* `python`: the interpreter that runs `-m shardcheck.peers`; NULL: none is wanted. The package is
 * looked for beside the program (../python) and where the interpreter finds it. */
void bench_peers_start(struct bench_peers *peers, const char *python, enum device_kind device);
void bench_peers_stop(struct bench_peers *peers); /* about stays */

struct bench_peer {
    char name[60], refused[240]; /* why it does not take the shape; else empty */
};
enum { BENCH_PEERS = 8 };
/* Who takes the shape, each tried once. Returns how many. */
int bench_peers_shape(struct bench_peers *peers, const struct bench_shape *shape,
                      struct bench_peer out[BENCH_PEERS]);
/* So many launches of one of them. False, and why: it could not be timed. */
bool bench_peers_round(struct bench_peers *peers, const char *name, bool cold, size_t flush_bytes,
                       int launches, double *seconds, char why[240]);

#endif

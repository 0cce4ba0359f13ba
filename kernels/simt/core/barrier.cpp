/* barrier - __syncthreads and its votes. Every thread of the block must come to the same call,
 * exited ones included: stricter than hardware on purpose, because the lax forms deadlock or
 * desynchronise on some GPU. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/core/block.h"
#include "kernels/simt/race/race.h"

namespace simt {

static const char *const barrier_names[] = {/* by barrier_vote */
                                            "__syncthreads", "__syncthreads_or", "__syncthreads_and",
                                            "__syncthreads_count"};

static inline bool same_place(place a, place b) {
    return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

static void barrier_open(barrier *s, const fiber *first, barrier_vote vote, place at) {
    s->first = first->linear;
    s->vote = vote;
    s->at = at;
    s->accumulated = vote == VOTE_AND;
}

static void barrier_release(block *b, barrier *s) {
    s->result = s->accumulated; /* read by the woken before anyone can complete the next phase */
    s->arrived = 0;
    race_barrier();
    for (int w = 0; w * 32 < b->threads; w++) {
        make_ready(b, w, s->waiting[w]);
        s->waiting[w] = 0;
    }
    b->spins = 0;
}

int barrier_wait(barrier_vote vote, int predicate, place at) {
    block *b = running;
    fiber *f = self_fiber();
    barrier *s = &b->whole;
    if (s->arrived == 0)
        barrier_open(s, f, vote, at);
    else if (s->vote != vote || !same_place(s->at, at))
        fail(at,
             "%s reached here while thread %d waits in %s (%s:%d); all threads of a block must come to the "
             "same one",
             barrier_names[vote], s->first, barrier_names[s->vote], s->at.file, s->at.line);
    if (vote == VOTE_OR)
        s->accumulated |= predicate != 0;
    else if (vote == VOTE_AND)
        s->accumulated &= predicate != 0;
    else if (vote == VOTE_COUNT)
        s->accumulated += predicate != 0;

    if (++s->arrived == b->threads) {
        barrier_release(b, s);
    } else {
        s->waiting[f->warp] |= 1u << f->lane;
        wait_here(b, f, barrier_names[vote], at);
    }
    return s->result;
}

} // namespace simt

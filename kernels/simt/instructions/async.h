/* async - what a block keeps for instructions that run beside its threads: copies and products not
 * yet carried out, barriers with waiting threads, and the checks of addresses such instructions
 * share. Made by a block's first such instruction. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_INSTRUCTIONS_ASYNC_H
#define KERNELS_SIMT_INSTRUCTIONS_ASYNC_H

#include <vector>

#include "kernels/simt/core/block.h"
#include "kernels/simt/instructions/instructions.h"
#include "kernels/simt/core/buffers.h"

namespace simt {

/* Operations of one thread, committed in groups that complete in order. */
template <class Operation> struct group_queue {
    struct group {
        size_t end;     /* its operations come before this one */
        uint32_t stamp; /* the race detector's name for it */
    };
    std::vector<Operation> operations; /* [0, done) are over */
    std::vector<group> groups;         /* not yet waited for */
    size_t done;

    void reset() {
        operations.clear();
        groups.clear();
        done = 0;
    }
    bool pending() const { return done < operations.size(); }
    void commit(uint32_t stamp) { groups.push_back({operations.size(), stamp}); }
    /* finish(operation) for those of all but the last `left` groups, then last(stamp)
     * of the last of these. */
    template <class Finish, class Last> void wait(int left, Finish finish, Last last) {
        if (groups.size() <= (size_t)left) return;
        const size_t over = groups.size() - (size_t)left;
        const group newest = groups[over - 1];
        for (; done < newest.end; done++) finish(operations[done]);
        last(newest.stamp);
        groups.erase(groups.begin(), groups.begin() + (ptrdiff_t)over);
        if (done < 512 && pending()) return;
        operations.erase(operations.begin(), operations.begin() + (ptrdiff_t)done);
        for (group &g : groups) g.end -= done;
        done = 0;
    }
};

/* cp.async: 16 bytes, `bytes` of them from src, the rest zeros */
struct small_copy {
    void *dst;
    const void *src;
    int bytes;
    bool moved;
    place at;
};

/* What tensor_map holds on the host. */
struct host_tensor_map {
    uint64_t magic;
    unsigned char *matrix;
    int64_t cols, rows, row_bytes;
    int element_bytes, box_cols, box_rows, swizzle;
};

struct tile_copy {
    host_tensor_map map;
    unsigned char *tile;
    mbarrier *bar; /* loads only */
    int x, y, thread;
    bool moved;
    place at;
};

/* A wgmma of one thread, from its issue until it has been waited for. */
struct issued_product {
    const float *d;
    int count;    /* of accumulators */
    size_t index; /* in its warpgroup, from the start of the block */
    place at;
};

struct thread_async {
    group_queue<small_copy> copies;
    group_queue<tile_copy> stores;
    group_queue<issued_product> products;
    size_t issued; /* products */
    bool fenced;   /* a wgmma.fence since the last wait */
};

/* A wgmma of a whole warpgroup. */
struct product {
    wgmma_operands of; /* as the first thread issued it */
    int issued;        /* threads that have */
    float *d[128];
    uint32_t a[128][4];
};

struct warpgroup {
    std::vector<product *> queue; /* not yet carried out, oldest first */
    size_t done;                  /* carried out since the block began */
    int registers;                /* a thread, 0: setmaxnreg was not used */
};

struct named_barrier_state {
    int threads, arrived;  /* threads expected, and here */
    uint32_t phase, warps; /* warps: those that have arrived */
    int first;             /* the thread that came first, at `at` */
    place at;
};

/* Threads that wait for an object: an mbarrier, or a warpgroup's products. */
struct wait_queue {
    const void *on;
    uint32_t lanes[MAX_WARPS];
};

static const int NAMED_BARRIERS = 16;

struct async_state {
    thread_async threads[MAX_THREADS];
    warpgroup warpgroups[MAX_WARPS / 4];
    std::vector<product *> spare;
    std::vector<tile_copy> loads;
    std::vector<wait_queue> queues;
    struct unfenced {
        mbarrier *bar;
        int thread;
    };
    std::vector<unfenced> inits; /* mbarriers that TMA may not see yet */
    named_barrier_state named[NAMED_BARRIERS];
    const host_buffer *buffer; /* the one the last global address was in */
    uint64_t random;
};

async_state *async_of(block *b); /* made when the block has none */
static inline thread_async *async_thread(block *b) { return &async_of(b)->threads[self->linear]; }

bool async_coin(block *b); /* should this operation be carried out at its issue? */
uint64_t async_random(async_state *s, size_t below);

/* The running thread waits until somebody wakes those who wait for `on`. */
void async_wait(block *b, const void *on, const char *operation, place at);
void async_wake(block *b, const void *on);

/* Fail unless the bytes lie in the block's dynamic shared memory, and in no red zone;
 * in a device buffer. */
void check_shared(const void *p, size_t bytes, const char *operation, const char *what, place at);
void check_global(const void *p, size_t bytes, const char *operation, const char *what, place at);
void check_aligned(const void *p, size_t alignment, const char *operation, const char *what, place at);

/* Parts of idle and random progress, in their files: carry out some operation, false:
 * there is none. */
bool tile_load_some(block *b);
void small_copy_some(block *b, int thread);
void tile_store_some(block *b, int thread);
void product_some(block *b, int group);

/* Called by the scheduler (block.cpp, error.cpp) while the block has used an
 * asynchronous instruction. */
void async_thread_exit(block *b);
void async_append_waits(error_line *line, const block *b); /* what awaited barriers lack */
void mbarrier_append(error_line *line, const block *b, const void *bar);
void product_append(error_line *line, const block *b);

} // namespace simt

#endif

/* wgmma - products of a warpgroup that run beside its threads. Every thread issues its part; when
 * all 128 have, the product may be carried out, at the latest when a thread waits for it. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/instructions/async.h"
#include "kernels/simt/race/race.h"
#include "kernels/simt/instructions/tensor_core.h"
#include "kernels/lang/ptx_wgmma.cuh"

namespace simt {

static const int ROWS = 64, GROUP_THREADS = 128;

/* ---- operands ---- */

struct descriptor {
    uint32_t start, leading, stride;
    shared_swizzle swizzle;
};

static descriptor descriptor_decode(uint64_t bits, const char *matrix, place at) {
    const descriptor d = {(uint32_t)(bits & 0x3fff) << 4, (uint32_t)(bits >> 16 & 0x3fff) << 4,
                          (uint32_t)(bits >> 32 & 0x3fff) << 4, static_cast<shared_swizzle>(bits >> 62)};
    if (d.swizzle > SWIZZLE_64B) fail(at, "wgmma: %s's descriptor has the swizzle %d", matrix, d.swizzle);
    const uint32_t rows = d.swizzle == SWIZZLE_128B ? 0x380 : d.swizzle == SWIZZLE_64B ? 0x180 : 0;
    if (d.start & rows)
        fail(at, "wgmma: %s's swizzled tile starts at shared offset %d, inside a pattern of %d bytes", matrix,
             (int)d.start - (int)SHARED_WINDOW, d.swizzle == SWIZZLE_128B ? 1024 : 512);
    return d;
}

/* Where eight elements that lie together start: (mn, k..k+7) of a K-major, (mn..mn+7, k) of an
 * MN-major matrix. The formulas are those of PTX ISA 9.7.15.5.1, strides and canonical layouts. */
static uint32_t chunk_address(const descriptor &d, int major, uint32_t mn, uint32_t k) {
    const uint32_t row = d.swizzle == SWIZZLE_128B ? 128 : d.swizzle == SWIZZLE_64B ? 64 : 16;
    if (major == K_MAJOR) {
        const uint32_t base = d.start + mn / 8 * d.stride + mn % 8 * row;
        return d.swizzle == SWIZZLE_NONE ? base + k / 8 * d.leading : base + k * 2;
    }
    if (d.swizzle == SWIZZLE_NONE) return d.start + mn / 8 * d.stride + k / 8 * d.leading + k % 8 * row;
    const uint32_t columns = row / 2;
    return d.start + mn / columns * d.leading + k / 8 * d.stride + k % 8 * row + mn % columns * 2;
}

static const unsigned char *chunk_at(const block *b, const descriptor &d, uint32_t address,
                                     const char *matrix, place at) {
    const uint32_t offset = swizzle_offset(d.swizzle, address) - SHARED_WINDOW;
    if (offset >= b->shared_bytes || b->shared_bytes - offset < 16)
        fail(at, "wgmma: %s's descriptor leads outside dynamic shared memory: offset %d of %zu bytes", matrix,
             (int)offset, b->shared_bytes);
    const unsigned char *chunk = b->shared + offset;
    check_shared(chunk, 16, "wgmma", matrix, at);
    return chunk;
}

/* For the race detector: the running thread's warpgroup `key` reads [first,
 * first + count) x 16 elements. */
static void operand_race(const block *b, int first, int count, uint64_t bits, int major, const void *key,
                         const char *matrix, place at) {
    const descriptor d = descriptor_decode(bits, matrix, at);
    const int along_mn = major == MN_MAJOR ? 8 : 1, along_k = major == MN_MAJOR ? 1 : 8;
    for (int mn = first; mn < first + count; mn += along_mn)
        for (int k = 0; k < TENSOR_K; k += along_k) {
            const uint32_t address = chunk_address(d, major, (uint32_t)mn, (uint32_t)k);
            race_async_read(chunk_at(b, d, address, matrix, at), 16, key, at);
        }
}

/* mn x 16 elements into out: element (mn, k) at mn * mn_step + k * k_step. */
static void operand_read(const block *b, uint16_t *out, int count, int mn_step, int k_step, uint64_t bits,
                         int major, const char *matrix, place at) {
    const descriptor d = descriptor_decode(bits, matrix, at);
    const int along_mn = major == MN_MAJOR ? 8 : 1, along_k = major == MN_MAJOR ? 1 : 8;
    for (int mn = 0; mn < count; mn += along_mn)
        for (int k = 0; k < TENSOR_K; k += along_k) {
            const uint32_t address = chunk_address(d, major, (uint32_t)mn, (uint32_t)k);
            const unsigned char *chunk = chunk_at(b, d, address, matrix, at);
            uint16_t eight[8];
            memcpy(eight, chunk, sizeof eight);
            const int step = major == MN_MAJOR ? mn_step : k_step;
            for (int i = 0; i < 8; i++) out[mn * mn_step + k * k_step + i * step] = eight[i];
        }
}

static void operand_from_registers(uint16_t *a /* [64][16] */, const uint32_t (*registers)[4]) {
    for (int thread = 0; thread < GROUP_THREADS; thread++) {
        const int row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
        for (int i = 0; i < 4; i++) {
            uint16_t *pair = a + (row + i % 2 * 8) * TENSOR_K + column + i / 2 * 8;
            pair[0] = (uint16_t)registers[thread][i];
            pair[1] = (uint16_t)(registers[thread][i] >> 16);
        }
    }
}

/* The accumulators of one thread, [columns / 2], from or to its places in d [64][columns]. */
template <class Move> static void for_each_accumulator(int thread, int columns, float *d, Move move) {
    const int row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
    for (int half = 0; half < 2; half++) {
        float *place = d + (row + 8 * half) * columns + column;
        for (int i = 0; i < columns / 8; i++) {
            move(4 * i + 2 * half, place[8 * i]);
            move(4 * i + 2 * half + 1, place[8 * i + 1]);
        }
    }
}

/* ---- carrying out ---- */

static void product_run(block *b, const product *p) {
    static __thread uint16_t a[ROWS * TENSOR_K], columns_of_b[TENSOR_K * TENSOR_MAX_COLUMNS];
    static __thread float d[ROWS * TENSOR_MAX_COLUMNS];
    const wgmma_operands &of = p->of;
    if (of.a)
        operand_from_registers(a, p->a);
    else
        operand_read(b, a, ROWS, TENSOR_K, 1, of.desc_a, of.a_major, "A", of.at);
    operand_read(b, columns_of_b, of.columns, 1, of.columns, of.desc_b, of.b_major, "B", of.at);
    if (of.accumulate)
        for (int thread = 0; thread < GROUP_THREADS; thread++)
            for_each_accumulator(thread, of.columns, d, [&](int i, float &x) { x = p->d[thread][i]; });
    else
        memset(d, 0, sizeof(float) * (size_t)(ROWS * of.columns));
    tensor_core_multiply(d, a, columns_of_b, ROWS, of.columns, of.type, b->of->options.tensor_core);
    for (int thread = 0; thread < GROUP_THREADS; thread++)
        for_each_accumulator(thread, of.columns, d, [&](int i, float &x) { p->d[thread][i] = x; });
}

/* The oldest product of the group, if all threads have issued it. */
static bool product_finish_oldest(block *b, warpgroup *g) {
    if (g->queue.empty() || g->queue[0]->issued < GROUP_THREADS) return false;
    product *p = g->queue[0];
    product_run(b, p);
    g->queue.erase(g->queue.begin());
    g->done++;
    b->async->spare.push_back(p);
    return true;
}

void product_some(block *b, int group) { product_finish_oldest(b, &b->async->warpgroups[group]); }

void product_append(error_line *line, const block *b) {
    for (int i = 0; i < b->threads / GROUP_THREADS; i++) {
        const warpgroup &g = b->async->warpgroups[i];
        if (g.queue.empty() || g.queue[0]->issued == GROUP_THREADS) continue;
        error_append(line, "; %d of warpgroup %d's 128 threads have issued the wgmma at %s:%d",
                     g.queue[0]->issued, i, g.queue[0]->of.at.file, g.queue[0]->of.at.line);
    }
}

/* ---- the instructions ---- */

static warpgroup *own_group(block *b) { return &async_of(b)->warpgroups[self->warp / 4]; }

static product *product_new(async_state *s, const wgmma_operands &operands) {
    product *p;
    if (s->spare.empty()) {
        p = new product;
    } else {
        p = s->spare.back();
        s->spare.pop_back();
    }
    p->of = operands;
    p->issued = 0;
    return p;
}

static void check_same(const wgmma_operands &mine, const wgmma_operands &first) {
    if (mine.at.line != first.at.line || strcmp(mine.at.file, first.at.file))
        fail(mine.at, "wgmma: other threads of the warpgroup issue the one at %s:%d instead", first.at.file,
             first.at.line);
    if (mine.desc_a != first.desc_a || mine.desc_b != first.desc_b || mine.accumulate != first.accumulate ||
        mine.columns != first.columns || mine.type != first.type)
        fail(mine.at, "wgmma: descriptors or accumulate differ among the threads of the warpgroup");
}

void wgmma_fence(place) { async_thread(running)->fenced = true; }

void wgmma_issue(const wgmma_operands &operands) {
    block *b = running;
    async_state *s = async_of(b);
    thread_async *t = async_thread(b);
    warpgroup *g = own_group(b);
    const int thread = self->linear % GROUP_THREADS;
    if (b->threads / GROUP_THREADS <= self->warp / 4)
        fail(operands.at, "wgmma: thread %d is not in a whole warpgroup of a block of %d threads",
             self->linear, b->threads);
    if (!t->fenced) fail(operands.at, "wgmma without a wgmma_fence since the last wgmma_wait");
    const size_t index = t->issued++;
    if (index - g->done == g->queue.size()) g->queue.push_back(product_new(s, operands));
    product *p = g->queue[index - g->done];
    check_same(operands, p->of);
    if (RACE_BUILD && self->lane == 0) {
        if (!operands.a)
            operand_race(b, self->warp % 4 * 16, 16, operands.desc_a, operands.a_major, g, "A", operands.at);
        operand_race(b, 0, operands.columns, operands.desc_b, operands.b_major, g, "B", operands.at);
    }
    p->d[thread] = operands.d;
    if (operands.a) memcpy(p->a[thread], operands.a, sizeof p->a[thread]);
    t->products.operations.push_back({operands.d, operands.columns / 2, index, operands.at});
    if (++p->issued < GROUP_THREADS) return;
    while (async_coin(b) && product_finish_oldest(b, g)) {
    }
    async_wake(b, g);
}

void wgmma_commit(place) {
    block *b = running;
    const uint32_t stamp = race_async_commit(own_group(b));
    async_thread(b)->products.commit(stamp);
}

void wgmma_wait(int groups, place at) {
    block *b = running;
    thread_async *t = async_thread(b);
    warpgroup *g = own_group(b);
    warp_aligned("wgmma_wait", nullptr, nullptr, at);
    size_t needed = 0; /* products carried out */
    uint32_t stamp = 0;
    bool any = false;
    t->products.wait(
        groups, [&](issued_product &issued) { needed = issued.index + 1; },
        [&](uint32_t newest) {
            stamp = newest;
            any = true;
        });
    while (g->done < needed)
        if (!product_finish_oldest(b, g)) async_wait(b, g, "wgmma_wait", at);
    if (any) race_async_wait(g, stamp);
    t->fenced = false;
}

void wgmma_accumulator_ready(const float *d, int count, place at) {
    const group_queue<issued_product> &products = async_thread(running)->products;
    for (size_t i = products.done; i < products.operations.size(); i++) {
        const issued_product &p = products.operations[i];
        if (p.d < d + count && d < p.d + p.count)
            fail(at, "accumulator_ready: the wgmma at %s:%d into these accumulators has not been waited for",
                 p.at.file, p.at.line);
    }
}

} // namespace simt

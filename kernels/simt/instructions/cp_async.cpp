/* cp_async - 16 bytes a thread from global to shared memory, beside the thread, in groups. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/instructions/async.h"
#include "kernels/simt/race/race.h"

namespace simt {

static const size_t COPY_BYTES = 16;

static void copy_move(small_copy *copy) {
    if (copy->moved) return;
    copy->moved = true;
    unsigned char *dst = static_cast<unsigned char *>(copy->dst);
    if (copy->bytes) memcpy(dst, copy->src, (size_t)copy->bytes);
    memset(dst + copy->bytes, 0, COPY_BYTES - (size_t)copy->bytes);
}

void cp_async_16(void *dst, const void *src, int src_bytes, place at) {
    static const char operation[] = "cp_async_16";
    block *b = running;
    if (src_bytes < 0 || src_bytes > (int)COPY_BYTES)
        fail(at, "%s: src_bytes is %d; it may be 0 to %zu", operation, src_bytes, COPY_BYTES);
    check_aligned(dst, COPY_BYTES, operation, "destination", at);
    check_aligned(src, COPY_BYTES, operation, "source", at);
    check_shared(dst, COPY_BYTES, operation, "destination", at);
    if (src_bytes) check_global(src, (size_t)src_bytes, operation, "source", at);
    race_access(src, (size_t)src_bytes, RACE_READ, at);
    race_async_write_begin(dst, COPY_BYTES, nullptr, at);
    small_copy copy = {dst, src, src_bytes, false, at};
    group_queue<small_copy> *copies = &async_thread(b)->copies;
    if (async_coin(b)) copy_move(&copy);
    copies->operations.push_back(copy);
}

void cp_async_commit(place) { async_thread(running)->copies.commit(0); }

void cp_async_wait(int groups, place) {
    const auto finish = [](small_copy &copy) {
        copy_move(&copy);
        race_async_write_end(copy.dst, COPY_BYTES, nullptr);
    };
    async_thread(running)->copies.wait(groups, finish, [](uint32_t) {});
}

void small_copy_some(block *b, int thread) {
    group_queue<small_copy> &copies = b->async->threads[thread].copies;
    const size_t left = copies.operations.size() - copies.done;
    if (left) copy_move(&copies.operations[copies.done + async_random(b->async, left)]);
}

} // namespace simt

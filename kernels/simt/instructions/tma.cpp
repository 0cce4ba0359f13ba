/* tma - tiles of a matrix between global and shared memory: where each 16-byte chunk of a box goes,
 * and what becomes of elements outside the matrix. As an H200 does it, and PTX ISA does not say: a
 * box starts at a multiple of 16 bytes of a row, a stored box not before the matrix, and a chunk
 * that begins inside a row is stored whole. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/instructions/async.h"
#include "kernels/simt/instructions/mbarrier.h"
#include "kernels/simt/race/race.h"
#include "kernels/lang/tensor_map.h"

namespace simt {

static const uint64_t MAP_MAGIC = 0x70616d726f736e74; /* "tnsormap" */
static const int64_t CHUNK = 16;

/* ---- the map ---- */

static host_tensor_map map_of(const tensor_map *map, const char *operation, place at) {
    host_tensor_map m;
    static_assert(sizeof m <= sizeof map->opaque, "the host's map fits");
    memcpy(&m, map->opaque, sizeof m);
    if (m.magic != MAP_MAGIC) fail(at, "%s: this is not a map made by tensor_map_encode", operation);
    return m;
}

static size_t box_bytes(const host_tensor_map &m) {
    return (size_t)m.box_cols * (size_t)m.box_rows * (size_t)m.element_bytes;
}

/* ---- moving a box ---- */

/* A chunk of the matrix: how many of its bytes are inside, which are its first ones. */
struct chunk {
    int64_t inside;
    unsigned char *global;
};

static inline int64_t clamp(int64_t x, int64_t low, int64_t high) {
    return x < low ? low : x > high ? high : x;
}

static chunk chunk_of(const tile_copy &copy, int row, int64_t byte) {
    const host_tensor_map &m = copy.map;
    const int64_t y = (int64_t)copy.y + row, x = (int64_t)copy.x * m.element_bytes + byte;
    const bool outside = y < 0 || y >= m.rows || x < 0;
    return {outside ? 0 : clamp(m.cols * m.element_bytes - x, 0, CHUNK), m.matrix + y * m.row_bytes + x};
}

template <class Move> static void for_each_chunk(const block *b, const tile_copy &copy, Move move) {
    const host_tensor_map &m = copy.map;
    const int64_t row_bytes = (int64_t)m.box_cols * m.element_bytes;
    const uint32_t tile = (uint32_t)(copy.tile - b->shared) + SHARED_WINDOW;
    for (int row = 0; row < m.box_rows; row++)
        for (int64_t byte = 0; byte < row_bytes; byte += CHUNK) {
            const uint32_t address = swizzle_offset(static_cast<shared_swizzle>(m.swizzle),
                                                    tile + (uint32_t)(row * row_bytes + byte));
            move(b->shared + (address - SHARED_WINDOW), chunk_of(copy, row, byte));
        }
}

static void load_move(block *b, const tile_copy &copy) {
    for_each_chunk(b, copy, [](unsigned char *shared, chunk from) {
        memset(shared, 0, (size_t)CHUNK);
        if (from.inside) memcpy(shared, from.global, (size_t)from.inside);
    });
    race_async_write_end(copy.tile, box_bytes(copy.map), copy.bar);
    mbarrier_complete(b, copy.bar, box_bytes(copy.map), copy);
}

static void store_move(block *b, tile_copy *copy) {
    if (copy->moved) return;
    copy->moved = true;
    for_each_chunk(b, *copy, [](const unsigned char *shared, chunk to) {
        if (to.inside) memcpy(to.global, shared, (size_t)CHUNK);
    });
}

/* ---- checks ---- */

/* kind: what the copy does to the matrix. */
static void check_box(const tile_copy &copy, race_kind kind, const char *operation, const char *tile) {
    const host_tensor_map &m = copy.map;
    static const size_t alignments[] = {128, 1024, 512}; /* by shared_swizzle */
    const size_t alignment = alignments[m.swizzle];
    if ((size_t)(copy.tile - running->shared) % alignment)
        fail(copy.at,
             "%s: the tile is at shared offset %td; with this map it starts at a multiple of %zu bytes",
             operation, copy.tile - running->shared, alignment);
    check_shared(copy.tile, box_bytes(m), operation, tile, copy.at);
    if (copy.x * (int64_t)m.element_bytes % CHUNK)
        fail(copy.at, "%s: column %d; a box starts at a multiple of 16 bytes, here of %d columns", operation,
             copy.x, (int)CHUNK / m.element_bytes);
    if (kind == RACE_WRITE && (copy.x < 0 || copy.y < 0))
        fail(copy.at, "%s: column %d, row %d; only a load may start before the matrix", operation, copy.x,
             copy.y);
    const int64_t top = clamp(copy.y, 0, m.rows), bottom = clamp((int64_t)copy.y + m.box_rows, 0, m.rows);
    const int64_t left = clamp(copy.x, 0, m.cols), right = clamp((int64_t)copy.x + m.box_cols, 0, m.cols);
    if (left >= right) return; /* wholly outside the matrix */
    const int64_t inside = (right - left) * m.element_bytes, whole = (inside + CHUNK - 1) / CHUNK * CHUNK;
    const size_t bytes = (size_t)(kind == RACE_WRITE ? whole : inside);
    for (int64_t row = top; row < bottom; row++) {
        const unsigned char *p = m.matrix + row * m.row_bytes + left * m.element_bytes;
        check_global(p, bytes, operation, "a row of the box", copy.at);
        race_access(p, bytes, kind, copy.at);
    }
}

/* ---- the instructions ---- */

void tma_load_2d(void *dst, const tensor_map *map, mbarrier *bar, int x, int y, place at) {
    static const char operation[] = "tma_load_2d";
    block *b = running;
    async_state *s = async_of(b);
    const tile_copy copy = {
        map_of(map, operation, at), static_cast<unsigned char *>(dst), bar, x, y, self->linear, false, at};
    mbarrier_check_tma(bar, operation, at);
    check_box(copy, RACE_READ, operation, "destination");
    race_async_write_begin(dst, box_bytes(copy.map), bar, at);
    if (async_coin(b))
        load_move(b, copy);
    else
        s->loads.push_back(copy);
    if (b->failed) abandon(b);
}

bool tile_load_some(block *b) {
    async_state *s = b->async;
    if (s->loads.empty()) return false;
    size_t i = 0;
    if (b->of->options.order == SIMT_DESCENDING) i = s->loads.size() - 1;
    if (b->of->options.async == SIMT_RANDOM_ASYNC) i = async_random(s, s->loads.size());
    const tile_copy copy = s->loads[i];
    s->loads.erase(s->loads.begin() + (ptrdiff_t)i);
    load_move(b, copy);
    return !b->failed;
}

void tma_store_2d(const tensor_map *map, const void *src, int x, int y, place at) {
    static const char operation[] = "tma_store_2d";
    block *b = running;
    unsigned char *tile = static_cast<unsigned char *>(const_cast<void *>(src));
    tile_copy copy = {map_of(map, operation, at), tile, nullptr, x, y, self->linear, false, at};
    group_queue<tile_copy> *stores = &async_thread(b)->stores;
    check_box(copy, RACE_WRITE, operation, "source");
    race_async_read(src, box_bytes(copy.map), stores, at);
    if (async_coin(b)) store_move(b, &copy);
    stores->operations.push_back(copy);
}

void tma_store_commit(place) {
    group_queue<tile_copy> *stores = &async_thread(running)->stores;
    stores->commit(race_async_commit(stores));
}

void tma_store_wait(int groups, const char *, place) {
    block *b = running;
    group_queue<tile_copy> *stores = &async_thread(b)->stores;
    stores->wait(
        groups, [b](tile_copy &copy) { store_move(b, &copy); },
        [stores](uint32_t stamp) { race_async_wait(stores, stamp); });
}

void tile_store_some(block *b, int thread) {
    group_queue<tile_copy> &stores = b->async->threads[thread].stores;
    const size_t left = stores.operations.size() - stores.done;
    if (left) store_move(b, &stores.operations[stores.done + async_random(b->async, left)]);
}

} // namespace simt

const char *tensor_map_encode_host(struct tensor_map *map, const struct tensor_map_2d *of) {
    const char *const refused = tensor_map_refused(of);
    if (refused) return refused;
    const simt::host_tensor_map m = {
        simt::MAP_MAGIC, static_cast<unsigned char *>(const_cast<void *>(of->matrix)),
        of->cols,        of->rows,
        of->row_bytes,   tensor_map_element_bytes(of->element),
        of->box_cols,    of->box_rows,
        of->swizzle};
    memset(map, 0, sizeof *map);
    memcpy(map->opaque, &m, sizeof m);
    return nullptr;
}

/* race_clock - barriers, fences and waits as operations on vectors of stamps (race_clock.h). */
/* SPDX-License-Identifier: MIT */
#ifdef SIMT_RACE
#include "kernels/simt/race/race_clock.h"

#include <algorithm>
#include <stdlib.h>
#include <string.h>
#include <unordered_map>
#include <vector>

namespace simt {

race_time race_clock;
clocks race_threads[MAX_THREADS], race_whole;
race_unit race_units[MAX_UNITS];

static const uint32_t RESTART_FROM = 3u << 30; /* no launch draws the remaining 2^30 stamps */

static int threads, units; /* of the running block */
static bool fences_used;   /* in it; without them nobody looks at clocks.fenced */

static void raise(uint32_t *to, const uint32_t *from, int count) {
    for (int i = 0; i < count; i++) to[i] = std::max(to[i], from[i]);
}

static void join(clocks *to, const clocks *from) {
    raise(to->seen, from->seen, threads);
    raise(to->seen + MAX_THREADS, from->seen + MAX_THREADS, units);
    if (!fences_used) return;
    raise(to->fenced, from->fenced, threads);
    raise(to->fenced + MAX_THREADS, from->fenced + MAX_THREADS, units);
}

static void next_stamp(int t) { race_clock.thread[t] = ++race_clock.now; }

/* ---- blocks of a launch ---- */

struct block_start {
    uint32_t first;
    size_t index;
};
static std::vector<block_start> starts; /* of the launch's blocks, in the order they ran */

/* A block may know others up to a stamp each, by their place in `starts`. */
typedef std::vector<uint32_t> foreign_clocks;
static foreign_clocks foreign;
static std::unordered_map<const void *, foreign_clocks>
    published; /* by the atomic they were handed on with */
static const void *last_atomic[MAX_THREADS];
static bool device_fenced[MAX_THREADS];

bool race_clock_grid_begin() {
    const bool restart = race_clock.now > RESTART_FROM;
    if (restart) {
        race_clock.now = 0;
        memset(race_threads, 0, sizeof race_threads);
        memset(&race_whole, 0, sizeof race_whole);
        for (race_unit &u : race_units)
            if (u.come) memset(u.come, 0, 2 * sizeof(clocks));
    }
    race_clock.grid_first = ++race_clock.now;
    starts.clear();
    published.clear();
    return restart;
}

void race_clock_block_begin(const block *b, size_t index) {
    race_clock.block_first = race_clock.floor = ++race_clock.now;
    starts.push_back({race_clock.block_first, index});
    threads = b->threads;
    units = 0;
    fences_used = false;
    foreign.clear();
    const uint32_t stamp = ++race_clock.now;
    for (int t = 0; t < threads; t++) {
        race_clock.thread[t] = stamp;
        last_atomic[t] = nullptr;
        device_fenced[t] = false;
    }
}

static size_t start_of(uint32_t stamp) {
    const auto after = std::upper_bound(starts.begin(), starts.end(), stamp,
                                        [](uint32_t s, const block_start &b) { return s <= b.first; });
    return (size_t)(after - starts.begin()) - 1;
}

size_t race_block_of(uint32_t stamp) { return starts[start_of(stamp)].index; }

bool race_foreign_over(uint32_t stamp) {
    if (foreign.empty()) return false;
    const size_t place = start_of(stamp);
    return place < foreign.size() && stamp <= foreign[place];
}

static void foreign_join(foreign_clocks *to, const foreign_clocks &from) {
    if (to->size() < from.size()) to->resize(from.size());
    raise(to->data(), from.data(), (int)from.size());
}

void race_device_atomic(const void *p) {
    const int t = self->linear;
    last_atomic[t] = p;
    if (!device_fenced[t]) return;
    foreign_clocks &all = published[p];
    foreign_join(&all, foreign);
    if (all.size() < starts.size()) all.resize(starts.size());
    all.back() = race_clock.now;
    if (!race_unit_of(p)) return;
    race_arrive(p);
    race_phase_end(p);
}

void race_device_fence() {
    const int t = self->linear;
    device_fenced[t] = true;
    const auto found = published.find(last_atomic[t]);
    if (found == published.end()) return;
    foreign_join(&foreign, found->second);
    if (race_unit_find(last_atomic[t])) race_wait(last_atomic[t]);
}

/* ---- units ---- */

race_unit *race_unit_find(const void *key) {
    for (int i = 0; i < units; i++)
        if (race_units[i].key == key) return &race_units[i];
    return nullptr;
}

race_unit *race_unit_of(const void *key) {
    race_unit *u = race_unit_find(key);
    if (u || units == MAX_UNITS) return u;
    u = &race_units[units++];
    u->key = key;
    u->groups.clear();
    u->committed.assign((size_t)threads, 0);
    if (!u->come) u->come = static_cast<clocks *>(calloc(2, sizeof(clocks)));
    if (!u->come) abort();
    u->over = u->come + 1;
    return u;
}

const race_unit *race_unit_at(uint16_t clock) {
    return clock < MAX_THREADS ? nullptr : &race_units[clock - MAX_THREADS];
}

/* ---- order ---- */

void race_clock_barrier() {
    for (int t = 0; t < threads && (units || fences_used); t++) {
        raise(race_whole.seen + MAX_THREADS, race_threads[t].seen + MAX_THREADS, units);
        if (!fences_used) continue;
        raise(race_whole.fenced, race_threads[t].fenced, threads);
        raise(race_whole.fenced + MAX_THREADS, race_threads[t].fenced + MAX_THREADS, units);
    }
    race_clock.floor = race_clock.now;
    const uint32_t stamp = ++race_clock.now;
    for (int t = 0; t < threads; t++) race_clock.thread[t] = stamp;
}

void race_join_warp(uint32_t mask) {
    const int first = self->warp * 32;
    const int lead = first + __builtin_ctz(mask);
    clocks *all = &race_threads[lead];
    for (uint32_t left = mask; left; left &= left - 1) {
        const int t = first + __builtin_ctz(left);
        race_threads[t].seen[t] = race_clock.thread[t];
        if (t != lead) join(all, &race_threads[t]);
    }
    const uint32_t stamp = ++race_clock.now;
    for (uint32_t left = mask; left; left &= left - 1) {
        const int t = first + __builtin_ctz(left);
        if (t != lead) join(&race_threads[t], all);
        race_clock.thread[t] = stamp;
    }
}

void race_arrive(const void *key) {
    const int t = self->linear;
    race_unit *u = race_unit_of(key);
    if (!u) return;
    race_threads[t].seen[t] = race_clock.thread[t];
    join(u->come, &race_threads[t]);
    next_stamp(t);
}

void race_phase_end(const void *key) {
    race_unit *u = race_unit_find(key);
    if (u) join(u->over, u->come);
}

void race_wait(const void *key) {
    const race_unit *u = race_unit_find(key);
    if (u) join(&race_threads[self->linear], u->over);
}

void race_forget(const void *key) {
    race_unit *u = race_unit_find(key);
    if (u) memset(u->come, 0, 2 * sizeof(clocks));
}

void race_proxy_fence() {
    const int t = self->linear;
    clocks *own = &race_threads[t];
    fences_used = true;
    own->seen[t] = race_clock.thread[t];
    raise(own->fenced, own->seen, threads);
    for (int u = 0; u < threads; u++) own->fenced[u] = std::max(own->fenced[u], race_clock.floor);
    raise(own->fenced + MAX_THREADS, own->seen + MAX_THREADS, units);
    raise(own->fenced + MAX_THREADS, race_whole.seen + MAX_THREADS, units);
    next_stamp(t);
}

uint32_t race_unit_stamp(race_unit *u) {
    const size_t group = u->committed[self->linear];
    while (u->groups.size() <= group) u->groups.push_back(++race_clock.now);
    return u->groups[group];
}

uint32_t race_async_commit(const void *key) {
    race_unit *u = race_unit_of(key);
    if (!u) return 0;
    const uint32_t stamp = race_unit_stamp(u);
    u->committed[self->linear]++;
    return stamp;
}

void race_async_wait(const void *key, uint32_t stamp) {
    const race_unit *u = race_unit_find(key);
    if (!u) return;
    uint32_t *seen = &race_threads[self->linear].seen[race_unit_clock(u)];
    *seen = std::max(*seen, stamp);
}

} // namespace simt
#endif

/* launch - checks a launch configuration and spreads the blocks of the grid over OS
 * threads. The calling thread works too; the helpers sleep between launches. A launch
 * returns when its grid is over. */
/* SPDX-License-Identifier: MIT */
#include <condition_variable>
#include <mutex>
#include <new>
#include <numeric>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "kernels/simt/core/block.h"
#include "kernels/simt/race/race.h"

namespace simt {

static simt_options options = {SIMT_ASCENDING, 1, SIMT_LAZY, 0, SIMT_TRUNCATING};

/* Stacks are mappings, and a process may not have more than 65530 of those. */
static const size_t MAX_FIBERS = 16384;

/* ---- the configuration ---- */

static const char *refuse(const launch_config &c, const char *what, size_t value, size_t least, size_t most) {
    static __thread error_line line;
    line.length = 0;
    error_append(&line, "%s:%d: ", c.at.file, c.at.line);
    error_append_kernel(&line, c.kernel);
    error_append(&line, ": %s is %zu; a launch may have %zu to %zu", what, value, least, most);
    return line.text;
}

static const char *check_config(const launch_config &c) {
    const struct {
        const char *what;
        size_t value, least, most;
    } limits[] = {
        {"grid.x", c.grid.x, 1, 2147483647},
        {"grid.y", c.grid.y, 1, 65535},
        {"grid.z", c.grid.z, 1, 65535},
        {"block.x", c.block.x, 1, 1024},
        {"block.y", c.block.y, 1, 1024},
        {"block.z", c.block.z, 1, 64},
        {"the number of threads a block", (size_t)c.block.x * c.block.y * c.block.z, 1, (size_t)MAX_THREADS},
        {"dynamic shared memory in bytes", c.shared_bytes, 0, MAX_SHARED_BYTES},
    };
    for (const auto &l : limits)
        if (l.value < l.least || l.value > l.most) return refuse(c, l.what, l.value, l.least, l.most);
    return nullptr;
}

/* ---- the OS threads ---- */

static std::mutex launch_lock; /* one grid at a time */

/* A grid has `places` for helpers that wake in time; those that come too late are not
 * waited for. */
struct helpers {
    std::mutex lock;
    std::condition_variable start, done;
    grid *job = nullptr;
    int started = 0, places = 0, busy = 0;
};
/* Never destroyed: the helpers sleep in it until the process ends. */
static helpers *pool;

/* The k-th block to start. Random orders visit the blocks in steps that have no divisor in
 * common with their number. */
static size_t block_at(const grid *g, size_t k) {
    if (g->options.order == SIMT_ASCENDING) return k;
    if (g->options.order == SIMT_DESCENDING) return g->blocks - 1 - k;
    size_t step = 2654435761u % g->blocks;
    while (std::gcd(step, g->blocks) != 1) step++;
    return (k % g->blocks * step + g->options.seed % g->blocks) % g->blocks;
}

static void work(grid *g) {
    static __thread block *own;
    fault_handler_install();
    if (!own) own = block_new();
    if (!own) {
        block nothing = {};
        nothing.of = g;
        const error_line line = {"no memory to run a block", 0};
        error_keep(&nothing, &line);
        return;
    }
    for (size_t k; !g->failed && (k = g->next++) < g->blocks;) block_run(own, g, block_at(g, k));
}

static void helper_main() {
    std::unique_lock<std::mutex> hold(pool->lock);
    for (;;) {
        pool->start.wait(hold, [] { return pool->places > 0; });
        pool->places--;
        pool->busy++;
        grid *job = pool->job;
        hold.unlock();
        work(job);
        hold.lock();
        if (--pool->busy == 0) pool->done.notify_one();
    }
}

/* A system that refuses threads makes it slower, nothing else. */
static bool helper_start() {
    try {
        std::thread(helper_main).detach();
        return true;
    } catch (const std::system_error &) {
        return false;
    }
}

static void work_together(grid *g, int wanted) {
    if (!pool) pool = new helpers;
    std::unique_lock<std::mutex> hold(pool->lock);
    pool->job = g;
    pool->places = wanted;
    while (pool->started < wanted && helper_start()) pool->started++;
    pool->start.notify_all();
    hold.unlock();
    work(g);
    hold.lock();
    pool->places = 0;
    pool->done.wait(hold, [] { return pool->busy == 0; });
}

const char *run_grid(const launch_config &config, void (*thread_body)(void *), void *argument) {
    if (self) fail(config.at, "kernel %s is launched by a kernel; only the CPU may launch", config.kernel);
    const char *const refused = check_config(config);
    if (refused) return refused;

    const std::lock_guard<std::mutex> one_at_a_time(launch_lock);
    grid g = {};
    g.config = &config;
    g.thread_body = thread_body;
    g.argument = argument;
    g.options = options;
    g.blocks = (size_t)config.grid.x * config.grid.y * config.grid.z;

    const size_t threads = (size_t)config.block.x * config.block.y * config.block.z;
    size_t workers = (size_t)simt_threads();
    if (workers > MAX_FIBERS / threads) workers = MAX_FIBERS / threads;
    if (workers > g.blocks) workers = g.blocks;
    race_grid_begin();
    if (workers > 1)
        work_together(&g, (int)workers - 1);
    else
        work(&g);
    return nullptr;
}

} // namespace simt

/* ---- options.h ---- */

struct simt_options simt_get_options(void) {
    return simt::options;
}

void simt_set_options(struct simt_options options) { simt::options = options; }

void simt_set_threads(int threads) { simt::options.threads = threads; }

int simt_threads(void) {
    if (simt::RACE_BUILD) return 1; /* the detector sees one block at a time */
    if (simt::options.threads > 0) return simt::options.threads;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > 256 ? 256 : (int)cores;
}

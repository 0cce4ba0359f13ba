/* error - one line per failed grid: where, what, and which kernel, block and thread. The first
 * error since the last simt_take_error is kept; what follows from it is not worth a line. */
/* SPDX-License-Identifier: MIT */
#include <mutex>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/simt/instructions/async.h"

namespace simt {

static std::mutex kept_lock;
static bool kept;
static error_line kept_line, taken_line;

void error_keep(block *b, const error_line *line) {
    b->failed = true;
    b->of->failed = true;
    const std::lock_guard<std::mutex> hold(kept_lock);
    if (!kept) kept_line = *line;
    kept = true;
}

void error_append(error_line *line, const char *format, ...) {
    const size_t room = sizeof line->text - line->length;
    va_list values;
    va_start(values, format);
    const int n = vsnprintf(line->text + line->length, room, format, values);
    va_end(values);
    if (n > 0) line->length += (size_t)n < room ? (size_t)n : room - 1;
}

/* A template kernel is launched in parentheses, which are not part of its name. */
void error_append_kernel(error_line *line, const char *kernel) {
    const size_t length = strlen(kernel);
    const bool wrapped = kernel[0] == '(' && kernel[length - 1] == ')';
    error_append(line, "kernel %.*s", (int)(length - (wrapped ? 2 : 0)), kernel + wrapped);
}

void error_append_where(error_line *line, const block *b, const thread *t) {
    const uint3 i = b->view.index;
    error_append_kernel(line, b->of->config->kernel);
    error_append(line, ", block (%u,%u,%u)", i.x, i.y, i.z);
    if (t) error_append(line, ", thread (%u,%u,%u)", t->index.x, t->index.y, t->index.z);
}

static void fail_thread(const thread *t, place at, const char *format, va_list values) {
    char what[300];
    vsnprintf(what, sizeof what, format, values);
    error_line line = {};
    error_append(&line, "%s:%d: %s (", at.file, at.line, what);
    error_append_where(&line, running, t);
    error_append(&line, ")");
    error_keep(running, &line);
}

void fail(place at, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fail_thread(self, at, format, values);
    va_end(values);
    abandon(running);
}

void fail_lane(int lane, place at, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fail_thread(&running->fibers[self->warp * 32 + lane], at, format, values);
    va_end(values);
    abandon(running);
}

/* ---- nobody in the block can go on: who waits where, equal states together ---- */

static bool same_state(const fiber *a, const fiber *b) {
    if (a->state == THREAD_EXITED || b->state == THREAD_EXITED) return a->state == b->state;
    return a->state == b->state && a->waits_in == b->waits_in && a->at.line == b->at.line &&
           (a->at.file == b->at.file || !strcmp(a->at.file, b->at.file));
}

/* "threads 0..31, 64..95 and more": those in the state of fibers[first]. How many of
 * them there are. */
static int append_threads(error_line *line, const block *b, int first) {
    const int shown = 3;
    int ranges = 0, count = 0;
    for (int i = first; i < b->threads; i++) count += same_state(&b->fibers[i], &b->fibers[first]);
    error_append(line, count == 1 ? "thread " : "threads ");
    for (int i = first, last; i < b->threads; i = last + 1) {
        last = i;
        if (!same_state(&b->fibers[i], &b->fibers[first])) continue;
        if (ranges++ == shown) {
            error_append(line, " and more");
            break;
        }
        while (last + 1 < b->threads && same_state(&b->fibers[last + 1], &b->fibers[first])) last++;
        error_append(line, ranges > 1 ? ", %d" : "%d", i);
        if (i < last) error_append(line, "..%d", last);
    }
    return count;
}

void error_keep_stuck(block *b, const char *why) {
    error_line states = {}, line = {};
    place at = {"?", 0};
    for (int i = 0; i < b->threads; i++) {
        const fiber *f = &b->fibers[i];
        int told = 0;
        while (told < i && !same_state(&b->fibers[told], f)) told++;
        if (told < i) continue;
        if (states.length) error_append(&states, "; ");
        const int count = append_threads(&states, b, i);
        if (f->state == THREAD_EXITED) {
            error_append(&states, " exited");
            continue;
        }
        error_append(&states, " %s in %s (%s:%d)", count == 1 ? "waits" : "wait", f->waits_in, f->at.file,
                     f->at.line);
        if (!at.line) at = f->at;
    }
    if (b->on_idle) async_append_waits(&states, b);
    error_append(&line, "%s:%d: %s: %.300s (", at.file, at.line, why, states.text);
    error_append_where(&line, b, nullptr);
    error_append(&line, ")");
    error_keep(b, &line);
}

} // namespace simt

const char *simt_take_error(void) {
    using namespace simt;
    const std::lock_guard<std::mutex> hold(kept_lock);
    if (!kept) return nullptr;
    kept = false;
    taken_line = kept_line;
    return taken_line.text;
}

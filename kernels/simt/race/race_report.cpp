/* race_report - what a race looks like to a reader: one line with both source lines, both
 * threads and the buffer. Of plain accesses the code address is known; addr2line (binutils)
 * says which line that is. */
/* SPDX-License-Identifier: MIT */
#ifdef SIMT_RACE
#include <algorithm>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "kernels/simt/race/race_shadow.h"

extern "C" char __executable_start; /* by the linker */
extern "C" char **environ;

namespace simt {

/* ---- places: source lines have the upper bit set and count the table's rows ---- */

static const uint32_t IS_LINE = 1u << 31;
static std::vector<place> lines;
static uint32_t by_hash[1024]; /* row + 1 */

static bool same_place(place a, place b) { return a.line == b.line && a.file == b.file; }

uint32_t race_place(place at) {
    uint32_t *row = &by_hash[((uintptr_t)at.file * 31 + (unsigned)at.line) % 1024];
    if (!*row || !same_place(lines[*row - 1], at)) {
        size_t i = 0;
        while (i < lines.size() && !same_place(lines[i], at)) i++;
        if (i == lines.size()) lines.push_back(at);
        *row = (uint32_t)i + 1;
    }
    return (*row - 1) | IS_LINE;
}

uint32_t race_place_of_code(const void *return_address) {
    return (uint32_t)(static_cast<const char *>(return_address) - &__executable_start) - 1;
}

/* addr2line's answer, one line for each function that was inlined into the next;
 * false: there is none. */
static bool ask_addr2line(uint32_t code, char *answer, size_t room) {
    char program[512], address[16];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) return false;
    program[length] = 0;
    snprintf(address, sizeof address, "0x%x", code);
    char name[] = "addr2line", inlined[] = "-i", of[] = "-e";
    char *const arguments[] = {name, inlined, of, program, address, nullptr};

    int ends[2];
    if (pipe(ends)) return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    pid_t child;
    const bool started = posix_spawnp(&child, name, &actions, nullptr, arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t got = 0;
    for (ssize_t n; started && (n = read(ends[0], answer + got, room - 1 - got)) > 0;) got += (size_t)n;
    answer[got] = 0;
    close(ends[0]);
    if (started) waitpid(child, nullptr, 0);
    return got > 0;
}

/* "path:line" or "path:line (discriminator 2)"; of the inlined functions the first
 * that is the kernel's. */
static place parse_answer(char *answer) {
    place first = {nullptr, 0};
    char *rest = answer;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *colon = strrchr(line, ':');
        int number;
        if (!colon || sscanf(colon + 1, "%d", &number) != 1 || line[0] == '?') continue;
        *colon = 0;
        const char *file = strstr(line, "/./");
        file = file ? file + 3 : line;
        if (!strncmp(file, "./", 2)) file += 2;
        if (!first.file) first = {file, number};
        if (!strstr(file, "kernels/lang/") && !strstr(file, "kernels/simt/")) return {file, number};
    }
    return first;
}

struct named_place {
    char text[300];
    place at;
};

static void place_name(named_place *out, uint32_t place_number) {
    static char answer[2][2048]; /* of the two places of a report */
    static int turn;
    if (place_number & IS_LINE) {
        out->at = lines[place_number & ~IS_LINE];
    } else {
        char *text = answer[turn ^= 1];
        out->at =
            ask_addr2line(place_number, text, sizeof answer[0]) ? parse_answer(text) : place{nullptr, 0};
        if (!out->at.file) { /* no debug information, or no addr2line */
            snprintf(text, sizeof answer[0], "code address 0x%x", place_number);
            out->at = {text, 0};
        }
    }
    snprintf(out->text, sizeof out->text, "%s:%d", out->at.file, out->at.line);
}

/* ---- the words of a report ---- */

static error_line where_of(const race_action &x) {
    error_line w = {};
    const race_region *r = x.region;
    if (r->buffer)
        error_append(&w, "%s + %td", r->buffer->name,
                     reinterpret_cast<unsigned char *>(x.address) - r->buffer->data);
    else if (r->is_static) /* where a variable lies there says nothing */
        error_append(&w, "static shared memory");
    else
        error_append(&w, "shared memory + %zu", (size_t)(x.address - r->low));
    return w;
}

static void append_index(error_line *line, const char *what, size_t linear, dim3 n) {
    error_append(line, "%s (%zu,%zu,%zu)", what, linear % n.x, linear / n.x % n.y,
                 linear / ((size_t)n.x * n.y));
}

/* "by thread (3,0,0)", for an asynchronous unit the thread that gave it work; and the
 * block, if another. */
static error_line who_of(uint16_t by, uint32_t stamp) {
    error_line w = {};
    const race_unit *u = race_unit_at(by);
    const bool same_block = stamp > race_clock.block_first;
    if (same_block || !u) /* units are forgotten with their block */
        append_index(&w, u ? "of thread" : "by thread", u ? u->issuer : by, self->block->threads);
    if (!same_block)
        append_index(&w, u ? "of block" : " of block", race_block_of(stamp), self->block->blocks);
    return w;
}

void race_report_conflict(const race_action &x, const char *did, uint16_t by, uint32_t stamp, uint32_t at) {
    named_place here, there;
    place_name(&here, x.at);
    place_name(&there, at);
    const bool same_block = stamp > race_clock.block_first;
    fail(here.at, "race: %s of %s, and %s at %.100s %s: %s", x.does, where_of(x).text, did, there.text,
         who_of(by, stamp).text,
         !same_block         ? "blocks of one launch have no order"
         : by >= MAX_THREADS ? "this thread has not waited for it"
                             : "no barrier between them");
}

void race_report_pending(const race_action &x, const race_cell *c) {
    named_place here, there;
    place_name(&here, x.at);
    place_name(&there, c->write_at);
    fail(here.at, "race: %s of %s, which the copy at %.100s %s is still filling: wait for it first", x.does,
         where_of(x).text, there.text, who_of(c->writer, c->write).text);
}

void race_report_uninitialised(block *b, const race_action &x, uint32_t stale_at) {
    named_place here, there = {"the block began", {}};
    place_name(&here, x.at);
    if (stale_at) place_name(&there, stale_at);
    error_line line = {};
    error_append(&line, "%.100s: race: %s of uninitialised %s: nobody has written it since %s%.100s (",
                 here.text, x.does, where_of(x).text, stale_at ? "shared_stale at " : "", there.text);
    error_append_where(&line, b, &b->fibers[x.thread]);
    error_append(&line, ")");
    error_keep(b, &line);
    if (self) abandon(b);
}

void race_report_proxy(const race_action &x, const race_cell *c) {
    named_place here, there;
    place_name(&here, x.at);
    place_name(&there, c->write_at);
    fail(here.at, "race: %s of %s after the write at %.100s %s: no fence_proxy_async between them", x.does,
         where_of(x).text, there.text, who_of(c->writer, c->write).text);
}

} // namespace simt
#endif

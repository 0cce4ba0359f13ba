/* Which order of threads and copies has which number, and did one of them change a bit? */
/* SPDX-License-Identifier: MIT */
#include "harness/schedules.h"

#include <stdio.h>
#include <string.h>

static const char *const order_names[SIMT_ORDER_COUNT] = {
    [SIMT_ASCENDING] = "ascending",
    [SIMT_DESCENDING] = "descending",
    [SIMT_RANDOM_LANES] = "random lanes",
    [SIMT_RANDOM_WARPS] = "random warps",
};
static const char *const async_names[SIMT_ASYNC_COUNT] = {
    [SIMT_LAZY] = "lazy",
    [SIMT_EAGER] = "eager",
    [SIMT_RANDOM_ASYNC] = "random",
};

/* 4 orders and 3 asynchronies have no common divisor: counting both at once meets all 12 pairs. A
 * pair without randomness is the same every time, so it comes once. */
enum { PAIRS = (int)SIMT_ORDER_COUNT * (int)SIMT_ASYNC_COUNT, FIRST_RANDOM = SIMT_RANDOM_LANES };

struct simt_options schedule_numbered(int number) {
    const int order = number < PAIRS ? number % (int)SIMT_ORDER_COUNT
                                     : FIRST_RANDOM + number % ((int)SIMT_ORDER_COUNT - FIRST_RANDOM);
    return (struct simt_options){.order = (enum simt_order)order,
                                 .async = (enum simt_async)(number % (int)SIMT_ASYNC_COUNT),
                                 .seed = (uint64_t)number + 1};
}

void schedule_describe(int number, char *text, size_t size) {
    const struct simt_options s = schedule_numbered(number);
    snprintf(text, size, "order %s, async %s, seed %llu", order_names[s.order], async_names[s.async],
             (unsigned long long)s.seed);
}

static bool differs(const struct stored *a, const struct stored *b) {
    return memcmp(a->memory.data, b->memory.data, (size_t)a->count * dtype_bytes(a->dtype)) != 0;
}

bool schedule_differs(const struct stage_row *stage, const struct store *first, const struct store *again) {
    for (const enum tensor_id *id = stage->out; *id != T_NONE; id++)
        if (differs(&first->of[*id], &again->of[*id])) return true;
    return false;
}

void schedule_judge(const struct outcome *result, const struct judged *of, struct edge_result *edge,
                    struct findings *findings) {
    char schedule[64], note[96];
    if (!result->schedule) return;
    schedule_describe(result->schedule, schedule, sizeof schedule);
    snprintf(note, sizeof note, "depends on the schedule (%s)", schedule);
    for (const enum tensor_id *id = stage_table[of->stage].out; *id != T_NONE; id++) {
        const struct stored *const first = &result->got.of[*id], *const again = &result->other.of[*id];
        if (!differs(first, again)) continue;
        struct judged j = *of;
        j.id = *id;
        j.dtype = first->dtype;
        j.got = again->memory.data;
        j.count = first->count;
        judge_repeated(&j, first->memory.data, note, edge, findings);
    }
}

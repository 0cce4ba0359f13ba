/* Is a line of text the shape that it says, and the work what a hand counts? */
/* SPDX-License-Identifier: MIT */
#include "harness/bench_shape.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <string.h>

static struct bench_shape shape_of(const char *line) {
    struct bench_shape shape;
    const struct status s = bench_shape_parse(line, &shape);
    cr_assert(!s.code, "%s", s.message);
    return shape;
}

Test(bench_shape, a_line_is_the_shape_and_back) {
    static const char *const lines[] = {
        "decode:seqs=64,keys=4096", "decode:heads=64,dim=128,seqs=32,keys=4096,queries=4",
        "prefill:seqs=1,keys=50", "experts:tokens=3,experts=8,top=2", "dense:rows=1,cols=2,inner=3"};
    char line[BENCH_LINE];
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const struct bench_shape shape = shape_of(lines[i]);
        bench_shape_print(&shape, line);
        cr_expect_str_eq(line, lines[i]);
    }
    const struct bench_shape usual = shape_of("decode:dim=64,kv=8,keys=4096,seqs=2");
    bench_shape_print(&usual, line);
    cr_expect_str_eq(line, "decode:seqs=2,keys=4096");
}

Test(bench_shape, every_default_shape_is_one_that_can_be_asked_for) {
    char line[BENCH_LINE];
    struct bench_shape shape, again;
    for (int device = 0; device < DEVICE_COUNT; device++) {
        int n = 0;
        for (; bench_shape_default((enum device_kind)device, n, &shape); n++) {
            bench_shape_print(&shape, line);
            again = shape_of(line);
            cr_expect(bench_shape_same(&shape, &again), "%s", line);
        }
        cr_expect_geq(n, 4);
    }
}

Test(bench_shape, shapes_are_the_same_whatever_lies_between_their_members) {
    struct bench_shape one, other;
    memset(&one, 0, sizeof one), memset(&other, 0xff, sizeof other);
    const struct bench_shape shape = shape_of("decode:seqs=2,keys=64");
    one.family = other.family = shape.family;
    for (size_t at = offsetof(struct bench_shape, heads); at < sizeof shape; at += sizeof(int64_t)) {
        memcpy((char *)&one + at, (const char *)&shape + at, sizeof(int64_t));
        memcpy((char *)&other + at, (const char *)&shape + at, sizeof(int64_t));
    }
    cr_expect(bench_shape_same(&one, &other));
    for (size_t at = offsetof(struct bench_shape, heads); at < sizeof shape; at += sizeof(int64_t)) {
        int64_t *const size = (int64_t *)((char *)&other + at);
        ++*size;
        cr_expect_not(bench_shape_same(&one, &other), "size at %zu", at);
        --*size;
    }
    other.family = BENCH_PREFILL;
    cr_expect_not(bench_shape_same(&one, &other));
}

Test(bench_shape, what_no_shape_is_is_refused_with_a_remedy) {
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"decod:seqs=1", "use prefill, decode, experts or dense"},
        {"decode:keys=16", "says nothing of seqs; add seqs=N"},
        {"decode:seqs=1,keys=16,tokens=3", "decode has no such size; use heads (32)"},
        {"decode:seqs=1,keys=0", "use a number from 1 to"},
        {"decode:seqs=1,keys=", "use a number from 1 to"},
        {"decode:seqs=1,keys", "use a number from 1 to"},
        {"decode:seqs=1,keys=16x", "use a number from 1 to"},
        {"decode:seqs=1,seqs=2,keys=16", "seqs stands there twice"},
        {"decode:heads=6,kv=4,seqs=1,keys=16", "cannot share"},
        {"decode:seqs=1,keys=3,queries=4", "use at most as many"},
        {"experts:tokens=1,experts=4,top=6", "use at most as many"},
        {"experts:tokens=16777216,top=16", "use fewer tokens"},
        {"dense:rows=1000000,cols=1000000,inner=1", "GiB; use smaller sizes"},
    };
    struct bench_shape shape;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct status s = bench_shape_parse(rows[i].line, &shape);
        cr_expect(s.code && strstr(s.message, rows[i].says), "%s: %s", rows[i].line, s.message);
    }
}

Test(bench_shape, work_is_what_a_hand_counts) {
    const struct bench_shape prefill = shape_of("prefill:heads=2,kv=1,dim=4,seqs=3,keys=2"),
                             decode = shape_of("decode:heads=2,kv=1,dim=4,seqs=3,keys=5,queries=2"),
                             experts = shape_of("experts:tokens=1,experts=64,top=1,hidden=4,width=2");
    /* 3 keys are seen in a sequence of two, 9 in decode's; 2 products of 2 operations, 8 columns */
    cr_expect_float_eq(bench_work_of(&prefill).flops, 3 * 3 * 4 * 8, 1e-9);
    cr_expect_float_eq(bench_work_of(&decode).flops, 3 * 9 * 4 * 8, 1e-9);
    /* q and out of 6 tokens, k and v of 15 keys */
    cr_expect_float_eq(bench_work_of(&decode).bytes, 2 * (2 * 6 * 8 + 2 * 15 * 4), 1e-9);
    /* one row: its expert's three matrices, a row in, a row out */
    cr_expect_float_eq(bench_work_of(&experts).bytes, 2 * (3 * 4 * 2 + 2 * 4), 1e-9);
    cr_expect_float_eq(bench_work_of(&experts).flops, 2 * 3 * 4 * 2, 1e-9);
}

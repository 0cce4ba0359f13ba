/* Is what is said about the wrong indices true, simple, and silent where there is no pattern? */
/* SPDX-License-Identifier: MIT */
#include "harness/pattern.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 'x' wrong, '.' right, ' ' not judged. */
static struct index_set set_of(const char *marks) {
    struct index_set s = {.size = (int64_t)strlen(marks)};
    for (int64_t i = 0; i < s.size; i++) {
        if (marks[i] != ' ') index_judge(&s, i, 1);
        if (marks[i] == 'x') index_blame(&s, i);
    }
    return s;
}

static const struct pattern_view heads = {
    .label = "head", .letter = "h", .period = {{2, "rank"}, {4, "group"}}};

static char text[200];
static const char *described(const char *marks) {
    const struct index_set s = set_of(marks);
    pattern_describe(&s, &heads, 1, text, sizeof text);
    return text;
}

Test(pattern, of_one_axis_the_simplest_true_description_is_given) {
    static const struct {
        const char *marks, *words;
    } rows[] = {
        {"xxxxxxxx", ""},
        {"x", ""},
        {"x x  x", ""}, /* what was not judged says nothing */
        {".....x..", "head 5"},
        {"..xxxx..", "heads 2-5"},
        {"..xx xx.", "heads 2-6"},
        {"xxx.xxxx", "every head but 3"},
        {".x.x.x.x", "odd heads (4 of 8; the last of every rank)"},
        {"x x.x.x.", "even heads (4 of 7; the first of every rank)"},
        {"..xx..xx..xx..xx", "heads h % 4 >= 2 (8 of 16; a group has 4)"},
        {"...x...x...x...x", "heads h % 4 = 3 (4 of 16; the last of every group)"},
        {"xx.xxx.xxx.xxx.x", "heads h % 4 != 2 (12 of 16; a group has 4)"},
        {".xx..xx..xx..xx.", "heads h % 4 in 1-2 (8 of 16; a group has 4)"},
        {"xx.xx.xx.xx.xx.", "heads h % 3 < 2 (10 of 15)"},
        {"....x..x..x..x..", "heads 4-13 with h % 3 = 1 (4 of 16)"},
        {"x...x.", "heads 0, 4"}, /* twice is no period */
        {"xx...xxx..x.", "heads 0-1, 5-7, 10"},
        {"x.xx.x..xx.x.x..x.", "9 of 18 heads (0, 2, 3, 5, ...)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_str_eq(described(rows[i].marks), rows[i].words, "'%s': '%s'", rows[i].marks, text);
}

/* Three sequences of 4, 3 and 5 tokens, whose keys begin at 0, 16 and 30. */
static const int32_t sequence[12] = {0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2},
                     from_first[12] = {0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4},
                     from_last[12] = {3, 2, 1, 0, 2, 1, 0, 4, 3, 2, 1, 0},
                     position[12] = {0, 1, 2, 3, 16, 17, 18, 30, 31, 32, 33, 34};
static const struct pattern_view tokens[] = {
    {.label = "token", .letter = "t"},
    {.label = "position", .letter = "p", .number = position, .period = {{16, "page"}}},
    {.before = "tokens of ", .label = "sequence", .letter = "b", .number = sequence},
    {.label = "token", .letter = "t", .number = from_first, .unit = "sequence"},
    {.label = "token", .letter = "t", .number = from_last, .unit = "sequence", .from_last = true},
};

Test(pattern, tokens_are_told_by_sequence_place_or_position_where_that_is_simpler) {
    static const struct {
        const char *marks, *words;
    } rows[] = {
        {"xxxxxxxxxxxx", ""},
        {"....xxx.....", "tokens of sequence 1"},
        {"xxxx...xxxxx", "tokens of every sequence but 1"},
        {"x...x..x....", "the first token of every sequence"},
        {"...x..x....x", "the last token of every sequence"},
        {".xxx.xx.xxxx", "every token but the first of a sequence"},
        {"xxx.xx.xxxx.", "every token but the last of a sequence"},
        {"xx..xx.xx...", "the first 2 tokens of every sequence"},
        {"..xx..x..xxx", "every token but the first 2 of a sequence"},
        {".......xxxxx", "tokens of sequence 2"},
        {"x...x....x..", "positions p % 16 = 0 (3 of 12; the first of every page)"},
        {"xxxx..x.....", "tokens 0-3, 6"},
        {"........xxxx", "tokens 8-11"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct index_set s = set_of(rows[i].marks);
        pattern_describe(&s, tokens, 5, text, sizeof text);
        cr_expect_str_eq(text, rows[i].words, "'%s': '%s'", rows[i].marks, text);
    }
}

/* One index in eight of 400, drawn anew: three or more in a period that nothing asks for are rarer
 * than the draws are many. */
Test(pattern, a_random_scatter_has_none) {
    enum { SIZE = 400 };
    char marks[SIZE + 1] = {0};
    srand48(5);
    for (int draw = 0; draw < 200; draw++) {
        const struct index_set s = (memset(marks, '.', SIZE), set_of(marks));
        struct index_set spotted = s;
        for (int i = 0; i < SIZE / 8; i++) index_blame(&spotted, lrand48() % SIZE);
        cr_expect_eq(pattern_describe(&spotted, &heads, 1, text, sizeof text), PATTERN_NONE, "%s", text);
        cr_expect(strstr(text, "of 400 heads ("), "%s", text);
    }
}

/* Of random sets, small ones too: what is said holds for every index that was judged. */
Test(pattern, a_remainder_that_is_named_is_that_of_every_wrong_index_and_of_no_right_one) {
    int periodic = 0;
    srand48(6);
    for (int draw = 0; draw < 20000; draw++) {
        struct index_set s = {.size = 6 + lrand48() % 30};
        const int64_t period = 2 + lrand48() % 5, low = lrand48() % period;
        for (int64_t i = 0; i < s.size; i++) {
            if (drand48() < 0.9) index_judge(&s, i, 1);
            if (i % period >= low && drand48() < 0.97) index_blame(&s, i);
        }
        if (!s.any || pattern_describe(&s, &heads, 1, text, sizeof text) != PATTERN_PERIOD) continue;
        long long m = 2, value, first = 0, last = s.size - 1;
        const char *const rest = strstr(text, " % ");
        bool inverted = false;
        periodic++;
        sscanf(text, "heads %lld-%lld with", &first, &last);
        long long from = text[0] == 'o', to = from; /* odd, even */
        if (rest && sscanf(rest, " %% %lld >= %lld", &m, &value) == 2) from = value, to = m - 1;
        if (rest && sscanf(rest, " %% %lld < %lld", &m, &value) == 2) from = 0, to = value - 1;
        if (rest && sscanf(rest, " %% %lld = %lld", &m, &value) == 2) from = to = value;
        if (rest && sscanf(rest, " %% %lld != %lld", &m, &value) == 2) from = to = value, inverted = true;
        if (rest) sscanf(rest, " %% %lld in %lld-%lld", &m, &from, &to);
        for (int64_t i = 0; i < s.size; i++) {
            const bool says = i >= first && i <= last && (i % m >= from && i % m <= to) != inverted;
            if (s.judged[0] >> i & 1)
                cr_assert_eq(says, index_is_wrong(&s, i), "%lld: %s", (long long)i, text);
        }
    }
    cr_expect(periodic > 1000, "%d", periodic);
}

Test(pattern, of_an_axis_too_large_to_remember_the_extent_is_told_as_that) {
    struct index_set s = {.size = PATTERN_INDICES + 1};
    index_judge(&s, 0, s.size);
    index_blame(&s, 7);
    index_blame(&s, PATTERN_INDICES);
    pattern_describe(&s, &heads, 1, text, sizeof text);
    cr_expect_str_eq(text, "heads within 7-16384");
}

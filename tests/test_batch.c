/* Do the sequences of a case lie as promised: ragged lengths, a shuffled page table in which no
 * page serves twice, one slot a key, and new tokens at the end of their keys? */
/* SPDX-License-Identifier: MIT */
#include "harness/batch.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct layer_spec spec;

static struct batch built_as(enum lengths lengths, enum phase phase, int64_t tokens, int64_t cached,
                             int64_t seqs, uint64_t seed) {
    struct check_case c = case_defaults();
    c.lengths = lengths;
    c.phase = phase;
    c.tokens = tokens;
    c.cached = cached;
    c.seqs = seqs;
    c.seed = seed;
    case_finish(&c);
    const struct fill fill = {.kind = FILL_RANDOM, .seed = seed, .spec = &spec};
    struct batch b;
    batch_build(&b, &c, &fill);
    return b;
}

static struct batch built(enum phase phase, int64_t tokens, int64_t cached, int64_t seqs, uint64_t seed) {
    return built_as(LENGTHS_RAGGED, phase, tokens, cached, seqs, seed);
}

static int64_t new_tokens(const struct batch *b, int64_t s) {
    return b->query_start[s + 1] - b->query_start[s];
}

/* Everything that must hold whatever the case. */
static void expect_sound(const struct batch *b) {
    unsigned char *const page = calloc((size_t)b->n_pages, 1);
    unsigned char *const slot = calloc((size_t)(b->n_pages * PAGE_SIZE), 1);
    int64_t max_queries = 0, max_kv = 0, max_cached = 0, used = 0;
    cr_assert_eq(b->query_start[0], 0);
    for (int64_t s = 0; s < b->n_seqs; s++) {
        const int64_t n = new_tokens(b, s), keys = b->kv_len[s], pages = (keys + PAGE_SIZE - 1) / PAGE_SIZE;
        cr_assert(n >= 1 && keys >= n);
        if (n > max_queries) max_queries = n;
        if (keys > max_kv) max_kv = keys;
        if (keys - n > max_cached) max_cached = keys - n;
        for (int64_t p = 0; p < b->max_pages; p++) {
            const int32_t number = b->page_table[s * b->max_pages + p];
            if (p >= pages) {
                cr_assert_eq(number, INT32_MIN, "a page that nobody may read is poison");
                continue;
            }
            cr_assert(number >= 0 && number < b->n_pages);
            cr_assert_eq(page[number]++, 0, "page %d serves twice", number);
            used++;
        }
        for (int64_t k = 0; k < keys; k++) {
            const int64_t at = batch_slot(b, s, k);
            cr_assert(at >= 0 && at < b->n_pages * PAGE_SIZE);
            cr_assert_eq(slot[at]++, 0, "slot %lld holds two keys", (long long)at);
            cr_assert_eq(at / PAGE_SIZE, b->page_table[s * b->max_pages + k / PAGE_SIZE]);
            cr_assert_eq(at % PAGE_SIZE, k % PAGE_SIZE);
        }
        for (int64_t i = 0; i < n; i++) { /* bottom-right: the last new token sees every key */
            const int64_t row = b->query_start[s] + i, position = keys - n + i;
            cr_assert_eq(b->positions[row], position);
            cr_assert_eq(b->slots[row], batch_slot(b, s, position));
        }
    }
    cr_expect_eq(b->n_tokens, b->query_start[b->n_seqs]);
    cr_expect(b->max_queries == max_queries && b->max_kv == max_kv && b->max_cached == max_cached);
    cr_expect_eq(b->n_positions, max_kv);
    cr_expect(b->max_pages * PAGE_SIZE > max_kv, "one column behind the last page");
    cr_expect_eq(b->n_pages, used + 2, "two pages belong to nobody");
    free(page);
    free(slot);
}

static void expect_sound_as(enum lengths lengths, enum phase phase) {
    static const int64_t tokens[] = {1, 2, 3, 15, 16, 17, 33, 100}, cached[] = {0, 1, 2, 16, 31, 129};
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
        for (size_t k = 0; k < sizeof cached / sizeof *cached; k++)
            for (int64_t seqs = 1; seqs <= (phase == PHASE_DECODE ? 1 : 5); seqs += 2) {
                struct batch b =
                    built_as(lengths, phase, tokens[t], phase == PHASE_PREFILL ? 0 : cached[k], seqs, 3);
                expect_sound(&b);
                batch_free(&b);
                cr_assert_null(b.slots);
            }
}

Test(batch, every_batch_is_sound) {
    for (enum phase phase = 0; phase < PHASE_COUNT; phase++)
        for (enum lengths lengths = 0; lengths < LENGTHS_COUNT; lengths++) expect_sound_as(lengths, phase);
}

static void expect_lengths(struct batch b, int64_t n, const int64_t (*lengths)[2]) {
    cr_assert_eq(b.n_seqs, n);
    for (int64_t s = 0; s < n; s++) {
        cr_expect_eq(new_tokens(&b, s), lengths[s][0], "tokens of sequence %d", (int)s);
        cr_expect_eq(b.kv_len[s], lengths[s][1], "keys of sequence %d", (int)s);
    }
    batch_free(&b);
}

Test(batch, sequences_of_equal_lengths_are_alike_and_spread_ones_reach_from_decode_to_prefill) {
    expect_lengths(built_as(LENGTHS_EQUAL, PHASE_CHUNKED, 7, 30, 3, 1), 3,
                   (const int64_t[][2]){{7, 37}, {7, 37}, {7, 37}});
    expect_lengths(built_as(LENGTHS_EQUAL, PHASE_DECODE, 3, 30, 1, 1), 3,
                   (const int64_t[][2]){{1, 31}, {1, 31}, {1, 31}});
    expect_lengths(built_as(LENGTHS_SPREAD, PHASE_CHUNKED, 7, 30, 3, 1), 3,
                   (const int64_t[][2]){{1, 31}, {3, 18}, {7, 7}});
    expect_lengths(built_as(LENGTHS_SPREAD, PHASE_DECODE, 3, 30, 1, 1), 3,
                   (const int64_t[][2]){{1, 1}, {1, 16}, {1, 31}});
    expect_lengths(built_as(LENGTHS_SPREAD, PHASE_PREFILL, 7, 0, 1, 1), 1, (const int64_t[][2]){{7, 7}});
}

Test(batch, prefill_has_nothing_cached_and_every_third_sequence_is_two_shorter) {
    struct batch b = built(PHASE_PREFILL, 10, 0, 5, 1);
    static const int64_t lengths[] = {10, 9, 8, 10, 9};
    cr_assert_eq(b.n_seqs, 5);
    for (int s = 0; s < 5; s++) {
        cr_expect_eq(new_tokens(&b, s), lengths[s]);
        cr_expect_eq(b.kv_len[s], lengths[s]);
    }
    batch_free(&b);
    b = built(PHASE_PREFILL, 2, 0, 3, 1);
    cr_expect_eq(new_tokens(&b, 2), 1, "never less than one token");
    batch_free(&b);
}

Test(batch, chunked_adds_its_tokens_behind_the_cached_keys) {
    struct batch b = built(PHASE_CHUNKED, 5, -1, 2, 1);
    cr_expect_eq(b.kv_len[0], 64 + 5);
    cr_expect_eq(b.kv_len[1], 64 + 4);
    cr_expect_eq(b.positions[0], 64);
    cr_expect_eq(b.positions[5], 64);
    batch_free(&b);
}

Test(batch, decode_has_one_token_a_sequence_and_ragged_caches) {
    struct batch b = built(PHASE_DECODE, 7, -1, 1, 1);
    cr_assert_eq(b.n_seqs, 7);
    cr_expect_eq(b.max_queries, 1);
    for (int64_t s = 0; s < 7; s++) {
        cr_expect_eq(new_tokens(&b, s), 1);
        cr_expect_eq(b.kv_len[s], 129 - s % 3 + 1);
    }
    batch_free(&b);
    b = built(PHASE_DECODE, 3, 1, 1, 1);
    cr_expect(b.kv_len[0] == 2 && b.kv_len[1] == 1 && b.kv_len[2] == 1, "never less than nothing cached");
    expect_sound(&b);
    batch_free(&b);
}

Test(batch, the_page_table_is_shuffled_by_the_seed_alone) {
    struct batch a = built(PHASE_PREFILL, 400, 0, 1, 1), same = built(PHASE_PREFILL, 400, 0, 1, 1),
                 other = built(PHASE_PREFILL, 400, 0, 1, 2);
    int64_t differs = 0, in_order = 0;
    for (int64_t p = 0; p < 25; p++) {
        cr_expect_eq(a.page_table[p], same.page_table[p]);
        differs += a.page_table[p] != other.page_table[p];
        in_order += a.page_table[p] == p;
    }
    cr_expect(differs > 10 && in_order < 10, "%lld %lld", (long long)differs, (long long)in_order);
    batch_free(&a);
    batch_free(&same);
    batch_free(&other);
}

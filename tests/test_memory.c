/* Is memory that was used before as good as new? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <string.h>

#include "harness/memory.h"

enum { MIB = 1 << 20, LARGE = 128 * MIB };

static size_t not_zero(const struct mapping *m, size_t bytes) {
    const unsigned char *const p = m->data;
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) n += p[i] != 0;
    return n;
}

/* Of `before` bytes, used and given back, `bytes` are taken: are they the same memory? */
static bool used_again(size_t before, size_t bytes) {
    struct mapping m = {0};
    mapping_renew(&m, before);
    memset(m.data, 0xff, before);
    const void *const old = m.data;
    mapping_free(&m);
    cr_expect_null(m.data);
    mapping_renew(&m, bytes);
    const bool again = m.data == old;
    cr_expect_eq(not_zero(&m, bytes), 0, "%zu bytes after %zu", bytes, before);
    memset(m.data, 0xff, bytes); /* all of it is there */
    mapping_free(&m);
    return again;
}

Test(memory, a_mapping_that_was_used_before_is_zero_again) {
    cr_expect(used_again(LARGE, LARGE));
    cr_expect(used_again(LARGE, LARGE - 5 * MIB - 3));
    for (size_t bytes = 1; bytes < 64 * MIB; bytes *= 7) used_again(bytes, bytes);
}

/* What is kept is then given back to the system: see that nobody reads it. */
Test(memory, one_of_another_size_is_a_new_one) {
    struct mapping small = {0}, large = {0};
    mapping_renew(&large, 4 * (size_t)LARGE);
    memset(large.data, 0xff, 4 * (size_t)LARGE);
    mapping_free(&large);
    mapping_renew(&small, LARGE / 2 + 1); /* an eighth would hold the rest for nothing */
    cr_expect_eq(small.bytes, LARGE / 2 + 1);
    mapping_free(&small);
    mapping_renew(&large, 2 * (size_t)LARGE);
    cr_expect_eq(not_zero(&large, 2 * (size_t)LARGE), 0);
    cr_expect_eq(large.bytes, 2 * (size_t)LARGE);
    mapping_free(&large);
}

Test(memory, two_that_are_held_are_two) {
    struct mapping a = {0}, b = {0}, c = {0};
    mapping_renew(&a, LARGE);
    mapping_free(&a);
    mapping_renew(&a, LARGE);
    mapping_renew(&b, LARGE);
    cr_expect_neq(a.data, b.data);
    mapping_free(&a);
    mapping_free(&b);
    mapping_renew(&b, LARGE);
    mapping_renew(&c, LARGE);
    cr_expect_neq(b.data, c.data);
    mapping_free(&b);
    mapping_free(&c);
}

/* Sums, bounds and magnitudes of one rank after the other. */
Test(memory, blocks_of_one_size_take_turns_in_the_same_memory_and_are_zero) {
    enum { N = 3, ELEMENTS = LARGE / 8 };
    double *block[N];
    const void *first[N];
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < N; i++) {
            block[i] = block_zeroed(ELEMENTS, sizeof(double));
            size_t not = 0;
            for (int k = 0; k < ELEMENTS; k++) not += block[i][k] != 0;
            cr_expect_eq(not, 0);
            memset(block[i], 0xff, ELEMENTS * sizeof(double));
            if (!turn) first[i] = block[i];
            bool warm = false;
            for (int k = 0; k < N && turn; k++) warm |= first[k] == block[i];
            cr_expect(warm || !turn);
        }
        for (int i = 0; i < N; i++) block_free(block[i]);
    }
    block_free(NULL);
}

/* More than are kept, of rising sizes: the largest ones stay. */
Test(memory, of_many_blocks_the_smallest_are_given_back) {
    enum { N = 7 };
    void *block[N];
    for (int i = 0; i < N; i++) block[i] = block_zeroed((size_t)LARGE + (size_t)i * 16 * MIB, 1);
    for (int i = 0; i < N; i++) block_free(block[i]);
    void *const again = block_zeroed((size_t)LARGE + (N - 1) * (size_t)(16 * MIB), 1);
    cr_expect_eq(again, block[N - 1]);
    block_free(again);
}

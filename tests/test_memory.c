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

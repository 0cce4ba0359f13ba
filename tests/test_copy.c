/* Are bytes the same, set, copied and told from others in every piece that a core has? */
/* SPDX-License-Identifier: MIT */
#include "layer/copy.h"

#include <criterion/criterion.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Nothing, a word and a bit, a piece to the byte, pieces and a bit. */
static const size_t sizes[] = {0, 1, 13, 4 << 20, (4 << 20) + 1, (9 << 20) + 5};
enum { SIZES = sizeof sizes / sizeof *sizes };

static unsigned char *made(size_t bytes) {
    unsigned char *const p = malloc(bytes + 1);
    cr_assert(p);
    for (size_t i = 0; i < bytes; i++) p[i] = (unsigned char)(i * 2654435761u >> 24);
    return p;
}

Test(copy, one_byte_that_changes_is_seen_wherever_it_stands) {
    for (int s = 0; s < SIZES; s++) {
        const size_t bytes = sizes[s], step = bytes / 7 + 1;
        unsigned char *const a = made(bytes), *const b = malloc(bytes + 1);
        cr_assert(b);
        copy_bytes(b, a, bytes);
        const uint64_t hash = hash_bytes(a, bytes);
        cr_expect(same_bytes(a, b, bytes) && hash_bytes(b, bytes) == hash, "%zu bytes", bytes);
        for (size_t i = 0; i < bytes; i = i + step < bytes || i == bytes - 1 ? i + step : bytes - 1) {
            b[i] ^= 1;
            cr_expect_not(same_bytes(a, b, bytes), "byte %zu of %zu", i, bytes);
            cr_expect_neq(hash_bytes(b, bytes), hash, "byte %zu of %zu", i, bytes);
            b[i] ^= 1;
        }
        free(a), free(b);
    }
}

Test(copy, a_byte_that_was_not_set_is_seen) {
    for (int s = 1; s < SIZES; s++) {
        unsigned char *const a = made(sizes[s]);
        set_bytes(a, 0x7f, sizes[s]);
        cr_expect(all_bytes(a, 0x7f, sizes[s]) && !all_bytes(a, 0, sizes[s]));
        for (int last = 0; last < 2; last++) {
            unsigned char *const at = last ? &a[sizes[s] - 1] : a;
            *at = 3;
            cr_expect_not(all_bytes(a, 0x7f, sizes[s]), "%zu bytes", sizes[s]);
            *at = 0x7f;
        }
        free(a);
    }
}

Test(copy, pieces_that_change_places_and_other_numbers_of_threads) {
    const size_t piece = 4 << 20, bytes = 2 * piece;
    unsigned char *const a = made(bytes), *const b = malloc(bytes);
    cr_assert(b);
    memcpy(b, a + piece, piece), memcpy(b + piece, a, piece);
    a[0] ^= 1, b[piece] ^= 1; /* the halves are not the same */
    cr_expect_neq(hash_bytes(a, bytes), hash_bytes(b, bytes));
    const uint64_t hash = hash_bytes(a, bytes);
    for (int n = 1; n < 4; n++) {
        omp_set_num_threads(n);
        cr_expect_eq(hash_bytes(a, bytes), hash, "%d threads", n);
    }
    free(a), free(b);
}

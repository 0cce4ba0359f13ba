/* Is what the facts of a run say true? Tiles are those of the kernels, facts are met by calls that
 * show them and by no others. */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"

#include <criterion/criterion.h>

/* A second saying of the same: an online softmax takes one step a tile of keys. */
Test(coverage, key_tiles_of_attention_kernels_are_the_blocks_of_their_contracts) {
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op != OP_ATTENTION) continue;
        for (int64_t dim = 64; dim <= 256; dim *= 2) {
            const struct call call = {
                OP_ATTENTION, .u.attention = {.n_heads = 4, .n_kv_heads = 2, .head_dim = dim, .max_kv = 100}};
            cr_expect_eq(k->tiles(&call).of[EXTENT_KEYS].size, k->contract(&call).u.attention.block,
                         "%s at %d dims", k->name, (int)dim);
        }
    }
}

/* seeded - mistakes that stand in the kernels on purpose, for `make bugs` to catch
 * (tests/kernels/bugs). SEEDED(BUG_X) is the constant 1 where the file is compiled
 * with -DBUG_X, and 0 otherwise:
 *   if (!SEEDED(BUG_X)) __syncthreads();         SEEDED(BUG_X) ? wrong : right
 * Both sides are compiled in every build, and the one not taken leaves no code. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_SEEDED_H
#define KERNELS_LANG_SEEDED_H

/* -DBUG_X defines BUG_X as 1, and SEEDED_COMMA_1 puts an argument before the 1; a BUG_X that
 * is not defined makes SEEDED_COMMA_BUG_X, which joins the 1 in one argument. The second
 * argument is the answer. */
#define SEEDED(bug) SEEDED_VALUE(bug)
#define SEEDED_VALUE(value) SEEDED_CHOOSE(SEEDED_COMMA_##value)
#define SEEDED_CHOOSE(comma) SEEDED_SECOND(comma 1, 0, 0)
#define SEEDED_SECOND(first, second, ...) second
#define SEEDED_COMMA_1 0,

#endif

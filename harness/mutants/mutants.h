/* mutants - the files of the table, each ended by a row without a name. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_MUTANTS_MUTANTS_H
#define HARNESS_MUTANTS_MUTANTS_H

#include "harness/mutate.h"

extern const struct mutant mutants_of_views[], mutants_of_heads[], mutants_of_softmax[], mutants_of_router[],
    mutants_of_experts[], mutants_of_sums[], mutants_of_slips[];

#define PR_39707 "vLLM PR #39707"
#define A_SLIP "a slip" /* that nobody has reported: it is found at once, or never */

#endif

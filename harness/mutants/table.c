/* Which mistakes are known? */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "harness/mutants/mutants.h"

static const struct mutant *const files[] = {mutants_of_views,  mutants_of_heads,   mutants_of_softmax,
                                             mutants_of_router, mutants_of_experts, mutants_of_sums,
                                             mutants_of_slips};

const struct mutant *mutant_at(int i) {
    for (size_t f = 0; f < sizeof files / sizeof *files; f++)
        for (const struct mutant *m = files[f]; m->name; m++)
            if (i-- == 0) return m;
    return NULL;
}

const struct mutant *mutant_by_name(const char *name) {
    const struct mutant *m;
    for (int i = 0; (m = mutant_at(i)); i++)
        if (!strcmp(m->name, name)) break;
    return m;
}

/* inspect - `--print TENSOR[i,j]`: an element, its neighbours and what the stage read beside it, from the
 * unsharded run and from every rank that stores it. For whoever is looking for one wrong number. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_INSPECT_H
#define HARNESS_INSPECT_H

#include <stdio.h>

#include "harness/answer.h"

struct inspection {
    enum tensor_id id;
    int n; /* indices given: global, of the tensor's first axes (`shardcheck list stages` names them) */
    int64_t index[MAX_AXES];
    bool whole; /* instead: every tensor of `stage` of `rank` (-1: of the unsharded run), see exhibit.h */
    int stage, rank;
    FILE *file;
};
/* "o[3,5]", "y"; an error names the tensors that an answer is about. */
struct status inspection_parse(const char *text, struct inspection *out);
/* After the stage is judged. NULL, or another tensor: nothing. At most 16 elements are shown. */
void inspect(const struct inspection *what, const struct placed *at, const struct outcome *o,
             const struct answer *a);

#endif

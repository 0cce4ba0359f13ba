/* compare_dumps - two files of tensors side by side: what differs, and whether both are right all the same. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_COMPARE_DUMPS_H
#define HARNESS_CLI_COMPARE_DUMPS_H

#include <stdio.h>

#include "harness/cli/commands.h"

/* Fixture files: tensor by tensor in the order of the layer, rank layouts put together by the placement
 * strings; what differs is judged in both files by the reference on the file's own inputs. */
struct status compare_fixtures(FILE *file, const char *a, const char *b, enum exit_code *code);
/* Any files of named tensors: tensor by tensor, bit for bit. */
struct status compare_tensors(FILE *file, const char *a, const char *b, enum exit_code *code);

/* Elements of other bits. */
struct difference {
    int64_t n, n_other, first; /* first: -1: none */
    double largest;            /* |a - b|; inf or NaN where one of them is */
};
struct difference difference_of(const double *a, const double *b, int64_t n);

#endif

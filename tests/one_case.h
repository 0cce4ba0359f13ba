/* one_case - runs the case of one line in this process. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_ONE_CASE_H
#define TESTS_ONE_CASE_H

#include <criterion/criterion.h>

#include "harness/run.h"

/* What it is run with besides its line; NULL: nothing. */
struct one_case {
    int stage;
    const struct kernel *kernel; /* of the stage */
    const struct mutant *mutant, *fault;
    enum sums_place reference;
};

/* run_output_free it. */
static inline struct run_output run_one(const char *line, struct one_case with) {
    struct check_case c;
    struct run_output out;
    bool has_part;
    struct status s = case_parse(line, &c, &has_part);
    cr_assert_eq(s.code, STATUS_OK, "%s: %s", line, s.message);
    if (with.kernel) c.kernel[with.stage] = with.kernel;
    const struct run_request request = {
        .cases = &c, .n_cases = 1, .mutant = with.mutant, .fault = with.fault, .reference = with.reference};
    s = run_cases(&request, &out);
    cr_assert_eq(s.code, STATUS_OK, "%s: %s", line, s.message);
    return out;
}

#endif

/* traces - what a launch leaves behind in the process it ran in: processes, lower limits. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TRACES_H
#define HARNESS_TRACES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

struct traces {
    bool children;
    struct rlimit limit[RLIM_NLIMITS];
};

void traces_look(struct traces *before);
/* What `by` has changed since, one line: 0: nothing; 1: that is all; -1: after it this process cannot
 * go on. */
int traces_compare(const struct traces *before, const char *by, char *line, size_t size);

#endif

/* What does a launch leave behind that no buffer shows? A child would go on beside the cases that
 * follow; under a lower limit our own allocations fail later, and that would look like our error. */
/* SPDX-License-Identifier: MIT */
#include "harness/traces.h"

#include <stdio.h>
#include <sys/wait.h>

static bool has_children(void) {
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

void traces_look(struct traces *before) {
    before->children = has_children();
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (getrlimit(i, &before->limit[i])) before->limit[i] = (struct rlimit){0, 0};
}

int traces_compare(const struct traces *before, const char *by, char *line, size_t size) {
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit now;
        if (getrlimit(i, &now) || now.rlim_cur >= before->limit[i].rlim_cur) continue;
        snprintf(line, size, "%s lowered a limit of the process it ran in (setrlimit)", by);
        return -1; /* that the old one could be set again is a matter of privileges */
    }
    if (before->children || !has_children()) return 0;
    snprintf(line, size, "%s started a process that is still there", by);
    return 1;
}

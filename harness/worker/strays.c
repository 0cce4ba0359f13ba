/* How is a process found that has left the group of its worker, and its parent, too? The kernel of
 * the system hands it to the next subreaper above: while the worker lives to that, then to us. */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/strays.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { MAX_SPARED = 1024, ROUNDS = 1000 };
static pid_t spared[MAX_SPARED];
static int n_spared;

static bool is_spared(pid_t pid) {
    for (int i = 0; i < n_spared; i++)
        if (spared[i] == pid) return true;
    return n_spared == MAX_SPARED; /* too many to know */
}

void strays_spare(pid_t pid) {
    if (n_spared < MAX_SPARED) spared[n_spared++] = pid;
}

void strays_forget(pid_t pid) {
    for (int i = 0; i < n_spared; i++)
        if (spared[i] == pid) spared[i] = spared[--n_spared];
}

/* Children of all threads. Where the system does not list them, nobody is visited. */
static int visit_children(void (*visit)(pid_t pid)) {
    int n = 0, pid;
    DIR *const tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        char path[300];
        snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
        FILE *const file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        while (file && fscanf(file, "%d", &pid) == 1)
            if (!is_spared(pid)) visit(pid), n++;
        if (file) fclose(file);
    }
    if (tasks) closedir(tasks);
    return n;
}

void strays_expect(void) {
    static bool done;
    if (!done) visit_children(strays_spare);
    done = true;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static void end_one(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void strays_end(void) {
    for (int round = 0; round < ROUNDS && visit_children(end_one); round++) {
    }
}

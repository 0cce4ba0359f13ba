/* Does any bound call an honest kernel wrong? Emulated kernels in all manner of orders, and the real
 * ones in random cases, for so many minutes: every alarm is a defect of a bound, of a contract or of
 * a kernel. Usage: campaign MINUTES [--seed N] [--dishonest] [--only NAME:NUMBER]. Exit status 1: an
 * alarm; 2: usage. With --dishonest the emulated kernels leave something out, and alarms are due. */
/* SPDX-License-Identifier: MIT */
#include "tests/campaign/campaign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 256, MOST_SHOWN = 20 };

struct campaign {
    double minutes;
    uint64_t seed;
    bool dishonest;
    char only[32];
    int64_t number; /* of the only trial */
    int64_t elements, alarms, trials, refused, shown, tests;
    double statistic;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void count(struct campaign *c, const struct trial *t, const char *name, int64_t number) {
    c->elements += t->elements;
    c->alarms += t->alarms;
    c->trials++;
    c->tests += t->tests;
    if (t->statistic > c->statistic) c->statistic = t->statistic;
    if (!t->alarms || c->shown++ >= MOST_SHOWN) return;
    printf("ALARM %s: %s\n  %lld elements; first %s\n  again: campaign 0 --seed %llu%s --only %s:%lld\n",
           name, t->made_of, (long long)t->alarms, t->alarm, (unsigned long long)c->seed,
           c->dishonest ? " --dishonest" : "", name, (long long)number);
    fflush(stdout);
}

static void emulate(struct campaign *c, const struct emulation *row, int64_t number) {
    struct trial t = trial_open(c->seed, row->name, number, c->dishonest);
    row->run(&t);
#pragma omp critical
    count(c, &t, row->name, number);
    trial_close(&t);
}

static void run_case(struct campaign *c, int64_t number) {
    struct trial t = trial_open(c->seed, "case", number, false);
    if (case_trial(&t))
        count(c, &t, "case", number);
    else
        c->refused++;
    trial_close(&t);
}

/* Emulated kernels and cases take turns, whichever has had less time. */
static void run_all(struct campaign *c) {
    int64_t next = 0, next_case = 0;
    double emulated = 0, cases = 0;
    const double start = now(), end = start + 60 * c->minutes;
    int64_t n_rows = 0;
    while (emulations[n_rows].name) n_rows++;
    for (double from = start; from < end;) {
        const bool turn = emulated <= cases || c->dishonest;
        if (turn) {
#pragma omp parallel for schedule(dynamic)
            for (int64_t i = next; i < next + BATCH; i++) emulate(c, &emulations[i % n_rows], i / n_rows);
            next += BATCH;
        } else {
            run_case(c, next_case++);
        }
        const double to = now();
        *(turn ? &emulated : &cases) += to - from;
        from = to;
    }
    printf("%lld trials of emulated kernels, %lld cases of the real ones (%lld lines refused), seed %llu, "
           "%.1f min\n",
           (long long)next, (long long)(next_case - c->refused), (long long)c->refused,
           (unsigned long long)c->seed, (now() - start) / 60);
}

static void run_only(struct campaign *c) {
    if (!strcmp(c->only, "case")) run_case(c, c->number);
    for (const struct emulation *row = emulations; row->name; row++)
        if (!strcmp(row->name, c->only)) emulate(c, row, c->number);
}

static bool read_arguments(struct campaign *c, int argc, char **argv) {
    char *end = NULL;
    if (argc < 2) return false;
    c->minutes = strtod(argv[1], &end);
    if (*end || !(c->minutes >= 0 && c->minutes < 1e5)) return false;
    for (int i = 2; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--dishonest")) {
            c->dishonest = true;
        } else if (!strcmp(argv[i], "--seed") && more) {
            c->seed = strtoull(argv[++i], &end, 10);
            if (*end) return false;
        } else if (!strcmp(argv[i], "--only") && more) {
            const char *const colon = strchr(argv[++i], ':');
            if (!colon || colon - argv[i] >= (int)sizeof c->only) return false;
            memcpy(c->only, argv[i], (size_t)(colon - argv[i]));
            c->number = strtoll(colon + 1, &end, 10);
            if (*end) return false;
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv) {
    struct campaign c = {.seed = 1};
    if (!read_arguments(&c, argc, argv)) {
        fprintf(stderr, "usage: campaign MINUTES [--seed N] [--dishonest] [--only NAME:NUMBER]\n");
        return 2;
    }
    if (c.only[0])
        run_only(&c);
    else
        run_all(&c);
    if (!c.trials) {
        fprintf(stderr,
                "campaign: nothing was tried; give more minutes, or a name of a trial that there is\n");
        return 2;
    }
    if (c.tests && !c.dishonest)
        printf("%lld statistical tests, the largest of attention and linear at %.2f of its threshold\n",
               (long long)c.tests, c.statistic);
    printf("%lld elements, %lld alarms\n", (long long)c.elements, (long long)c.alarms);
    return c.alarms > 0;
}

/* campaign - honest kernels, drawn at random, that no bound may call wrong. A trial is made of
 * numbers that follow from a seed, the name of what is tried, and its number alone. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CAMPAIGN_H
#define TESTS_CAMPAIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "reference/score.h"

enum { MAX_TRIAL_ARRAYS = 32 };

struct trial {
    uint64_t state; /* of the numbers it draws */
    bool dishonest; /* the kernel leaves something out */
    int64_t elements, alarms;
    int64_t tests;     /* statistical ones, */
    double statistic;  /* the largest of attention and linear, over its threshold */
    char made_of[640]; /* what was drawn, in words */
    char alarm[400];   /* the first */
    void *array[MAX_TRIAL_ARRAYS];
    int n_arrays;
};

struct trial trial_open(uint64_t seed, const char *name, int64_t number, bool dishonest);
void trial_close(struct trial *t);
void *trial_array(struct trial *t, int64_t n, size_t size); /* zeroed; gone with the trial */

int64_t trial_draw(struct trial *t, int64_t low, int64_t high); /* low and high included */
int64_t trial_size(struct trial *t, int64_t high);              /* 1 to high, as often small as large */
double trial_real(struct trial *t, double low, double high);
bool trial_flip(struct trial *t);
enum dtype trial_dtype(struct trial *t); /* a storage dtype */
enum dtype trial_half(struct trial *t);  /* one of 16 bits */
/* n values in [-scale, scale), rounded to d. */
float *trial_values(struct trial *t, int64_t n, enum dtype d, double scale);

/* What a kernel had before the storage rounding, against the reference. */
void trial_judge(struct trial *t, const struct call *call, const struct contract *contract, const float *got,
                 int output);
void trial_alarm(struct trial *t, const char *text);

/* ---- sums of products, as kernels add them up ---- */

enum order { IN_ORDER, REVERSED, SPLIT, INTERLEAVED, TENSOR_CORE, ORDERS };
struct adding {
    enum order order;
    int64_t parts;     /* pieces of SPLIT, lanes of INTERLEAVED */
    bool fma, flushes; /* subnormal results to zero */
};
struct adding adding_draw(struct trial *t, bool half); /* half: of operands that a tensor core takes */
struct accumulator adding_accumulator(const struct adding *a);
int64_t adding_depth(const struct adding *a, int64_t n); /* roundings on the longest path */
float adding_dot(const struct adding *a, const float *x, const float *y, int64_t n);
/* A tensor core's sum goes on over n more terms. */
float adding_go_on(float sum, const float *x, const float *y, int64_t n);
float flushed(float x); /* 0 where x is subnormal */
const char *adding_name(const struct adding *a);

/* ---- what is tried ---- */

struct emulation {
    const char *name;
    void (*run)(struct trial *t);
};
extern const struct emulation emulations[]; /* ended by {0} */
void emulate_attention(struct trial *t), emulate_route(struct trial *t);

/* A random case of random sizes, run through the real kernels; false: the command line has no such
 * case. */
bool case_trial(struct trial *t);

#endif

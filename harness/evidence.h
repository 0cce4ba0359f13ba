/* evidence - a sample of the wrong elements of one output of a rank's stage, and whether a guess at how
 * they came about fits them. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_EVIDENCE_H
#define HARNESS_EVIDENCE_H

#include "harness/answer.h"

/* Fewer wrong elements fit something by chance; of more a sample is taken. */
enum { FEWEST = 16, SAMPLES = 256 };

/* One wrong element, with its indices in the tensor that is searched (struct evidence). */
struct sample {
    int64_t index;        /* in the rank's own answer */
    int64_t at[MAX_AXES]; /* in what is searched */
    double got, y, e;
    bool poison; /* the bits that the buffer held before */
};

struct evidence {
    const struct placed *placed;
    const struct outcome *outcome;
    const struct answer *answer;
    const struct answer *search; /* the unsharded run's, or the same */
    int output;                  /* which one they are of */
    int n_axes;
    int64_t shape[MAX_AXES]; /* of what is searched */
    int n;
    struct sample sample[SAMPLES];
};

/* A value that an element might have instead of the right one, and how far an honest sum may be
 * from it. */
struct guess {
    double y, e;
};

/* What a relation has tried. */
struct candidate {
    double factor;
    int axis;
    int64_t index;
    const double *input; /* dense, as the answer */
};
typedef bool guess_fn(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                      struct guess *out);

/* Of the output with the most wrong elements; false: too few of them to say anything. `whole`: the
 * unsharded run's answer, where `answer` is a slice of it, else NULL. */
bool evidence_gather(struct evidence *ev, const struct placed *at, const struct outcome *o,
                     const struct answer *answer, const struct answer *whole);
enum tensor_id evidence_tensor(const struct evidence *ev);
/* More than nine in ten; and with the guesses shifted by half of the samples, and not by whole rows,
 * fewer than half. */
bool evidence_fits(const struct evidence *ev, guess_fn *guess, const struct candidate *c);

/* Element data[i] of a view; NaN outside its span. */
double evidence_load(const struct view *v, int64_t i);

#endif

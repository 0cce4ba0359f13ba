/* score - is a whole tensor off in one direction, although each element is inside its set?
 * With y the answer, s what was stored and dy the derivative of y by a known parameter theta (a gain,
 * the softmax scale, the weight of one key), c = omega dy, omega = 1 / sum y^2 of the row:
 *   T = sum c (s - round(y))    I = sum c dy    estimate = T / I
 *   wrong iff |T| > B + A + t sqrt(V)           resolution = (B + A + t sqrt(V)) / I
 * B: supremum of all errors that may have a sign. V: squares of what roundings to nearest may do. A:
 * means of such roundings, measured on the reference's own values. Rao's score test with Hoeffding's
 * threshold, no limit theorem; docs/numerics.md, section 10, derives all of it and says what a user
 * has to accept. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_SCORE_H
#define REFERENCE_SCORE_H

#include "reference/reference.h"

/* A false alarm in a whole run is less likely than this, as long as it makes no more tests than
 * that. A constant and no count of the run at hand: a case has the same verdict alone. */
#define SCORE_ALPHA 1e-12
#define SCORE_TESTS 0x1p40
#define SCORE_VACUOUS 0.1 /* a resolution above says nothing */

enum score_direction {
    SCORE_GAIN,     /* all values times 1 + theta */
    SCORE_OFFSET,   /* theta mean |y| added everywhere */
    SCORE_SCALE,    /* attention: scores times 1 + theta */
    SCORE_LAST_KEY, /* attention: weight of the last key that a query sees, times 1 + theta */
    SCORE_KEYS,     /* attention: weights of a block of keys of one kv head, times 1 + theta (theta added to
                       their scores); -1: not read */
    SCORE_DIRECTIONS
};
const char *score_direction_name(enum score_direction d);

/* Why a test is not made, or proves nothing. */
enum score_silence {
    SCORE_SPEAKS,
    SILENT_LATTICE, /* asked for by the caller: the inputs' fill is no spread of values */
    SILENT_FLUSHED, /* the contract loses subnormal results, all of them the same way */
    SILENT_NUMBERS, /* not all is finite */
    SILENT_CELLS,   /* stored values do not follow known shifts of y */
    SILENT_WEIGHTS, /* roundings of P have a mean */
    SILENT_PIECES,  /* the pieces of a split are rounded: one rounding in many keys' weights */
    SILENT_HALF_P,  /* P is rounded to fp16, where small weights lose all of their bits */
    SILENT_NOTHING, /* no direction, or exact values: bit for bit elsewhere */
    SCORE_SILENCES
};
const char *score_silence_reason(enum score_silence s);

/* One test. Which rows: all (head and keys -1), one head, or queries that see [keys, 2 keys) keys. */
struct score {
    enum score_direction direction;
    enum score_silence silence;
    int64_t head, keys;
    int64_t seq, kv_head, key, n_keys; /* SCORE_KEYS: those from `key` on */
    double ratio;                      /* |T| over the threshold; > 1: wrong */
    double estimate, resolution;       /* of theta */
    int64_t elements;
};

struct score_case {
    const struct call *call;
    const struct contract *contract;
    int output;         /* as in reference.h */
    enum dtype dtype;   /* of what was stored */
    const void *stored; /* dense, all rows of the call; y, e: the answer, likewise */
    const double *y, *e;
    bool lattice;      /* the fill puts values at few places of a cell: no test */
    bool random_signs; /* weights of a linear: independent random signs, drawn for this call alone */
};

enum score_state { SCORE_NONE, SCORE_SILENT, SCORE_VAGUE, SCORE_FINE, SCORE_WRONG };
struct score_report {
    enum score_state state;
    struct score gain, scale, worst; /* of all rows; of all rows (attention); largest ratio */
    int64_t tests, rows, of_rows;    /* made; rows that were looked at */
};
/* Same call, same bits of the report, whatever the thread count. */
void ref_score(const struct score_case *c, struct score_report *report);

#endif

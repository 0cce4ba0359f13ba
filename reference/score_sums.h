/* score_sums - what the files of the statistical test share: the sums of one test, which add up
 * over rows, and how the store answers a shift. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_SCORE_SUMS_H
#define REFERENCE_SCORE_SUMS_H

#include "reference/internal.h"
#include "reference/score.h"

/* Known shifts of y, in E, by pairs of opposite ones; running maxima under which P is rounded. */
enum { SCORE_SHIFTS = 6, SCORE_MAXIMA = 5 };

struct score_sums {
    double t, i, b;
    double c_square; /* sum c^2 */
    double v_store, v_p;
    double mean[SCORE_MAXIMA];  /* of P's roundings */
    double shift[SCORE_SHIFTS]; /* answers of the store to the shifts, less the shifts */
    double shifted;             /* sum |c| E */
    int64_t elements, open;     /* of them with more than one legal value */
};
void score_add(struct score_sums *into, const struct score_sums *from);

/* What the store makes of one element, in all directions. */
struct score_cell {
    double moved;               /* s - round(y) */
    double proxy;               /* square of what rounding may do (sub-Gaussian) */
    double shift[SCORE_SHIFTS]; /* round(y + shift E) - round(y) */
    double e;
};
struct score_cell score_cell(enum dtype d, double s, double y, double e);
/* The element's share of t, c_square, v_store, shift and shifted. */
void score_store(struct score_sums *sums, double c, const struct score_cell *cell);

/* How often the most frequent of the values occurs; 1 where there are none. Zeros do not count. */
int64_t score_multiplicity(const double *values, int64_t n);

/* Fills ratio, estimate, resolution, elements, silence. store_times, p_times: how many elements,
 * weights share one rounding. */
void score_conclude(struct score *s, const struct score_sums *sums, double store_times, double p_times);
void score_report_add(struct score_report *report, const struct score *s);

double score_log_tests(void); /* ln (2 SCORE_TESTS / SCORE_ALPHA) */

/* Of the rows of a call, those that are looked at: about `most`, spread, every row where there are
 * no more. */
bool score_samples(int64_t row, int64_t rows, int64_t most);

/* score_attention.c, score_linear.c */
void score_attention(const struct score_case *c, struct score_report *report);
/* B <= this * sqrt(sum c^2) for the rounding errors of a linear whose weights have random signs, over
 * the rows picked [rows]; INFINITY where nothing follows. */
double score_linear_node(const struct score_case *c, const bool *picked);

#endif

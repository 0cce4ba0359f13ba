/* dot - the dot products under attention: a few columns of weights with the lanes of a tile, each output one
 * sequential sum in double, its prefixes' range and its sum of magnitudes beside it. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

static inline __attribute__((always_inline)) void dot_steps(struct dot_sums *sums, const double *w,
                                                            int64_t w_stride, const int n_columns,
                                                            const lanes *x, int64_t n, const int want) {
    struct dot_sums s[COLUMNS];
    for (int c = 0; c < n_columns; c++) s[c] = sums[c];
    for (int64_t k = 0; k < n; k++)
        for (int c = 0; c < n_columns; c++) {
            const lanes term = w[c * w_stride + k] * x[k];
            s[c].y += term;
            if (want & WANT_SPAN) {
                s[c].low = lanes_min(s[c].y, s[c].low);
                s[c].high = lanes_max(s[c].y, s[c].high);
            }
            if (want & WANT_SIZE) s[c].s1 += lanes_abs(term);
        }
    for (int c = 0; c < n_columns; c++) sums[c] = s[c];
}

void dot_continue(struct dot_sums *sums, const double *w, int64_t w_stride, int n_columns, const lanes *x,
                  int64_t n, int want) {
    if (n_columns < COLUMNS)
        for (int c = 0; c < n_columns; c++)
            dot_steps(sums + c, w + c * w_stride, w_stride, 1, x, n, WANT_SPAN | WANT_SIZE);
    else if (want == (WANT_SPAN | WANT_SIZE))
        for (int c = 0; c < COLUMNS; c += 2) /* as many sums as there are registers */
            dot_steps(sums + c, w + c * w_stride, w_stride, 2, x, n, WANT_SPAN | WANT_SIZE);
    else if (want == WANT_SPAN)
        dot_steps(sums, w, w_stride, COLUMNS, x, n, WANT_SPAN);
    else if (want == WANT_SIZE)
        dot_steps(sums, w, w_stride, COLUMNS, x, n, WANT_SIZE);
    else
        dot_steps(sums, w, w_stride, COLUMNS, x, n, 0);
}

void dot_in_slices(struct dot_sums *sums, lanes *spans, const double *w, int64_t w_stride, int n_columns,
                   const lanes *x, int64_t n, int64_t slice, int want) {
    if (!slice) slice = n;
    for (int64_t k = 0; k < n; k += slice) {
        struct dot_sums part[COLUMNS];
        for (int c = 0; c < n_columns; c++)
            part[c] = (struct dot_sums){sums[c].y, sums[c].y, sums[c].y, sums[c].s1};
        dot_continue(part, w + k, w_stride, n_columns, x + k, min_i64(slice, n - k), want);
        for (int c = 0; c < n_columns; c++) {
            spans[c] += part[c].high - part[c].low;
            part[c].low = lanes_min(part[c].low, sums[c].low);
            part[c].high = lanes_max(part[c].high, sums[c].high);
            sums[c] = part[c];
        }
    }
}

/* experts - rows sorted by expert and back: permute, the rows of the SwiGLU activation between the
 * expert products, combine. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- permute: slots (token, choice) sorted by expert ---- */

/* The order of one expert's rows, `order` [n], is its own affair: the call's stored one holds where
 * it is one at all, each of the expert's slots once; else `order`, stable, stays. `taken` [T*K] is
 * false for the expert's slots before and after. */
static void follow_stored_order(const struct permute_args *a, int32_t *order, int64_t first, int64_t n,
                                const int64_t *expert, int64_t which, bool *taken) {
    int64_t legal = 0;
    while (legal < n) {
        const int64_t slot = view_index(&a->row_slot, first + legal);
        if (slot < 0 || slot >= a->n_tokens * a->top_k || expert[slot] != which || taken[slot]) break;
        taken[slot] = true, legal++;
    }
    for (int64_t i = 0; i < legal; i++) {
        const int64_t slot = view_index(&a->row_slot, first + i);
        taken[slot] = false;
        if (legal == n) order[i] = (int32_t)slot;
    }
}

int64_t ref_permute(const struct call *call, int32_t *offsets, int32_t *row_slot, int32_t *slot_row) {
    const struct permute_args *a = &call->u.permute;
    const int64_t n_slots = a->n_tokens * a->top_k, count = a->expert_count;
    int64_t *expert = ref_alloc((size_t)n_slots * sizeof *expert); /* local expert of each slot, or -1 */
    int64_t *next = ref_alloc((size_t)(count + 1) * sizeof *next); /* next free row of each expert */
    int32_t *order = ref_alloc((size_t)n_slots * sizeof *order);   /* slot of each row */
    bool *taken = ref_alloc((size_t)n_slots * sizeof *taken);

    memset(taken, 0, (size_t)n_slots * sizeof *taken);
    memset(next, 0, (size_t)(count + 1) * sizeof *next);
    for (int64_t s = 0; s < n_slots; s++) {
        const int64_t id =
            view_index(&a->ids, s / a->top_k * a->ids.stride[0] + s % a->top_k) - a->expert_first;
        expert[s] = id >= 0 && id < count ? id : -1;
        if (expert[s] >= 0) next[expert[s] + 1]++;
    }
    for (int64_t e = 0; e < count; e++) next[e + 1] += next[e];
    const int64_t n = next[count];
    for (int64_t e = 0; e <= count && offsets; e++) offsets[e] = (int32_t)next[e];
    for (int64_t s = 0; s < n_slots; s++)
        if (expert[s] >= 0) order[next[expert[s]]++] = (int32_t)s;
    for (int64_t e = 0; e < count && a->row_slot.data; e++) { /* next[e] is where expert e ends */
        const int64_t first = e ? next[e - 1] : 0;
        follow_stored_order(a, order + first, first, next[e] - first, expert, e, taken);
    }
    for (int64_t s = 0; s < n_slots && slot_row; s++) slot_row[s] = -1;
    for (int64_t r = 0; r < n; r++) {
        if (slot_row) slot_row[order[r]] = (int32_t)r;
        if (row_slot) row_slot[r] = order[r];
    }
    free(expert), free(next), free(order), free(taken);
    return n;
}

/* Copies of x in the order of the call's ids; rows beyond the routed ones are NaN. */
void ref_permute_rows(const struct call *call, const struct contract *contract, const double *const *radius,
                      int64_t row0, int64_t row1, const struct ref_out *out) {
    (void)contract;
    const struct permute_args *a = &call->u.permute;
    int32_t *row_slot = ref_alloc((size_t)(a->n_tokens * a->top_k) * sizeof *row_slot);
    const int64_t n = ref_permute(call, NULL, row_slot, NULL);
#pragma omp parallel
    {
        double *x = ref_alloc((size_t)a->width * 2 * sizeof *x), *rx = x + a->width;
        memset(rx, 0, (size_t)a->width * sizeof *rx);
#pragma omp for
        for (int64_t r = row0; r < row1; r++) {
            const int64_t from = r < n ? row_slot[r] / a->top_k * a->x.stride[0] : 0;
            for (int64_t c = 0; c < a->width; c++) x[c] = (double)NAN;
            if (r < n) view_row(x, &a->x, from, a->width);
            if (r < n && radius) radius_row(rx, radius, 0, &a->x, from, a->width);
            for (int64_t c = 0; c < a->width; c++)
                put(out, (r - row0) * a->width + c, x[c], r < n ? rx[c] : 0, fabs(x[c]));
        }
        free(x);
    }
    free(row_slot);
}

/* ---- activation ---- */

void ref_activation(const struct call *call, const struct contract *contract, const double *const *radius,
                    int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct activation_args *a = &call->u.activation;
#pragma omp parallel
    {
        double *gate = ref_alloc((size_t)a->width * 4 * sizeof *gate), *up = gate + a->width;
        double *rg = up + a->width, *ru = rg + a->width;
#pragma omp for
        for (int64_t r = row0; r < row1; r++) {
            view_row(gate, &a->gate_up, r * a->gate_up.stride[0], a->width);
            view_row(up, &a->gate_up, r * a->gate_up.stride[0] + a->gate_up.stride[1], a->width);
            radius_row(rg, radius, 0, &a->gate_up, r * a->gate_up.stride[0], a->width);
            radius_row(ru, radius, 0, &a->gate_up, r * a->gate_up.stride[0] + a->gate_up.stride[1], a->width);
            for (int64_t c = 0; c < a->width; c++) {
                const struct fuzzy g = {gate[c], rg[c]}, u = {up[c], ru[c]};
                const struct fuzzy y = gated_value(&contract->u.activation, g, u);
                const double lost = y.value != 0 ? flushed(contract, 1 + fabs(up[c]) + ru[c]) : 0;
                put(out, (r - row0) * a->width + c, y.value, y.radius + lost, fabs(y.value));
            }
        }
        free(gate);
    }
}

/* ---- combine ---- */

/* The gates lack a factor that multiplies their rounded sum: z = y / scale goes through R first. */
static struct fuzzy scaled_after(const struct combine_contract *c, struct fuzzy y) {
    const double unit = c->unit + UNIT_F64;
    if (c->unscaled == DTYPE_F64) return y;
    const struct fuzzy z = {y.value / c->scale,
                            y.radius / fabs(c->scale) + 2 * unit * fabs(y.value / c->scale)};
    return product(image(z, c->unscaled), known(c->scale), c->unit);
}

/* The choices of a token by rising row, which is by rising expert; returns how many are at home. */
static int64_t rising_rows(const struct combine_args *a, int64_t t, int64_t *choice, double *slot) {
    int64_t n = 0;
    for (int64_t j = 0; j < a->top_k; j++) {
        const double row = view_at(&a->slot_row, t * a->slot_row.stride[0] + j);
        if (row < 0) continue;
        int64_t at = n++;
        for (; at > 0 && slot[at - 1] > row; at--) choice[at] = choice[at - 1], slot[at] = slot[at - 1];
        choice[at] = j, slot[at] = row;
    }
    return n;
}

/* Products and, one by one, sums are rounded where the contract says so. down [width] rows, then radii. */
static void combine_rounded(const struct combine_args *a, const struct combine_contract *c,
                            const double *const *radius, int64_t t, const struct ref_out *out, int64_t at) {
    double *const down = ref_alloc((size_t)a->width * 3 * sizeof *down), *const rd = down + a->width;
    double *const s1 = rd + a->width, *const slot = ref_alloc((size_t)a->top_k * sizeof *slot);
    int64_t *const choice = ref_alloc((size_t)a->top_k * sizeof *choice);
    struct running *const sum = ref_alloc((size_t)a->width * sizeof *sum);
    const int64_t n = rising_rows(a, t, choice, slot);
    running_clear(sum, a->width);
    memset(s1, 0, (size_t)a->width * sizeof *s1);
    for (int64_t j = 0; j < n; j++) {
        const int64_t gate_at = t * a->gates.stride[0] + choice[j];
        struct fuzzy gate = {slot[j] < (double)a->n_rows ? view_at(&a->gates, gate_at) : (double)NAN, 0};
        const int64_t row = (isnan(gate.value) ? 0 : (int64_t)slot[j]) * a->down.stride[0];
        radius_row(&gate.radius, radius, 2, &a->gates, gate_at, 1);
        view_row(down, &a->down, row, a->width);
        radius_row(rd, radius, 0, &a->down, row, a->width);
        for (int64_t i = 0; i < a->width; i++) {
            const struct fuzzy p = image(product((struct fuzzy){down[i], rd[i]}, gate, c->unit), c->products);
            s1[i] += fabs(p.value);
            running_add(&sum[i], p.value, p.radius);
            if (c->sums == DTYPE_F64) continue;
            const struct fuzzy both = image(running_end(&sum[i], j ? 2 : 1, c->unit), c->sums);
            running_clear(&sum[i], 1);
            running_add(&sum[i], both.value, both.radius);
        }
    }
    for (int64_t i = 0; i < a->width; i++) {
        const struct fuzzy y = running_end(&sum[i], c->sums == DTYPE_F64 ? n : 1, c->unit);
        put(out, at + i, y.value, y.radius, s1[i]);
    }
    free(down), free(slot), free(choice), free(sum);
}

/* y = sum over the local choices of gate * row: K products and K additions, in any order, with
 * slack for a scale. */
void ref_combine(const struct call *call, const struct contract *contract, const double *const *radius,
                 int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct combine_args *a = &call->u.combine;
    const struct combine_contract *c = &contract->u.combine;
    const double relative = (double)(a->top_k + 3) * (c->unit + UNIT_F64) + c->gate_error;
    const double operations = (double)(2 * a->top_k);
    const double tiny = operations * underflow_unit(c->unit) + flushed(contract, operations);
#pragma omp parallel
    {
        double *down = ref_alloc((size_t)a->width * 6 * sizeof *down);
        double *y = down + a->width, *s1 = y + a->width, *moved = s1 + a->width, *rd = moved + a->width;
        double *grid = rd + a->width;
#pragma omp for
        for (int64_t t = row0; t < row1; t++) {
            if (c->products != DTYPE_F64 || c->sums != DTYPE_F64) {
                combine_rounded(a, c, radius, t, out, (t - row0) * a->width);
                continue;
            }
            memset(y, 0, (size_t)a->width * 3 * sizeof *y);
            for (int64_t i = 0; i < a->width; i++) grid[i] = INFINITY;
            for (int64_t j = 0; j < a->top_k; j++) {
                const double slot = view_at(&a->slot_row, t * a->slot_row.stride[0] + j);
                if (slot < 0) continue;
                const double gate =
                    slot < (double)a->n_rows ? view_at(&a->gates, t * a->gates.stride[0] + j) : (double)NAN;
                const int64_t row = (isnan(gate) ? 0 : (int64_t)slot) * a->down.stride[0];
                const double gate_grid = value_grid(gate);
                view_row(down, &a->down, row, a->width);
                for (int64_t i = 0; i < a->width; i++) {
                    y[i] += gate * down[i];
                    s1[i] += fabs(gate * down[i]);
                }
                for (int64_t i = 0; i < a->width && out->e; i++)
                    grid[i] = min_f64(gate_grid * value_grid(down[i]), grid[i]);
                if (!radius) continue;
                double rg; /* |g' d' - g d| <= |g| r_d + (|d| + r_d) r_g */
                radius_row(&rg, radius, 2, &a->gates, t * a->gates.stride[0] + j, 1);
                radius_row(rd, radius, 0, &a->down, row, a->width);
                for (int64_t i = 0; i < a->width; i++)
                    moved[i] += fabs(gate) * rd[i] + (fabs(down[i]) + rd[i]) * rg;
            }
            for (int64_t i = 0; i < a->width; i++) {
                const bool exact = !contract->flushes && c->gate_error == 0 && moved[i] == 0 &&
                                   grid[i] >= addition_grid(c->unit, s1[i]);
                const double e = relative * (s1[i] + moved[i]) + moved[i] + (s1[i] > 0 ? tiny : 0);
                const struct fuzzy sum = scaled_after(c, (struct fuzzy){y[i], exact ? 0 : e});
                put(out, (t - row0) * a->width + i, sum.value, sum.radius, s1[i]);
            }
        }
        free(down);
    }
}

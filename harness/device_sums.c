/* How does a device come to add up the reference's products? What a call reads is packed as it is stored,
 * rows and weights without gaps, so that the kernel knows neither strides nor spans. */
/* SPDX-License-Identifier: MIT */
#include "harness/device_sums.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/reference/linear_sums.h"

/* Below, the CPU is done sooner (packing and copies), with few rows a group always. */
#define LEAST_WORK 1e8
#define LEAST_ROWS 8

/* n elements, NaN outside the view's span. */
static void pack_line(char *to, const struct view *v, int64_t first, int64_t n) {
    const size_t size = dtype_bytes(v->dtype);
    const int64_t begin = first > v->lo ? first : v->lo, end = first + n < v->hi ? first + n : v->hi;
    if (!v->data || begin != first || end != first + n) dtype_poison(to, v->dtype, n);
    if (v->data && begin < end)
        memcpy(to + (size_t)(begin - first) * size, (const char *)v->data + begin * (int64_t)size,
               (size_t)(end - begin) * size);
}

static void pack_row(char *to, const struct ref_sums *s, const struct ref_run *run, int64_t r) {
    const struct view *const x = &s->args->x;
    pack_line(to, x, (run->first + r) * x->stride[0], s->args->n_inner);
}

static void pack_column(char *to, const struct ref_sums *s, const struct ref_run *run, int64_t j) {
    const struct view *const w = &s->args->w;
    const int64_t column = ref_column(s, run, j);
    if (column < s->args->n_cols)
        pack_line(to, w, run->group * w->stride[0] + column * w->stride[1], s->args->n_inner);
    else
        memset(to, 0, (size_t)s->args->n_inner * dtype_bytes(w->dtype));
}

/* One team for all runs: starting one costs more than what a run's lines do. */
static void pack(char *x, char *w, const struct ref_sums *s) {
    const size_t row = (size_t)s->args->n_inner * dtype_bytes(s->args->x.dtype),
                 column = (size_t)s->args->n_inner * dtype_bytes(s->args->w.dtype);
#pragma omp parallel
    for (int64_t i = 0, at = 0; i < s->n_runs; at += s->run[i++].n) {
        const struct ref_run *const run = &s->run[i];
#pragma omp for schedule(static) nowait
        for (int64_t r = 0; r < run->n; r++) pack_row(x + (size_t)(at + r) * row, s, run, r);
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < s->n_cols; j++)
            pack_column(w + (size_t)(i * s->n_cols + j) * column, s, run, j);
    }
}

static int64_t count_tiles(const struct ref_sums *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->n_runs; i++) n += (s->run[i].n + SUMS_TILE_ROWS - 1) / SUMS_TILE_ROWS;
    return n;
}

static void lay_tiles(struct sums_tile *tile, const struct ref_sums *s) {
    int64_t before = 0;
    for (int64_t i = 0; i < s->n_runs; before += s->run[i++].n)
        for (int64_t r = 0; r < s->run[i].n; r += SUMS_TILE_ROWS) {
            const int64_t left = s->run[i].n - r, n = left < SUMS_TILE_ROWS ? left : SUMS_TILE_ROWS;
            *tile++ = (struct sums_tile){(int32_t)i, (int32_t)(before + r), (int32_t)n};
        }
}

/* What stands in `grids`, one behind the other. */
struct grids {
    int64_t bias, row_grid, need, count;
};

static struct grids grids_of(const struct ref_sums *s) {
    const int64_t n_cols = s->finish ? s->n_cols : 0, n_rows = s->finish ? s->n_rows : 0;
    return (struct grids){0, n_cols, n_cols + n_rows, n_cols + n_rows + s->n_runs * n_cols};
}

static void lay_grids(double *to, const struct ref_sums *s) {
    const struct grids g = grids_of(s);
    if (!s->finish) return;
    memcpy(to + g.bias, s->finish->bias, (size_t)s->n_cols * sizeof *to);
    if (s->finish->row_grid) memcpy(to + g.row_grid, s->finish->row_grid, (size_t)s->n_rows * sizeof *to);
    for (int64_t i = g.need; i < g.count; i++) to[i] = INFINITY;
}

/* Arrays of the answer: y; span or e; s1. */
static int n_arrays(const struct ref_sums *s) {
    if (s->order) return 1;
    return s->finish && !s->finish->sizes ? 2 : 3;
}

static struct status reserve(struct device_sums *d, const struct ref_sums *s) {
    const struct linear_args *const a = s->args;
    const size_t x = (size_t)(s->n_rows * a->n_inner) * dtype_bytes(a->x.dtype);
    const size_t w = (size_t)(s->n_runs * s->n_cols * a->n_inner) * dtype_bytes(a->w.dtype);
    TRY(device_reuse(d->device, "x of the reference", x, 0, false, &d->x));
    TRY(device_reuse(d->device, "w of the reference", w, 0, false, &d->w));
    TRY(device_reuse(d->device, "tiles of the reference", (size_t)count_tiles(s) * sizeof(struct sums_tile),
                     0, false, &d->tile));
    TRY(device_reuse(d->device, "grids of the reference", (size_t)grids_of(s).count * sizeof(double), 0,
                     false, &d->grids));
    return device_reuse(d->device, "sums of the reference",
                        (size_t)(s->n_rows * s->n_cols * n_arrays(s)) * sizeof(double), 0, false, &d->out);
}

static struct status send(struct device_sums *d, const struct ref_sums *s) {
    pack(d->x.host, d->w.host, s);
    lay_tiles(d->tile.host, s);
    TRY(device_push(d->device, &d->x));
    TRY(device_push(d->device, &d->w));
    lay_grids(d->grids.host, s);
    TRY(device_push(d->device, &d->grids));
    return device_push(d->device, &d->tile);
}

/* Queued; or why it was refused. */
static const char *launch(struct device_sums *d, const struct ref_sums *s) {
    double *const out = d->out.data, *const grids = d->grids.data;
    const int64_t n = s->n_rows * s->n_cols;
    const struct grids g = grids_of(s);
    struct sums_args args = {.x = d->x.data,
                             .w = d->w.data,
                             .x_dtype = s->args->x.dtype,
                             .w_dtype = s->args->w.dtype,
                             .tile = d->tile.data,
                             .y = out,
                             .span = s->order ? NULL : out + n,
                             .s1 = n_arrays(s) == 3 ? out + 2 * n : NULL,
                             .n_tiles = count_tiles(s),
                             .n_cols = s->n_cols,
                             .n_inner = s->args->n_inner,
                             .slice = s->slice,
                             .block = s->order ? s->order->block : 0,
                             .fraction = s->order ? s->order->fraction : 0,
                             .keep = s->order ? s->order->keep : 0};
    if (s->finish) {
        args.bounds = s->finish->bounds;
        args.e = args.span;
        args.bias = grids + g.bias;
        args.row_grid = s->finish->row_grid ? grids + g.row_grid : NULL;
        args.need = grids + g.need;
    }
    sums_fn *const *const by = s->order ? replay_launch : sums_launch;
    return by[device_kind_of(d->device)](&args, device_stream(d->device));
}

static struct status fetch(struct device_sums *d) {
    TRY(device_sync(d->device));
    TRY(device_pull(d->device, &d->grids));
    return device_pull(d->device, &d->out);
}

static bool is_float(enum dtype d) { return d == DTYPE_F64 || dtype_is_storage(d); }

/* What there is no room or no kernel for is the CPU's to do; a device that fails is not asked again. */
static bool sum(struct ref_summer *summer, struct ref_sums *s) {
    struct device_sums *const d = (struct device_sums *)summer;
    const int64_t n = s->n_rows * s->n_cols;
    const bool known = is_float(s->args->x.dtype) && is_float(s->args->w.dtype) && s->n_rows <= INT32_MAX;
    struct status room = known ? reserve(d, s) : status_error("no kernel for these operands"), ran = room;
    if (!room.code) ran = send(d, s);
    const char *const refused = ran.code ? NULL : launch(d, s);
    if (refused) room = status_error("%s", refused);
    if (room.code) {
        snprintf(summer->why, sizeof summer->why, "%.199s", room.message);
        return false;
    }
    if (!ran.code) ran = fetch(d);
    if (ran.code)
        snprintf(summer->wrong, sizeof summer->wrong, "the device's reference: %.480s", ran.message);
    const double *const out = d->out.host;
    s->y = out;
    s->span = s->order || s->finish ? NULL : out + n;
    s->s1 = n_arrays(s) == 3 ? out + 2 * n : NULL;
    s->e = s->finish ? out + n : NULL;
    s->need = (const double *)d->grids.host + grids_of(s).need;
    return !ran.code;
}

/* ---- for the run ---- */

const char *sums_place_name(enum sums_place place) {
    static const char *const names[SUMS_PLACES] = {"auto", "cpu", "device"};
    return names[place];
}

void device_sums_open(struct device_sums *sums, struct device *device, enum sums_place place) {
    const bool all = place == SUMS_DEVICE;
    *sums = (struct device_sums){.device = device};
    if (place == SUMS_CPU || (place == SUMS_AUTO && device_kind_of(device) != DEVICE_CUDA)) return;
    sums->summer = (struct ref_summer){
        .sum = sum, .least_work = all ? 0 : LEAST_WORK, .least_rows = all ? 0 : LEAST_ROWS};
    ref_use_summer(&sums->summer);
}

struct status device_sums_status(void) {
    const struct ref_summer *const s = ref_summer();
    if (!s || !s->wrong[0]) return status_ok();
    return status_error("%.440s; use --reference cpu", s->wrong);
}

void device_sums_describe(const struct ref_summer *before, char *text, size_t size) {
    const struct ref_summer *const s = ref_summer();
    const int64_t rows = s ? s->rows - before->rows : 0;
    *text = 0;
    if (rows)
        snprintf(text, size, "sums of %lld rows on the device, %lld recomputed%s%s", (long long)rows,
                 (long long)(s->recomputed - before->recomputed), s->why[0] ? "; others on the CPU: " : "",
                 s->why);
    else if (s && s->why[0])
        snprintf(text, size, "sums on the CPU: %s", s->why);
}

void device_sums_close(struct device_sums *sums) {
    if (ref_summer() == &sums->summer) ref_use_summer(NULL);
    device_free(sums->device, &sums->x);
    device_free(sums->device, &sums->w);
    device_free(sums->device, &sums->tile);
    device_free(sums->device, &sums->grids);
    device_free(sums->device, &sums->out);
}

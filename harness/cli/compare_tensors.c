/* Do two files of named tensors, of whatever formats, hold the same numbers? */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/tensor_file.h"
#include "harness/cli/compare_dumps.h"

struct difference difference_of(const double *a, const double *b, int64_t n) {
    struct difference d = {.n = n, .first = -1};
    for (int64_t i = 0; i < n; i++) {
        if (!memcmp(&a[i], &b[i], sizeof *a) || (isnan(a[i]) && isnan(b[i]))) continue;
        if (!d.n_other++) d.first = i;
        const double distance = fabs(a[i] - b[i]);
        if (!(distance <= d.largest)) d.largest = distance;
    }
    return d;
}

struct tally {
    int same, other, gone, fresh, silent; /* silent: no numbers */
};

/* To be freed. */
static struct status read_all(struct tensor_file *file, const struct named_tensor *t, double **values) {
    *values = malloc(((size_t)t->count + 1) * sizeof **values);
    if (*values) return tensor_read(file, t, 0, t->count, *values);
    return status_error("%.160s: tensor \"%.120s\": out of memory; free some", tensor_file_path(file),
                        t->name);
}

static struct status compare_values(FILE *file, struct tensor_file *a, const struct named_tensor *in_a,
                                    struct tensor_file *b, const struct named_tensor *in_b,
                                    struct tally *tally) {
    double *x = NULL, *y = NULL;
    struct status s = read_all(a, in_a, &x);
    if (!s.code) s = read_all(b, in_b, &y);
    if (!s.code) {
        const struct difference d = difference_of(x, y, in_a->count);
        tally->same += !d.n_other;
        tally->other += d.n_other > 0;
        if (d.n_other)
            fprintf(file,
                    "OTHER  %s: %lld of %lld elements, the first is number %lld: %.9g | %.9g, largest "
                    "difference %.3g\n",
                    in_a->name, (long long)d.n_other, (long long)d.n, (long long)d.first, x[d.first],
                    y[d.first], d.largest);
    }
    free(x);
    free(y);
    return s;
}

static struct status compare_one(FILE *file, struct tensor_file *a, const struct named_tensor *in_a,
                                 struct tensor_file *b, const struct named_tensor *in_b,
                                 struct tally *tally) {
    char shape[200], other[200];
    tensor_shape_text(shape, sizeof shape, in_a->dim, in_a->n_dims);
    tensor_shape_text(other, sizeof other, in_b->dim, in_b->n_dims);
    if (in_a->element == ELEMENT_OTHER || in_b->element == ELEMENT_OTHER) {
        tally->silent++;
        fprintf(file, "?      %s: holds %s, no numbers that are read; not compared\n", in_a->name,
                in_a->element == ELEMENT_OTHER ? in_a->type : in_b->type);
        return status_ok();
    }
    if (!strcmp(shape, other)) return compare_values(file, a, in_a, b, in_b, tally);
    tally->other++;
    fprintf(file, "OTHER  %s: shape %s | %s\n", in_a->name, shape, other);
    return status_ok();
}

static int print_missing(FILE *file, const char *word, const struct tensor_file *in,
                         const struct tensor_file *from) {
    int n = 0;
    for (int i = 0; i < tensor_file_count(in); i++) {
        const char *const name = tensor_file_at(in, i)->name;
        if (tensor_file_find(from, name)) continue;
        fprintf(file, "%-6s %s\n", word, name);
        n++;
    }
    return n;
}

static struct status compare_opened(FILE *file, struct tensor_file *a, struct tensor_file *b,
                                    enum exit_code *code) {
    struct tally t = {0};
    for (int i = 0; i < tensor_file_count(a); i++) {
        const struct named_tensor *const in_a = tensor_file_at(a, i), *const in_b =
                                                                          tensor_file_find(b, in_a->name);
        if (in_b) TRY(compare_one(file, a, in_a, b, in_b, &t));
    }
    t.gone = print_missing(file, "GONE", a, b);
    t.fresh = print_missing(file, "NEW", b, a);
    if (!t.other && !t.gone && !t.fresh && !t.silent && t.same)
        fprintf(file, "identical: %d tensors, bit for bit\n", t.same);
    else
        fprintf(file,
                "%d tensors are the same bit for bit, %d other, %d gone, %d new, %d not compared; without a "
                "config_json nothing says which bits may differ\n",
                t.same, t.other, t.gone, t.fresh, t.silent);
    *code = t.other || t.gone ? EXIT_DEFECT : t.silent || !t.same ? EXIT_TROUBLE : EXIT_PASSED;
    return status_ok();
}

struct status compare_tensors(FILE *file, const char *path_a, const char *path_b, enum exit_code *code) {
    struct tensor_file *a = NULL, *b = NULL;
    struct status s = tensor_file_open(path_a, &a);
    if (!s.code) s = tensor_file_open(path_b, &b);
    if (!s.code) s = compare_opened(file, a, b, code);
    tensor_file_close(a);
    tensor_file_close(b);
    return s;
}

/* The command `bench`: how fast are the kernels that are right? */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench.h"
#include "harness/cli/commands.h"

/* ---- options ---- */

static struct status apply_cache(struct parse *parse, const struct option_row *row, const char *value) {
    const bool cold = !strcmp(value, "cold"), warm = !strcmp(value, "warm");
    if (!cold && !warm && strcmp(value, "both") != 0)
        return status_error("--%s %.60s: use cold, warm or both", row->name, value);
    parse->out->bench.without[BENCH_COLD] = warm;
    parse->out->bench.without[BENCH_WARM] = cold;
    return status_ok();
}

static void cache_values(struct choices *choices) {
    for (int cache = 0; cache < BENCH_CACHES; cache++)
        choices_add(choices, "%s", bench_cache_name((enum bench_cache)cache));
    choices_add(choices, "both");
}

static struct status apply_rounds(struct parse *parse, const struct option_row *row, const char *value) {
    char *end;
    const long rounds = strtol(value, &end, 10);
    if (*end || end == value || rounds < 1 || rounds > 1000)
        return status_error("--%s %.60s: use a number from 1 to 1000", row->name, value);
    parse->out->bench.rounds = (int)rounds;
    return status_ok();
}

const struct option_row bench_options[] = {
    {"device", 0, 0, "NAME", -1, apply_device, "default host", device_values},
    {"cache", 0, 0, "WHICH", -1, apply_cache, "", cache_values},
    {"rounds", 0, 0, "N", -1, apply_rounds, "of all who do a shape; 10", NULL},
    {0},
};

void bench_words(struct choices *choices) {
    for (int f = 0; f < BENCH_FAMILIES; f++)
        choices_add(choices, "%s", bench_family_name((enum bench_family)f));
    for (const struct kernel *k = kernel_table; k->name; k++) choices_add(choices, "%s", k->name);
}

void bench_explain(FILE *file) {
    char sizes[200];
    fputs(
        "Attention and expert products of real sizes. Each kernel that takes a shape runs once and is judged "
        "by the\nreference, on rows that it prints the number of; one that is wrong is listed, not timed, "
        "and "
        "exit status 1.\nThe others are timed launch by launch, in rounds that go around all of them: cold, "
        "with the cache emptied\nbefore every launch, and warm. Shown are the median, the quartiles around "
        "it "
        "and the number of launches;\nthe share of what the machine can do, by copying memory or by its "
        "library's dense product, whichever the\nshape is bound to; and how many times as long the fastest "
        "peer takes.\n\nSHAPE is a family, of which it takes the default shapes, or FAMILY:key=value,...\n",
        file);
    for (int f = 0; f < BENCH_FAMILIES; f++) {
        bench_family_describe((enum bench_family)f, sizes, sizeof sizes);
        fprintf(file, "  %-8s %s\n", bench_family_name((enum bench_family)f), sizes);
    }
}

/* ---- words ---- */

static struct status add_shape(struct options *o, const struct bench_shape *shape) {
    if (o->n_bench_shapes == MAX_BENCH_SHAPES)
        return status_error("bench: more than %d shapes; use several runs", MAX_BENCH_SHAPES);
    o->bench_shape[o->n_bench_shapes++] = *shape;
    return status_ok();
}

static struct status add_defaults(struct options *o, const char *family) {
    struct bench_shape shape;
    for (int i = 0; bench_shape_default(o->device, i, &shape); i++)
        if (!family || !strcmp(family, bench_family_name(shape.family))) TRY(add_shape(o, &shape));
    if (family && !strcmp(family, "dense")) {
        shape = bench_dense_gauge(o->device);
        TRY(add_shape(o, &shape));
    }
    return status_ok();
}

static struct status add_word(struct options *o, const char *word) {
    struct bench_shape shape;
    const struct kernel *const kernel = kernel_by_name(word);
    if (kernel && o->bench.n_wanted == MAX_BENCH_KERNELS)
        return status_error("bench: more than %d kernels; use several runs", MAX_BENCH_KERNELS);
    if (kernel) {
        o->bench_kernel[o->bench.n_wanted++] = kernel;
        return status_ok();
    }
    for (int f = 0; f < BENCH_FAMILIES; f++)
        if (!strcmp(word, bench_family_name((enum bench_family)f))) return add_defaults(o, word);
    TRY(bench_shape_parse(word, &shape));
    return add_shape(o, &shape);
}

struct status bench_parse(struct parse *parse) {
    struct options *const o = parse->out;
    for (int i = 0; i < parse->request.n_subjects; i++) TRY(add_word(o, parse->request.subject[i]));
    if (!o->n_bench_shapes) TRY(add_defaults(o, NULL));
    o->bench.device = o->device;
    return status_ok();
}

/* ---- the run ---- */

static void show(void *context, const struct bench_result *result, int64_t first) {
    (void)context;
    if (!first)
        bench_text_head(stdout, result);
    else
        bench_text_shape(stdout, result, first);
    fflush(stdout);
}

static bool any_wrong(const struct bench_result *result) {
    for (int64_t i = 0; i < result->n_rows; i++)
        if (result->row[i].state == BENCH_WRONG) return true;
    return false;
}

struct status bench_command(const struct options *o, enum exit_code *code) {
    struct bench_request request = o->bench;
    struct bench_result result;
    request.shape = o->bench_shape;
    request.n_shapes = o->n_bench_shapes;
    request.wanted = o->bench_kernel;
    request.done = show;
    const struct status s = bench_run(&request, &result);
    snprintf(result.command, sizeof result.command, "%s", o->typed);
    if (!s.code) bench_text_end(stdout, &result);
    if (!s.code && any_wrong(&result)) *code = EXIT_DEFECT;
    bench_result_free(&result);
    return s;
}

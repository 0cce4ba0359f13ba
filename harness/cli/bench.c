/* The command `bench`: how fast are the kernels that are right? */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench.h"
#include "harness/cli/commands.h"
#include "harness/cli/outputs.h"
#include "harness/cli/report_file.h"
#include "harness/cli/signals.h"
#include "reports/bench_compare.h"

enum { MAX_ROUNDS = 1000 };

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

static struct status apply_peers(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->peers = value;
    return status_ok();
}

static struct status apply_rounds(struct parse *parse, const struct option_row *row, const char *value) {
    return option_count(row, value, MAX_ROUNDS, &parse->out->bench.rounds);
}

static void format_values(struct choices *choices) {
    for (const struct bench_format *f = bench_formats; f->name; f++) choices_add(choices, "%s", f->name);
}

static struct status apply_report(struct parse *parse, const struct option_row *row, const char *value) {
    struct options *const o = parse->out;
    struct choices formats = {0};
    const char *path;
    int format;
    format_values(&formats);
    TRY(report_split(value, &formats, &format, &path));
    for (int i = 0; i < o->n_bench_reports; i++)
        if (path && o->bench_report[i].path ? output_same(path, o->bench_report[i].path)
                                            : !path && !o->bench_report[i].path)
            return status_error("--%s %.60s: two reports in one place; name two files", row->name, value);
    if (o->n_bench_reports == MAX_REPORTS - 1)
        return status_error("--%s %.60s: at most %d reports", row->name, value, MAX_REPORTS - 1);
    o->bench_report[o->n_bench_reports++] = (struct bench_target){&bench_formats[format], path};
    return status_ok();
}

static struct status apply_baseline(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->baseline_path = value;
    return status_ok();
}

const struct option_row bench_options[] = {
    {"device", 0, 0, "NAME", -1, apply_device, "default host", device_values},
    {"peers", 0, 0, "WHO", -1, apply_peers,
     "auto: on cuda, by python3's torch; none; or the Python that has it", NULL},
    {"cache", 0, 0, "WHICH", -1, apply_cache, "default both", cache_values},
    {"rounds", 0, 0, "N", -1, apply_rounds, "of all who do a shape; 10", NULL},
    {"report", 0, REPEATABLE, "FORMAT[:FILE]", -1, apply_report,
     "repeatable; text unless standard output has another", format_values},
    {"baseline", 0, 0, "FILE", -1, apply_baseline,
     "a JSON report of bench: exit status 1, too, where a kernel is slower than there (see compare)", NULL},
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

/* Once, however often it was named. */
static struct status add_shape(struct options *o, const struct bench_shape *shape) {
    for (int i = 0; i < o->n_bench_shapes; i++)
        if (bench_shape_same(&o->bench_shape[i], shape)) return status_ok();
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
    const bool by_itself = !o->peers || !strcmp(o->peers, "auto");
    o->bench.python = !by_itself                 ? (strcmp(o->peers, "none") != 0 ? o->peers : NULL)
                      : o->device == DEVICE_CUDA ? "python3"
                                                 : NULL;
    for (int i = 0; i < o->n_bench_reports && o->baseline_path; i++)
        if (o->bench_report[i].path && output_same(o->bench_report[i].path, o->baseline_path))
            return status_error("--report %.100s: would replace the baseline; name another file",
                                o->bench_report[i].path);
    return status_ok();
}

/* ---- the run ---- */

static bool is_shown(const struct bench_target *t) { return !t->path && t->format == &bench_formats[0]; }

/* Where the text goes while the run goes on; NULL: standard output has another report. */
static FILE *text_of(const struct options *o) {
    for (int i = 0; i < o->n_bench_reports; i++)
        if (!o->bench_report[i].path) return is_shown(&o->bench_report[i]) ? stdout : NULL;
    return stdout;
}

static void show(void *context, const struct bench_result *result, int64_t first) {
    FILE *const file = context;
    if (!first)
        bench_text_head(file, result);
    else
        bench_text_shape(file, result, first);
    fflush(file);
}

static struct status open_reports(const struct options *o, struct output **report) {
    char label[300];
    for (int i = 0; i < o->n_bench_reports; i++) {
        const struct bench_target *const t = &o->bench_report[i];
        if (is_shown(t)) continue;
        snprintf(label, sizeof label, "--report %s%s%.250s", t->format->name, t->path ? ":" : "",
                 t->path ? t->path : "");
        TRY(output_open(label, t->path, &report[i]));
    }
    return status_ok();
}

static struct status write_reports(const struct options *o, const struct bench_result *result,
                                   struct output **report) {
    for (int i = 0; i < o->n_bench_reports; i++) {
        if (!report[i]) continue;
        o->bench_report[i].format->write(output_file(report[i]), result);
        TRY(output_commit(&report[i]));
    }
    return status_ok();
}

static struct status check_comparable(const struct bench_result *before, const struct bench_result *now,
                                      const char *label, const char *path) {
    const char *const why = bench_incomparable(before, now);
    return why ? status_error("%s%.100s: %.350s", label, path, why) : status_ok();
}

/* An error: the machine is another one, so that nothing can be said. */
static struct status compare_with(const struct bench_result *before, const struct bench_result *now,
                                  const char *label, const char *path, FILE *file, enum exit_code *code) {
    TRY(check_comparable(before, now, label, path));
    const struct bench_comparison c = bench_compare(file, before, now);
    if (c.other_machine)
        return status_error("%s%.100s: copies or dense products are not as fast as they were there; set the "
                            "clocks, or measure both again",
                            label, path);
    if (c.worse) *code = EXIT_DEFECT;
    return status_ok();
}

static struct status run_and_report(const struct options *o, const struct bench_result *before,
                                    struct output **report, enum exit_code *code) {
    FILE *const text = text_of(o);
    struct bench_request request = o->bench;
    struct bench_result result;
    request.shape = o->bench_shape;
    request.n_shapes = o->n_bench_shapes;
    request.wanted = o->bench_kernel;
    request.asked = signals_asked;
    request.done = text ? show : NULL;
    request.context = text;
    signals_ask_first();
    const struct status ran = bench_run(&request, &result);
    struct status s = status_ok();
    snprintf(result.command, sizeof result.command, "%s", o->typed);
    snprintf(result.stopped, sizeof result.stopped, "%s", ran.message);
    if (text && result.n_rows) bench_text_end(text, &result);
    if (result.n_rows) s = write_reports(o, &result, report);
    if (bench_count(&result).of[BENCH_WRONG]) *code = EXIT_DEFECT;
    if (ran.code == STATUS_FAULT)
        fprintf(stderr, "shardcheck: %s\n", ran.message);
    else if (!s.code)
        s = ran;
    if (!s.code && !ran.code && before)
        s = compare_with(before, &result, "--baseline ", o->baseline_path, text ? text : stderr, code);
    bench_result_free(&result);
    return s;
}

/* Before the work: of this device? */
static struct status read_baseline(const struct options *o, struct bench_result *before) {
    struct bench_result here;
    TRY(bench_identify(o->device, &here));
    TRY(bench_file_read("--baseline ", o->baseline_path, before));
    return check_comparable(before, &here, "--baseline ", o->baseline_path);
}

struct status bench_command(const struct options *o, enum exit_code *code) {
    struct output *report[MAX_REPORTS] = {NULL};
    struct bench_result before = {0};
    struct status s = o->baseline_path ? read_baseline(o, &before) : status_ok();
    if (!s.code) s = open_reports(o, report);
    if (!s.code) s = run_and_report(o, o->baseline_path ? &before : NULL, report, code);
    for (int i = 0; i < o->n_bench_reports; i++) output_discard(&report[i]);
    bench_result_free(&before);
    return s;
}

struct status bench_compare_files(const char *a, const char *b, enum exit_code *code) {
    struct bench_result before, now;
    TRY(bench_file_read("", a, &before));
    struct status s = bench_file_read("", b, &now);
    if (!s.code) {
        s = compare_with(&before, &now, "", a, stdout, code);
        bench_result_free(&now);
    }
    bench_result_free(&before);
    return s;
}

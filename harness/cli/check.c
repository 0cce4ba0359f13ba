/* The command `run`: its options, what they mean together, and the reports of what came out. Which
 * cases are asked for is in request.c. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/commands.h"
#include "harness/cli/console.h"
#include "harness/cli/outputs.h"
#include "harness/cli/report_file.h"
#include "harness/cli/selection.h"
#include "harness/cli/shrink.h"
#include "harness/cli/signals.h"
#include "harness/memory.h"
#include "harness/quote.h"
#include "harness/recorded.h"
#include "harness/worker/limits.h"
#include "harness/worker/process.h"
#include "layer/choices.h"

/* ---- options ---- */

void model_values(struct choices *choices) {
    for (const char *const *name = model_preset_names(); *name; name++) choices_add(choices, "%s", *name);
}

static void part_values(struct choices *choices) {
    for (int p = 0; p < PART_COUNT; p++) choices_add(choices, "%s", part_name((enum part)p));
}

static struct status apply_part(struct parse *parse, const struct option_row *row, const char *value) {
    struct value_list list = {0};
    char *copy;
    struct status status = option_split(row->name, value, &copy, &list);
    for (int i = 0; i < list.n && !status.code; i++) {
        enum part part;
        if (part_by_name(list.value[i], &part))
            parse->request.part[part] = true;
        else
            status = status_error("--part %.48s: use %s or %s", list.value[i], part_name(PART_ATTENTION),
                                  part_name(PART_FFN));
    }
    parse->request.part_given = true;
    free(copy);
    return status;
}

static struct status apply_kernel(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    char key[96], label[112];
    struct check_case scratch = case_defaults();
    const char *equals = strchr(value, '=');
    if (!equals || equals == value || equals - value > 64)
        return status_error("--kernel %.60s: use STAGE=NAME, see shardcheck list stages and list kernels",
                            value);
    snprintf(key, sizeof key, "kernel.%.*s", (int)(equals - value), value);
    snprintf(label, sizeof label, "--kernel %.*s=", (int)(equals - value), value);
    TRY(case_set(&scratch, label, key, equals + 1));
    for (int s = 0; s < S_COUNT; s++) {
        if (!scratch.kernel[s]) continue;
        if (parse->request.kernel[s])
            return status_error("--kernel %.60s: stage %s is given twice", value, stage_table[s].name);
        parse->request.kernel[s] = scratch.kernel[s];
    }
    return status_ok();
}

static struct status apply_fixture(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->run.fixture_path = value;
    return status_ok();
}

static struct status apply_dump(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->run.dump_path = value;
    return status_ok();
}

static struct status apply_mutant(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    return mutant_find("--mutant ", value, &parse->out->run.mutant);
}

static struct status apply_schedules(struct parse *parse, const struct option_row *row, const char *value) {
    return option_count(row, value, MAX_SCHEDULES, &parse->out->run.schedules);
}

static void reference_values(struct choices *choices) {
    for (int p = 0; p < SUMS_PLACES; p++) choices_add(choices, "%s", sums_place_name((enum sums_place)p));
}

static struct status apply_reference(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    for (int p = 0; p < SUMS_PLACES; p++)
        if (!strcmp(value, sums_place_name((enum sums_place)p)))
            return parse->out->run.reference = (enum sums_place)p, status_ok();
    return status_error("--reference %.40s: use auto, cpu or device", value);
}

static struct status apply_waivers(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    return waivers_read(value, &parse->out->waivers);
}

static struct status apply_baseline(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->baseline = memory_zeroed(1, sizeof *parse->out->baseline);
    TRY(report_file_read("--baseline ", value, parse->out->baseline));
    parse->out->baseline_path = value;
    return status_ok();
}

static void report_values(struct choices *choices) {
    for (const struct report_format *f = report_formats; f->name; f++) choices_add(choices, "%s", f->name);
}

static struct status apply_report(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    struct choices formats = {0};
    struct options *out = parse->out;
    const char *path;
    int format;
    report_values(&formats);
    TRY(report_split(value, &formats, &format, &path));
    for (int i = 0; i < out->n_reports && !path; i++)
        if (!out->report[i].path)
            return status_error("--report %.60s: two reports to standard output; use %s:FILE", value,
                                formats.name[format]);
    if (out->n_reports == MAX_REPORTS - 1)
        return status_error("--report %.60s: at most %d reports", value, MAX_REPORTS - 1);
    out->report[out->n_reports++] = (struct report_target){&report_formats[format], path};
    return status_ok();
}

static struct status apply_flag(struct parse *parse, const struct option_row *row, const char *value) {
    (void)value;
    struct options *const out = parse->out;
    if (!strcmp(row->name, "in-process")) parse->request.in_process = out->in_process = true;
    if (!strcmp(row->name, "fail-fast")) out->fail_fast = true;
    if (!strcmp(row->name, "allow-skips")) out->allow_skips = true;
    if (!strcmp(row->name, "shrink")) out->shrink = true;
    if (!strcmp(row->name, "ranks")) out->run.dump_ranks = true;
    return status_ok();
}

static struct status apply_grid(struct parse *parse, const struct option_row *row, const char *value) {
    (void)value;
    if (parse->request.grid != GRID_AUTO)
        return status_error("--grid and --no-grid exclude each other; use one");
    parse->request.grid = (enum grid_wish)row->sets;
    return status_ok();
}

static struct status read_positive(const struct option_row *row, const char *value, double *out) {
    char *end;
    *out = strtod(value, &end);
    if (*end || end == value || !(*out > 0 && *out <= 1e6))
        return status_error("--%s %.40s: use a number above 0, up to 1000000", row->name, value);
    return status_ok();
}

static struct status apply_timeout(struct parse *parse, const struct option_row *row, const char *value) {
    return read_positive(row, value, &parse->out->pool.timeout);
}

static struct status apply_budget(struct parse *parse, const struct option_row *row, const char *value) {
    return read_positive(row, value, &parse->out->time_budget);
}

static struct status apply_memory(struct parse *parse, const struct option_row *row, const char *value) {
    double gib;
    TRY(read_positive(row, value, &gib));
    parse->out->pool.memory_bytes = (int64_t)(gib * (1 << 30));
    return status_ok();
}

static struct status apply_jobs(struct parse *parse, const struct option_row *row, const char *value) {
    return option_count(row, value, MAX_JOBS, &parse->out->pool.jobs);
}

static struct status apply_print(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    struct options *const out = parse->out;
    parse->request.in_process = out->in_process = true;
    out->run.print = &out->print;
    return inspection_parse(value, &out->print);
}

static struct status apply_split(struct parse *parse, const struct option_row *row, const char *value) {
    struct options *const out = parse->out;
    char extra;
    if (sscanf(value, "%d/%d%c", &out->split, &out->splits, &extra) == 2 && out->split >= 1 &&
        out->split <= out->splits && out->splits <= MAX_CASES)
        return status_ok();
    return status_error("--%s %.40s: use I/N, the I-th of N shares: 1/4, 2/4, 3/4 and 4/4", row->name, value);
}

static struct status apply_failed(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->failed_path = value;
    return status_ok();
}

static struct status apply_verbosity(struct parse *parse, const struct option_row *row, const char *value) {
    (void)value;
    if (parse->out->verbosity == -row->sets)
        return status_error("--quiet and --verbose exclude each other; use one");
    parse->out->verbosity = row->sets;
    return status_ok();
}

const struct option_row check_options[] = {
    {"part", 0, SHARED, "NAME,...", -1, apply_part, "default both", part_values},
    {"kernel", 0, REPEATABLE, "STAGE=NAME", -1, apply_kernel, "the kernel of one stage; repeatable", NULL},
    {"fixture", 0, IN_REPRO, "FILE", -1, apply_fixture,
     "weights and activations of an HDF5 file; brings its own model", NULL},
    {"dump", 0, 0, "FILE", -1, apply_dump,
     "write what the unsharded run read and stored as an HDF5 file that --fixture reads", NULL},
    {"ranks", 0, 0, NULL, -1, apply_flag, "with --dump: what every rank stored, too; one --tp, one --ep",
     NULL},
    {"schedules", 0, IN_REPRO, "N", -1, apply_schedules,
     "run every launch in N orders of its threads, all with the same bits; host only; default 1", NULL},
    {"reference", 0, 0, "WHERE", -1, apply_reference,
     "who adds up the reference's products, with the same bits; default auto: a GPU where it pays",
     reference_values},
    {"mutant", 0, IN_REPRO | UNLISTED, "NAME", -1, apply_mutant, "seed a known mistake and see it caught",
     mutant_values},
    {"report", 0, REPEATABLE | SHARED, "FORMAT[:FILE]", -1, apply_report,
     "repeatable; text unless standard output has another", report_values},
    {"baseline", 0, SHARED, "FILE", -1, apply_baseline,
     "a JSON report: what is worse than there is a defect, too (see compare)", NULL},
    {"fail-on", 0, REPEATABLE | SHARED, "WHAT[=RATIO]", -1, apply_fail_on,
     "of --baseline: margin or time, as for compare", NULL},
    {"waivers", 0, SHARED, "FILE", -1, apply_waivers,
     "known failures, PATTERN STAGE YYYY-MM-DD REASON a line; a stale one is a defect", NULL},
    {"jobs", 0, SHARED, "N", -1, apply_jobs, "small cases at once; default one a core", NULL},
    {"timeout", 0, 0, "SECONDS", -1, apply_timeout, "of one launch; default 60 s and what its work explains",
     NULL},
    {"memory-limit", 0, SHARED, "GIB", -1, apply_memory, "of one worker; default nine tenths of what is free",
     NULL},
    {"time-budget", 0, SHARED, "SECONDS", -1, apply_budget,
     "of the run; what has no result by then is skipped", NULL},
    {"fail-fast", 0, SHARED, NULL, -1, apply_flag, "stop at the first failed case; the rest is skipped",
     NULL},
    {"failed", 0, 0, "FILE", -1, apply_failed, "the failed cases of a JSON report, instead of CASE", NULL},
    {"split", 0, 0, "I/N", -1, apply_split, "the I-th of N shares of the cases, for machines side by side",
     NULL},
    {"grid", 0, 0, NULL, GRID_ON, apply_grid, "add the cases of the grid; default beside MODEL alone", NULL},
    {"no-grid", 0, 0, NULL, GRID_OFF, apply_grid, "the model's own cases only", NULL},
    {"print", 0, 0, "TENSOR[I,J]", -1, apply_print,
     "one case: an element, its neighbours and what the stage reads there; implies --in-process", NULL},
    {"shrink", 0, 0, NULL, -1, apply_flag,
     "one failing case: the smallest that fails alike, and the tensors of the stage", NULL},
    {"in-process", 0, SHARED, NULL, -1, apply_flag,
     "without workers, for debuggers and profilers: a crash ends everything", NULL},
    {"allow-skips", 0, SHARED, NULL, -1, apply_flag, "exit 0 although cases were skipped", NULL},
    {"quiet", 'q', SHARED, NULL, -1, apply_verbosity, "only failures and the last line", NULL},
    {"verbose", 'v', SHARED, NULL, 1, apply_verbosity, "a table of the stages of every case", NULL},
    {0},
};

void check_explain(FILE *file) {
    fprintf(file,
            "CASE is MODEL[/PART][:key=value,...], as printed in every report. Without MODEL: %s.\n"
            "Lists multiply; every option that takes one is a key of the case.\n",
            model_preset_names()[0]);
}

/* ---- what they mean together ---- */

/* A GPU orders its threads itself. */
static struct status check_schedules(struct run_request *run) {
    for (int64_t i = 0; i < run->n_cases && run->schedules; i++)
        if (run->cases[i].device != DEVICE_HOST)
            return status_error(
                "--schedules %d: only the host device runs threads in a chosen order; use --device host "
                "or leave --schedules out",
                run->schedules);
    if (!run->schedules) run->schedules = 1;
    return status_ok();
}

static struct status check_shrink(const struct run_request *run) {
    if (run->n_cases != 1)
        return status_error("--shrink: reduces one case, these are %lld; name one", (long long)run->n_cases);
    const char *const beside = run->fixture_path ? "fixture"
                               : run->dump_path  ? "dump"
                               : run->print      ? "print"
                                                 : NULL;
    if (!beside) return status_ok();
    return status_error("--shrink: changes sizes and values, which --%s holds on to; leave one out", beside);
}

static bool plain_word(const char *word) {
    return !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")];
}

static struct status compose_repro(struct parse *parse) {
    struct options *const out = parse->out;
    size_t size;
    FILE *const file = open_memstream(&out->repro, &size);
    if (!file) return status_error("out of memory; free some");
    struct option_row row;
    for (int i = 0; option_at(parse->command, i, &row); i++) {
        const char *const value = parse->typed[i];
        if (!(row.traits & IN_REPRO) || !value) continue;
        fprintf(file, " --%s ", row.name);
        if (plain_word(value))
            fputs(value, file);
        else
            quote_print(file, value);
    }
    if (fclose(file)) return status_error("out of memory; free some");
    out->run.repro = out->repro;
    return status_ok();
}

/* On a terminal, unless the user (no-color.org) or the terminal is against it. */
static bool colours_wanted(void) {
    const char *const no = getenv("NO_COLOR"), *const term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

void choose_reports(struct options *out) {
    bool taken = false;
    for (int i = 0; i < out->n_reports; i++) taken |= out->report[i].path == NULL;
    if (!taken) out->report[out->n_reports++] = (struct report_target){&report_formats[0], NULL};
    for (int i = 0; i < out->n_reports && colours_wanted(); i++)
        if (!out->report[i].path && out->report[i].format == &report_formats[0])
            out->report[i].format = &report_text_coloured;
}

struct status check_parse(struct parse *parse) {
    struct options *const out = parse->out;
    choose_reports(out);
    struct failed_lines failed = {0};
    struct status s = status_ok();
    if (out->failed_path) s = failed_read(out->failed_path, &parse->request, &failed);
    if (!s.code) s = request_expand(&parse->request, &out->run);
    failed_free(&failed, &parse->request);
    if (!s.code && out->run.print && out->run.n_cases != 1)
        s = status_error("--print: shows one case, these are %lld; name one", (long long)out->run.n_cases);
    if (!s.code && out->shrink) s = check_shrink(&out->run);
    if (!s.code && !out->baseline && (out->wish.margin > 0 || out->wish.time > 0))
        s = status_error(
            "--fail-on: says how much worse than a baseline is a defect; use it with --baseline FILE");
    if (!s.code && out->run.dump_ranks && !out->run.dump_path)
        s = status_error("--ranks: says what a dump holds; use it with --dump FILE");
    if (!s.code && out->splits) s = split_cases(&out->run, out->split, out->splits);
    TRY(s);
    TRY(check_schedules(&out->run));
    TRY(outputs_check(out));
    return compose_repro(parse);
}

/* ---- running it ---- */

/* Of somebody's dump, parts of which nothing is there are listed, and that is all. */
static bool is_excused(const struct options *o, const struct case_result *r) {
    return o->allow_skips || (o->run.judge.n_dumps && !r->not_run && !recorded_any_judged(r));
}

/* A defect wins over a skip. What kept the run from its end is an error of keep_outputs. */
static enum exit_code verdict_of(const struct options *o, const struct run_output *out) {
    if (out->result.n_failed || out->result.n_stale) return EXIT_DEFECT;
    for (int64_t i = 0; i < out->result.n_cases; i++)
        if (out->cases[i].verdict == CASE_SKIPPED && !is_excused(o, &out->cases[i])) return EXIT_TROUBLE;
    return o->run.judge.n_dumps && !out->result.n_passed ? EXIT_TROUBLE : EXIT_PASSED;
}

static struct status run_somewhere(const struct options *o, const struct run_request *request,
                                   struct run_output *out) {
    struct pool_options pool = o->pool;
    pool.echo = o->verbosity > 0;
    return o->in_process || request->print || !worker_program ? run_cases(request, out)
                                                              : pool_run(request, &pool, out);
}

/* The ends of the reports, then the dump; the first problem counts. */
static struct status keep_outputs(const struct options *o, struct run_output *out, struct output **report,
                                  struct output **dump) {
    for (int i = 0; i < o->n_reports; i++) {
        o->report[i].format->end(output_file(report[i]), &out->result, o->verbosity);
        TRY(output_commit(&report[i]));
    }
    TRY(out->trouble);
    TRY(out->dump);
    if (signals_asked())
        return status_error("interrupted by SIG%s; cases without a result are reported as not run",
                            sigabbrev_np(signals_asked()));
    return *dump ? output_commit(dump) : status_ok();
}

/* What somebody knows of does not fail the run. */
static void waive(const struct options *o, struct run_output *out) {
    struct run_result *const all = &out->result;
    for (int64_t i = 0; i < all->n_cases; i++) {
        struct case_result *const r = &out->cases[i];
        waivers_apply(&o->waivers, r);
        if (r->verdict != CASE_WAIVED) continue;
        all->n_failed--, all->n_waived++;
        all->n_crashed -= r->crashed;
        all->n_grid_failed -= r->of_grid, all->n_grid_waived += r->of_grid;
    }
    all->stale = waivers_stale(&o->waivers, all, &all->n_stale);
}

/* Beside the text on standard output, before its last line; where there is none, on standard error. */
static bool compare_with_baseline(const struct options *o, const struct run_output *out,
                                  struct output *const *report) {
    FILE *file = stderr;
    if (!o->baseline) return false;
    for (int i = 0; i < o->n_reports; i++)
        if (!o->report[i].path && !strcmp(o->report[i].format->name, "text")) file = output_file(report[i]);
    fprintf(file, "baseline %s: shardcheck %s on %s, %lld cases\n", o->baseline_path,
            o->baseline->run.version, o->baseline->run.device, (long long)o->baseline->run.n_cases);
    return report_compare(file, &o->baseline->run, &out->result, &o->wish).worse;
}

static struct status run_and_report(const struct options *o, struct run_request *request,
                                    enum exit_code *code) {
    struct run_output out = {0};
    struct output *report[MAX_REPORTS] = {NULL}, *dump = NULL;
    struct console console;
    TRY(reports_open(o, report));
    struct status s = dump_output_open(request, &dump);
    signals_ask_first();
    console_open(&console, o, report);
    request->watch = &console.watch;
    if (!s.code) s = run_somewhere(o, request, &out);
    const double own = console.seconds_own;
    console_close(&console);
    if (!s.code) {
        out.result.seconds_grid = request->n_grid && out.result.seconds > own ? out.result.seconds - own : 0;
        snprintf(out.command, sizeof out.command, "%s", o->typed);
        out.result.in_process = o->in_process;
        waive(o, &out);
        *code = verdict_of(o, &out);
        if (compare_with_baseline(o, &out, report)) *code = EXIT_DEFECT;
        s = keep_outputs(o, &out, report, &dump);
    }
    for (int i = 0; i < o->n_reports; i++) output_discard(&report[i]);
    output_discard(&dump);
    waivers_free_stale(out.result.stale, out.result.n_stale);
    run_output_free(&out);
    return s;
}

/* The report of what is left, then its tensors. */
static struct status shrink_and_report(const struct options *o, struct run_request *request,
                                       enum exit_code *code) {
    struct shrunk shrunk;
    char *text = NULL;
    size_t size = 0;
    FILE *const tensors = open_memstream(&text, &size);
    if (!tensors) return status_error("out of memory; free some");
    struct status s = shrink_case(o, request, tensors, &shrunk);
    if (!s.code) s = run_and_report(o, request, code);
    if (fclose(tensors)) s = status_error("out of memory; free some");
    if (!s.code) fputs(text, stdout);
    free(text);
    return s;
}

struct status check_run(const struct options *o, enum exit_code *code) {
    struct run_request request = o->run;
    return o->shrink ? shrink_and_report(o, &request, code) : run_and_report(o, &request, code);
}

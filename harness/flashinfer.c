/* Is what FlashInfer's calls stored right? Each call is made one of ours, computed by the
 * reference, and judged as a stage of its own. */
/* SPDX-License-Identifier: MIT */
#include "harness/flashinfer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/flashinfer_call.h"
#include "harness/judge.h"
#include "harness/quote.h"
#include "harness/sharpness.h"
#include "harness/where.h"
#include "layer/line.h"

enum { BLOCK_ROWS = 16 };

static const struct function_row {
    const char *name;
    bool (*make)(struct flash_call *f);
} functions[] = {
    {"rmsnorm", flash_norm},
    {"silu_and_mul", flash_silu},
    {"BatchDecodeWithPagedKVCacheWrapper.run", flash_decode},
    {"BatchPrefillWithPagedKVCacheWrapper.run", flash_prefill},
};
enum { N_FUNCTIONS = sizeof functions / sizeof *functions };

/* ---- what functions have in common ---- */

bool flash_refuse(struct flash_call *f, const char *format, ...) {
    va_list args;
    if (f->reason[0]) return false;
    va_start(args, format);
    const int n = vsnprintf(f->reason, sizeof f->reason, format, args);
    va_end(args);
    line_finish(f->reason, sizeof f->reason, n < 0 ? 0 : (size_t)n);
    return false;
}

void *flash_own(struct flash_call *f, size_t count, size_t size) {
    if (f->n_owned == FLASH_MAX_OWNED) abort();
    return f->owned[f->n_owned++] = memory_zeroed(count ? count : 1, size);
}

/* Is it one of "None|-1"? */
static bool is_listed(const char *list, const char *text) {
    for (const size_t n = strlen(text); *list; list += strcspn(list, "|"), list += *list == '|')
        if (strcspn(list, "|") == n && !strncmp(list, text, n)) return true;
    return false;
}

bool flash_follows(struct flash_call *f, const struct logged_call *logged, const struct flash_rule *rules) {
    const char *name;
    for (int i = 0; (name = call_given(logged, i)); i++) {
        const struct flash_rule *r = rules;
        while (r->name && strcmp(r->name, name) != 0) r++;
        if (!r->name && strcmp(name, "self") != 0)
            return flash_refuse(f, "argument %.60s of %.80s is not known here", name, logged->function);
    }
    for (const struct flash_rule *r = rules; r->name; r++) {
        const struct call_value v = call_argument(logged, r->name);
        if (!r->only || is_listed(r->only, v.text) || (v.kind == VALUE_ABSENT && !v.given)) continue;
        return flash_refuse(f, "argument %s = %.60s of %.60s changes the result and is not read", r->name,
                            v.text, logged->function);
    }
    return true;
}

const struct named_tensor *flash_tensor(struct flash_call *f, const struct logged_call *logged,
                                        const char *name, int n_dims) {
    const struct call_value v = call_argument(logged, name);
    if (v.kind != VALUE_TENSOR)
        flash_refuse(f, "argument %s of %.60s was not saved", name, logged->function);
    else if (n_dims >= 0 && v.tensor->n_dims != n_dims)
        flash_refuse(f, "argument %s of %.60s has %d dimensions", name, logged->function, v.tensor->n_dims);
    else
        return v.tensor;
    return NULL;
}

double *flash_numbers(struct flash_call *f, const struct logged_call *logged, const struct named_tensor *t) {
    double *const numbers = flash_own(f, (size_t)t->count, sizeof *numbers);
    const struct status s = tensor_read(logged->inputs, t, 0, t->count, numbers);
    return s.code ? flash_refuse(f, "%.220s", s.message), NULL : numbers;
}

bool flash_dtype(struct flash_call *f, const struct named_tensor *t, enum dtype *out) {
    return (element_dtype(t->element, out) && *out != DTYPE_F64) ||
           flash_refuse(f, "%s is stored as %s, which is not judged", t->name, t->type);
}

struct view flash_view(double *data, int64_t count, int64_t stride0, int64_t stride1, int64_t stride2) {
    return (struct view){data, DTYPE_F64, {stride0, stride1, stride2}, 0, count};
}

/* ---- what was stored ---- */

static const struct named_tensor *find_result(const struct logged_call *c) {
    static const char *const names[] = {"result", "result_0", "result__0"}; /* the first of several */
    for (int i = 0; c->outputs && i < 3; i++)
        if (tensor_file_find(c->outputs, names[i])) return tensor_file_find(c->outputs, names[i]);
    return NULL;
}

/* The result, dense, in its dtype. */
static void *read_result(struct flash_call *f, const struct named_tensor *t, int64_t count,
                         enum dtype *dtype) {
    if (t->count != count)
        return flash_refuse(f, "its result has %lld elements, its arguments say %lld", (long long)t->count,
                            (long long)count),
               NULL;
    if (!flash_dtype(f, t, dtype)) return NULL;
    if (*dtype != f->dtype)
        return flash_refuse(f, "its result is stored as %s, its operands as %s", dtype_name(*dtype),
                            dtype_name(f->dtype)),
               NULL;
    double *const numbers = flash_own(f, (size_t)count, sizeof *numbers);
    void *const stored = flash_own(f, (size_t)count, dtype_bytes(*dtype));
    const struct status s = tensor_read(f->logged->outputs, t, 0, count, numbers);
    if (s.code) return flash_refuse(f, "%.220s", s.message), NULL;
    for (int64_t i = 0; i < count; i++) dtype_store(stored, *dtype, i, numbers[i]);
    return stored;
}

/* ---- judging ---- */

/* Of a row, in multiply-adds. */
static double row_work(const struct flash_call *f) {
    return f->call.op == OP_ATTENTION ? 2.0 * (double)f->batch.max_kv * (double)ref_row_size(&f->call, 0)
                                      : (double)ref_row_size(&f->call, 0);
}

/* Every so many-th block of a sequence is judged, and its last. */
static int64_t block_step(const struct flash_call *f, int64_t n_rows, double work) {
    const double share = work > 0 ? row_work(f) * (double)n_rows / work : 0;
    return share <= 1 ? 1 : (int64_t)ceil(share);
}

struct judging {
    struct flash_call *f;
    struct crew crew;
    struct findings *findings;
    struct edge_result *edge;
    const char *got; /* all rows */
    enum dtype dtype;
    int64_t row_size, n_judged; /* elements of y and e so far */
    double *y, *e;              /* of judged rows, one after another */
};

static void judge_rows(struct judging *g, int64_t row0, int64_t row1) {
    const struct flash_call *const f = g->f;
    const int64_t n = (row1 - row0) * g->row_size;
    double *const y = g->y + g->n_judged, *const e = g->e + g->n_judged;
    double *const other = memory_zeroed((size_t)n, sizeof *other);
    for (int i = 0; i < f->n_contracts; i++) {
        struct ref_out out[MAX_REF_OUT] = {{y, i ? other : e, NULL}};
        ref_compute(&f->call, &f->contract[i], NULL, row0, row1, out);
        for (int64_t k = 0; k < n && i; k++) e[k] = other[k] >= e[k] ? other[k] : e[k];
    }
    free(other);
    const struct judged j = {.stage = f->stage,
                             .id = f->id,
                             .plan = &g->crew.plan,
                             .trunk = true,
                             .dtype = g->dtype,
                             .got = g->got + (size_t)(row0 * g->row_size) * dtype_bytes(g->dtype),
                             .y = y,
                             .e = e,
                             .count = n,
                             .first = row0 * g->row_size};
    judge_set(&j, g->edge, g->findings);
    g->n_judged += n;
}

/* Returns how many. */
static int64_t judge_some(struct judging *g, int64_t step) {
    const struct batch *const b = &g->f->batch;
    const int32_t whole[2] = {0, (int32_t)ref_n_rows(&g->f->call)};
    const int64_t n_seqs = b->query_start ? b->n_seqs : 1;
    const int32_t *const start = b->query_start ? b->query_start : whole;
    int64_t n = 0, block = 0;
    for (int64_t s = 0; s < n_seqs; s++)
        for (int64_t row = start[s]; row < start[s + 1]; row += BLOCK_ROWS, block++) {
            const int64_t end = row + BLOCK_ROWS < start[s + 1] ? row + BLOCK_ROWS : start[s + 1];
            if (block % step && end < start[s + 1]) continue;
            judge_rows(g, row, end);
            n += end - row;
        }
    return n;
}

static void conclude(struct judging *g, struct case_result *r) {
    const struct answer all = {.n = 1, .y = {g->y}, .e = {g->e}, .count = {g->n_judged}};
    const struct sharpness sharpness = sharpness_of(&all);
    sharpness_record(&sharpness, g->edge);
    r->edge[EDGE_ORACLE] = *g->edge;
    r->verdict = g->edge->state == EDGE_FAIL ? CASE_FAILED : CASE_PASSED;
    if (g->edge->state == EDGE_LOOSE) {
        r->verdict = CASE_SKIPPED;
        snprintf(r->reason, sizeof r->reason, "too loose: %lld of %lld bounds are larger than the value",
                 (long long)g->edge->vacuous, (long long)g->edge->elements);
    }
    if (r->verdict != CASE_FAILED) return;
    where_describe(g->findings, 1, &g->crew, r->where, sizeof r->where);
    r->first = g->findings->first;
    r->worst = g->findings->worst;
    heat_draw(&g->findings->heats, &r->map);
}

static void judge_call(struct flash_call *f, double work, struct case_result *r) {
    const int64_t n_rows = ref_n_rows(&f->call), row_size = ref_row_size(&f->call, 0), n = n_rows * row_size;
    struct judging g = {.f = f, .row_size = row_size};
    const double start = clock_seconds();
    g.got = read_result(f, find_result(f->logged), n, &g.dtype);
    if (!g.got) return;
    r->n_stages = 1;
    r->stage = memory_zeroed(1, sizeof *r->stage);
    snprintf(r->stage->stage, sizeof r->stage->stage, "%s", stage_table[f->stage].name);
    snprintf(r->stage->kernel, sizeof r->stage->kernel, "FlashInfer %.28s", f->logged->version);
    g.edge = &r->stage->edge[EDGE_ORACLE];
    g.findings = memory_zeroed(1, sizeof *g.findings);
    findings_init(g.findings);
    crew_open(&g.crew, &f->spec, f->stage == S_SHARED_ACTIVATION ? PART_FFN : PART_ATTENTION, &f->batch, 1,
              1);
    if (!f->batch.query_start || f->call.u.attention.page_size != PAGE_SIZE) g.crew.batch = NULL;
    const int64_t step = block_step(f, n_rows, work);
    g.y = memory_zeroed((size_t)n, sizeof *g.y); /* untouched pages cost nothing */
    g.e = memory_zeroed((size_t)n, sizeof *g.e);
    const int64_t judged = judge_some(&g, step);
    if (judged < n_rows) g.edge->sampled_rows = judged, g.edge->rows = n_rows;
    r->stage->seconds_reference = clock_seconds() - start;
    conclude(&g, r);
    free(g.y), free(g.e), free(g.findings);
}

/* ---- calls ---- */

static bool is_part_of_another(const char *function) {
    const char *const dot = strrchr(function, '.');
    return dot && (!strcmp(dot, ".plan") || !strcmp(dot, ".__init__"));
}

static bool make_call(struct flash_call *f) {
    call_open(f->logged);
    if (f->logged->problem[0]) return flash_refuse(f, "%.220s", f->logged->problem);
    if (!f->logged->outputs)
        return flash_refuse(f, "it saved no outputs; a function that works in place never does");
    for (int i = 0; i < N_FUNCTIONS; i++) {
        if (strcmp(functions[i].name, f->logged->function) != 0) continue;
        return find_result(f->logged) ? functions[i].make(f) : flash_refuse(f, "its outputs hold no result");
    }
    return flash_refuse(f, "%.80s is not known here", f->logged->function);
}

static void judge_logged(struct call_log *log, int index, double work, struct case_result *r) {
    struct flash_call *const f = memory_zeroed(1, sizeof *f);
    const double start = clock_seconds();
    *f = (struct flash_call){.log = log, .index = index, .logged = call_log_at(log, index)};
    f->spec = layer_defaults();
    f->spec.n_heads = f->spec.n_kv_heads = 1; /* of a function of rows */
    if (f->logged->problem[0])
        flash_refuse(f, "%.220s", f->logged->problem);
    else if (make_call(f))
        judge_call(f, work, r);
    if (f->reason[0]) {
        r->verdict = CASE_SKIPPED;
        snprintf(r->reason, sizeof r->reason, "not judged: %s", f->reason);
    }
    for (int i = 0; i < f->n_owned; i++) free(f->owned[i]);
    call_close(f->logged);
    free(f);
    r->seconds = clock_seconds() - start;
}

static void name_case(const char *folder, const struct logged_call *c, struct case_result *r) {
    size_t size;
    FILE *const file = open_memstream(&r->repro, &size);
    snprintf(r->line, sizeof r->line, "%.1000s", c->name);
    line_clean(r->line);
    if (!file) return;
    fputs("shardcheck judge ", file);
    quote_print(file, folder);
    fclose(file);
}

static struct status judge_folder(const char *folder, double work, struct watch *watch,
                                  struct run_output *out) {
    struct call_log *log;
    TRY(call_log_open(folder, &log));
    const int n = call_log_count(log);
    out->cases = realloc(out->cases, (size_t)(out->result.n_cases + n) * sizeof *out->cases);
    if (!out->cases) abort();
    for (int i = 0; i < n; i++) {
        const struct logged_call *const c = call_log_at(log, i);
        if (!c->problem[0] && is_part_of_another(c->function)) continue;
        struct case_result *const r = &out->cases[out->result.n_cases++];
        *r = (struct case_result){0};
        name_case(folder, c, r);
        judge_logged(log, i, work, r);
        watch_beat(watch);
        if (!out->device_label[0] && c->version[0])
            snprintf(out->device_label, sizeof out->device_label, "calls of FlashInfer %.80s", c->version);
    }
    call_log_close(log);
    return status_ok();
}

struct status judge_flashinfer(const char *const *folders, int n_folders, double work, struct watch *watch,
                               struct run_output *out) {
    const double start = clock_seconds();
    *out = (struct run_output){0};
    for (int i = 0; i < n_folders; i++) {
        const struct status s = judge_folder(folders[i], work, watch, out);
        if (!s.code) continue;
        run_output_free(out);
        return s;
    }
    struct run_result *const all = &out->result;
    for (int64_t i = 0; i < all->n_cases; i++) run_result_add(all, &out->cases[i]);
    all->cases = out->cases;
    all->device = out->device_label;
    all->version = SHARDCHECK_VERSION;
    all->command = out->command;
    all->in_process = true;
    all->seconds = clock_seconds() - start;
    return status_ok();
}

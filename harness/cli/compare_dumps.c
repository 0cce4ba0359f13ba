/* Do two fixture files hold the same layer, and if not, are both right all the same? Bits first; what
 * differs is judged in each file by the reference on that file's own inputs (oracle edge). */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/compare_dumps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/dump_side.h"
#include "harness/oracle.h"
#include "harness/seat.h"
#include "harness/where.h"

/* A tensor that differs. */
struct row {
    int stage; /* of the last stage that stores it; -1: an input */
    enum tensor_id id;
    int rank; /* -1: not of one rank */
    bool ranks, conflict;
    struct difference d;
    double a, b; /* the first such element */
    int64_t first;
};
enum { MAX_ROWS = 4096 };

struct pairing {
    FILE *file;
    struct side a, b;
    int64_t layer;
    enum part part;
    int64_t n_compared, n_rows;
    struct row *row;                     /* [n_rows] in layer order */
    double units[S_COUNT][MAX_STAGE_IO]; /* largest |a - b| / E of a, of the whole tensors */
    bool gone;
};

/* ---- what differs ---- */

static void add_row(struct pairing *p, const struct row *row) {
    if (p->n_rows < MAX_ROWS) p->row[p->n_rows++] = *row;
}

static void hold(struct pairing *p, struct row row, const double *a, const double *b, int64_t n) {
    row.d = difference_of(a, b, n);
    p->n_compared++;
    if (!row.d.n_other) return;
    row.a = a[row.d.first];
    row.b = b[row.d.first];
    add_row(p, &row);
}

static struct status hold_whole(struct pairing *p, struct row row) {
    double *a = NULL, *b = NULL;
    struct status s = side_whole(&p->a, row.id, &a);
    if (!s.code) s = side_whole(&p->b, row.id, &b);
    if (!s.code && a && b) hold(p, row, a, b, slice_count(&p->a.trunk.crew.plan, row.id, -1));
    if (!s.code && !a != !b) {
        fprintf(p->file, "%-6s layers.%lld.%s.%s\n", a ? "GONE" : "NEW", (long long)p->layer,
                part_name(p->part), tensor_table[row.id].name);
        p->gone |= a != NULL;
    }
    free(a);
    free(b);
    return s;
}

static struct status hold_rank(struct pairing *p, struct row row) {
    double *a = NULL, *b = NULL;
    struct status s = side_rank(&p->a, row.id, row.rank, &a);
    if (!s.code) s = side_rank(&p->b, row.id, row.rank, &b);
    const int64_t n = slice_count(&p->a.crew.plan, row.id, row.rank),
                  m = slice_count(&p->b.crew.plan, row.id, row.rank);
    if (!s.code && a && b && n == m) hold(p, row, a, b, n);
    if (!s.code && a && (!b || n != m)) { /* its experts may have other rows */
        fprintf(p->file, "GONE   ranks/%d/layers.%lld.%s.%s", row.rank, (long long)p->layer,
                part_name(p->part), tensor_table[row.id].name);
        if (b) fprintf(p->file, ": %lld elements | %lld", (long long)n, (long long)m);
        fputc('\n', p->file);
        p->gone = true;
    }
    free(a);
    free(b);
    return s;
}

/* Replicas must have the same bits, whatever the other file holds. */
static void hold_replicas(struct pairing *p, struct row row, const struct side *s, const struct merged *m) {
    if (m->conflict < 0) return;
    row.rank = m->conflict;
    row.conflict = true;
    fprintf(p->file, "WRONG  %s: rank %d holds other bits of %s than a rank before it\n", s->letter, row.rank,
            tensor_table[row.id].name);
    add_row(p, &row);
}

static struct status read_put_together(const struct side *s, enum tensor_id id, struct merged *m) {
    *m = (struct merged){.conflict = -1};
    return s->tp ? side_merged(s, id, m) : side_whole(s, id, &m->values);
}

static struct status hold_merged(struct pairing *p, struct row row) {
    struct merged a = {.conflict = -1}, b = {.conflict = -1};
    struct status s = read_put_together(&p->a, row.id, &a);
    if (!s.code) s = read_put_together(&p->b, row.id, &b);
    hold_replicas(p, row, &p->a, &a);
    hold_replicas(p, row, &p->b, &b);
    if (!s.code && a.values && b.values)
        hold(p, row, a.values, b.values, slice_count(&p->a.trunk.crew.plan, row.id, -1));
    free(a.values);
    free(b.values);
    return s;
}

static struct status hold_tensor(struct pairing *p, int stage, enum tensor_id id) {
    const struct side *const a = &p->a, *const b = &p->b;
    TRY(hold_whole(p, (struct row){.stage = stage, .id = id, .rank = -1}));
    if (stage < 0 || (!a->tp && !b->tp)) return status_ok();
    if (a->tp != b->tp || a->ep != b->ep)
        return hold_merged(p, (struct row){.stage = stage, .id = id, .rank = -1, .ranks = true});
    for (int rank = 0; rank < a->tp; rank++)
        TRY(hold_rank(p, (struct row){.stage = stage, .id = id, .rank = rank, .ranks = true}));
    return status_ok();
}

/* The same sizes and tensors: what is compared element by element. */
static struct status check_sizes(const struct pairing *p) {
    const struct crew *const a = &p->a.trunk.crew, *const b = &p->b.trunk.crew;
    for (enum tensor_id id = 0; id < T_COUNT; id++) {
        const bool in_a = tensor_present(id, &a->spec), in_b = tensor_present(id, &b->spec);
        const int64_t n = in_a ? slice_count(&a->plan, id, -1) : 0,
                      m = in_b ? slice_count(&b->plan, id, -1) : 0;
        if (n != m)
            return status_error(
                "%.120s and %.120s: %s of layer %lld has %lld and %lld elements; give two dumps of "
                "one layer and as many tokens",
                p->a.path, p->b.path, tensor_table[id].name, (long long)p->layer, (long long)n, (long long)m);
    }
    return status_ok();
}

static bool stored_again(const struct pairing *p, int stage, enum tensor_id id) {
    for (int later = stage + 1; later < S_COUNT; later++)
        for (const enum tensor_id *out = stage_table[later].out;
             *out != T_NONE && stage_applies(later, p->part, &p->a.trunk.crew.spec); out++)
            if (*out == id) return true;
    return false;
}

static struct status hold_all(struct pairing *p) {
    const struct layer_spec *const spec = &p->a.trunk.crew.spec;
    for (int stage = 0; stage < S_COUNT; stage++) {
        if (!stage_applies(stage, p->part, spec)) continue;
        for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
            const bool again = *id == T_X && stage_table[stage].op == OP_RESIDUAL;
            const enum tensor_role role = tensor_table[*id].role;
            if ((role == ROLE_INPUT || role == ROLE_WEIGHT) && tensor_present(*id, spec) && !again)
                TRY(hold_tensor(p, -1, *id));
        }
        for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++)
            if (tensor_table[*id].role != ROLE_LOCAL && !seat_in_place(*id) && !stored_again(p, stage, *id))
                TRY(hold_tensor(p, stage, *id));
    }
    return status_ok();
}

/* ---- are both right? ---- */

/* How far the other file is off, in bounds of this one. */
struct ruler {
    struct oracle_listener listener;
    struct pairing *p;
};

static int output_of(int stage, enum tensor_id id) {
    int i = 0;
    while (stage_table[stage].out[i] != T_NONE && stage_table[stage].out[i] != id) i++;
    return i < MAX_STAGE_IO ? i : 0;
}

static void measure(struct oracle_listener *listener, int stage, enum tensor_id id, const double *values,
                    const double *e, int64_t count) {
    struct pairing *const p = ((struct ruler *)listener)->p;
    double *other = NULL, *const largest = &p->units[stage][output_of(stage, id)];
    if (side_whole(&p->b, id, &other).code || !other) return;
    for (int64_t i = 0; i < count; i++) {
        const double distance = fabs(values[i] - other[i]);
        const double units = distance > 0 || isnan(distance) ? distance / e[i] : 0;
        if (!(units <= *largest)) *largest = isnan(units) ? INFINITY : units;
    }
    free(other);
}

static void judge_side(struct side *s, struct oracle_listener *listener) {
    findings_init(&s->findings);
    s->judged = oracle_edge_run(s->fixture, &s->trunk, s->edge, &s->findings, listener);
}

enum rests { WITHIN, OUTSIDE, UNJUDGED };

static enum rests rests_on(const struct pairing *p, const struct row *row) {
    if (row->conflict) return OUTSIDE;
    if (row->stage < 0 || p->a.judged.code || p->b.judged.code) return UNJUDGED;
    const enum edge_state a = p->a.edge[row->stage].state, b = p->b.edge[row->stage].state;
    if (a == EDGE_FAIL || b == EDGE_FAIL) return OUTSIDE;
    return a == EDGE_OK && b == EDGE_OK ? WITHIN : UNJUDGED;
}

static void print_layout(FILE *file, const struct side *s) {
    if (s->tp)
        fprintf(file, "tp %lld ep %lld", (long long)s->tp, (long long)s->ep);
    else
        fputs("whole", file);
}

static void print_what(struct pairing *p, const struct row *row) {
    fprintf(p->file, "OTHER  layers.%lld.%s.%s", (long long)p->layer, part_name(p->part),
            tensor_table[row->id].name);
    if (row->stage >= 0) fprintf(p->file, " (stage %s)", stage_table[row->stage].name);
    if (row->ranks && row->rank >= 0) fprintf(p->file, ", rank %d", row->rank);
    if (row->ranks && row->rank < 0) {
        fputs(", ranks put together (", p->file);
        print_layout(p->file, &p->a);
        fputs(" | ", p->file);
        print_layout(p->file, &p->b);
        fputc(')', p->file);
    }
}

static void print_row(struct pairing *p, const struct row *row) {
    char place[128];
    if (row->conflict) return; /* told when it was found */
    const struct shard_plan *const plan = &p->a.crew.plan;
    const struct place at = slice_place(row->rank < 0 ? &p->a.trunk.crew.plan : plan, row->id,
                                        row->rank < 0 ? 0 : row->rank, row->d.first);
    place_text(&at, place, sizeof place);
    print_what(p, row);
    fprintf(p->file, ": %lld of %lld elements, first %s: %.9g | %.9g, largest difference %.3g",
            (long long)row->d.n_other, (long long)row->d.n, place, row->a, row->b, row->d.largest);
    if (row->stage >= 0 && row->rank < 0 && !row->ranks && rests_on(p, row) != UNJUDGED)
        fprintf(p->file, " (%.3g of A's bounds)", p->units[row->stage][output_of(row->stage, row->id)]);
    fputc('\n', p->file);
    const enum rests rests = rests_on(p, row);
    if (row->stage < 0)
        fputs("       an input: what follows from it is judged in each file by that file's own\n", p->file);
    else if (rests == UNJUDGED)
        fputs("       not judged: a file does not show what the stage read, or its bounds say nothing\n",
              p->file);
    else
        fprintf(p->file, "       the stage is %s in A (margin %.3g), %s in B (margin %.3g)\n",
                edge_state_name(p->a.edge[row->stage].state), p->a.edge[row->stage].margin,
                edge_state_name(p->b.edge[row->stage].state), p->b.edge[row->stage].margin);
}

static void print_findings(FILE *file, const struct side *s) {
    const struct mismatch *const m = &s->findings.first;
    char where[256], rank[48] = "unsharded";
    if (s->judged.code) fprintf(file, "%s not judged: %s\n", s->letter, s->judged.message);
    if (s->judged.code || s->findings.stage < 0) return;
    where_describe(&s->findings, s->tp && m->rank >= 0 ? s->tp : 1, &s->trunk.crew, where, sizeof where);
    if (m->rank >= 0) snprintf(rank, sizeof rank, "rank %d", m->rank);
    if (m->to_rank > m->rank) snprintf(rank, sizeof rank, "ranks %d-%d added up,", m->rank, m->to_rank);
    fprintf(file, "%s is wrong: %s\n", s->letter, where);
    fprintf(file, "  first     %s %s, %s.%s: got %.9g, expected %.9g +- %.3g, margin %.4g; %s\n", rank,
            m->where, m->stage, m->tensor, m->got, m->expected, m->bound, m->margin, m->note);
}

/* ---- all of it ---- */

struct total {
    int64_t n_compared, n_other, n_within, n_parts;
    bool gone;
};

static void conclude_part(struct pairing *p, struct total *t) {
    t->n_compared += p->n_compared;
    t->n_other += p->n_rows;
    t->gone |= p->gone;
    t->n_parts++;
    if (!p->n_rows) return;
    struct ruler ruler = {{measure}, p};
    judge_side(&p->a, &ruler.listener);
    judge_side(&p->b, NULL);
    for (int64_t i = 0; i < p->n_rows; i++) t->n_within += rests_on(p, &p->row[i]) == WITHIN;
    for (int64_t i = 0; i < p->n_rows; i++)
        if (p->row[i].stage >= 0) {
            fprintf(p->file, "first stage that differs: %s of layer %lld\n",
                    stage_table[p->row[i].stage].name, (long long)p->layer);
            break;
        }
    for (int64_t i = 0; i < p->n_rows; i++) print_row(p, &p->row[i]);
    print_findings(p->file, &p->a);
    print_findings(p->file, &p->b);
}

static struct status compare_part(struct pairing *p, int64_t layer, enum part part, struct total *total) {
    p->layer = layer;
    p->part = part;
    p->n_compared = p->n_rows = 0;
    memset(p->units, 0, sizeof p->units);
    memset(p->a.edge, 0, sizeof p->a.edge);
    memset(p->b.edge, 0, sizeof p->b.edge);
    const bool a = fixture_has_layer(p->a.fixture, layer, part),
               b = fixture_has_layer(p->b.fixture, layer, part);
    if (a != b) {
        fprintf(p->file, "%-6s layers.%lld.%s\n", a ? "GONE" : "NEW", (long long)layer, part_name(part));
        total->gone |= a;
    }
    if (!a || !b) return status_ok();
    struct status s = side_begin(&p->a, layer, part);
    if (!s.code) s = side_begin(&p->b, layer, part);
    if (!s.code) s = check_sizes(p);
    if (!s.code) s = hold_all(p);
    if (!s.code) conclude_part(p, total);
    trunk_close(&p->a.trunk);
    trunk_close(&p->b.trunk);
    p->a.trunk = p->b.trunk = (struct trunk){0};
    return s;
}

static enum exit_code print_end(FILE *file, const struct total *t) {
    const long long n = (long long)t->n_compared, other = (long long)t->n_other,
                    within = (long long)t->n_within;
    if (!other && !t->gone)
        fprintf(file, "identical: %lld tensors, bit for bit\n", n);
    else if (other == within && !t->gone)
        fprintf(
            file,
            "other bits in %lld of %lld tensors, both within bounds: the reference on each file's own inputs "
            "allows both (docs/numerics.md)\n",
            other, n);
    else
        fprintf(file,
                "%lld of %lld tensors differ: %lld within bounds in both files, %lld outside or not judged\n",
                other, n, within, other - within);
    return other == within && !t->gone ? EXIT_PASSED : EXIT_DEFECT;
}

static struct status compare_layers(struct pairing *p, enum exit_code *code) {
    struct total total = {0};
    const int64_t n = fixture_model(p->a.fixture)->n_layers, m = fixture_model(p->b.fixture)->n_layers;
    for (int64_t layer = 0; layer < (n < m ? n : m); layer++)
        for (int part = 0; part < PART_COUNT; part++) TRY(compare_part(p, layer, (enum part)part, &total));
    if (!total.n_parts)
        return status_error("%.160s and %.160s: no layer's input is in both; give two dumps of one layer",
                            p->a.path, p->b.path);
    *code = print_end(p->file, &total);
    return status_ok();
}

struct status compare_fixtures(FILE *file, const char *a, const char *b, enum exit_code *code) {
    struct pairing *const p = memory_zeroed(1, sizeof *p);
    p->file = file;
    p->row = memory_zeroed(MAX_ROWS, sizeof *p->row);
    struct status s = side_open(&p->a, "A", a);
    if (!s.code) s = side_open(&p->b, "B", b);
    if (!s.code) s = compare_layers(p, code);
    fixture_close(p->a.fixture);
    fixture_close(p->b.fixture);
    free(p->row);
    free(p);
    return s;
}

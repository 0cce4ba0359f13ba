/* What did the unsharded run read and store? The same, as a file that --fixture reads. */
/* SPDX-License-Identifier: MIT */
#include "harness/dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 1 << 20 };

struct dump {
    char label[300]; /* "--dump FILE" */
    struct fixture_writer *writer;
    struct status skip;
    bool ranks;
};

static struct status read_config(const char *model, char *json) {
    const char *const preset = model_preset_json(model);
    if (preset) {
        snprintf(json, MAX_CONFIG_BYTES, "%s", preset);
        return status_ok();
    }
    char path[PATH_BYTES + 16];
    model_config_path(model, path);
    FILE *const file = fopen(path, "r");
    if (!file) return status_error("--dump: %.200s: %s", model, strerror(errno));
    json[fread(json, 1, MAX_CONFIG_BYTES - 1, file)] = 0;
    fclose(file);
    return status_ok();
}

static struct status check_one_run(const struct check_case *cases, int64_t n_cases) {
    if (fill_is_local(cases[0].fill))
        return status_error("--dump: with fill=%s no stage reads what another has stored; use --fill random",
                            fill_name(cases[0].fill));
    if (cases[0].phase != PHASE_PREFILL || cases[0].seqs != 1)
        return status_error(
            "--dump: a file holds one sequence from its first token; use --phase prefill with --seqs 1");
    for (int64_t i = 0; i < n_cases; i++) {
        struct check_case a = cases[0], b = cases[i];
        a.part = b.part;
        if (case_shares_trunk(&a, &b)) continue;
        a.tp = b.tp = a.ep = b.ep = 1;
        char one[CASE_LINE], two[CASE_LINE];
        case_print(&a, one, sizeof one);
        case_print(&b, two, sizeof two);
        return status_error(
            "--dump: one file holds one run of each part, %s and %s are two; name one of them", one, two);
    }
    return status_ok();
}

/* The ranks of one layout have one name each. ep cuts the ffn only. */
static struct status check_one_layout(const struct check_case *cases, int64_t n_cases, int64_t *ep) {
    *ep = 1;
    for (int64_t i = 0; i < n_cases; i++) {
        const bool first = i == 0 || cases[i].part != cases[i - 1].part;
        if (cases[i].part == PART_FFN) *ep = cases[i].ep;
        if (cases[i].tp != cases[0].tp || (!first && cases[i].ep != cases[i - 1].ep))
            return status_error("--ranks: one file holds the ranks of one layout; use one --tp and one --ep");
    }
    return status_ok();
}

static struct status open_writer(struct dump *d, const char *path, const struct check_case *c) {
    char *const json = memory_zeroed(MAX_CONFIG_BYTES, 1);
    struct status s = read_config(c->model, json);
    if (!s.code)
        s = fixture_create(d->label, path, json, "shardcheck " SHARDCHECK_VERSION, c->dtype,
                           c->layer < 0 ? 0 : c->layer, &d->writer);
    free(json);
    return s;
}

struct status dump_open(const struct run_request *o, struct dump **out) {
    *out = NULL;
    int64_t ep = 1;
    TRY(check_one_run(o->cases, o->n_cases));
    if (o->dump_ranks) TRY(check_one_layout(o->cases, o->n_cases, &ep));
    struct dump *const d = memory_zeroed(1, sizeof *d);
    snprintf(d->label, sizeof d->label, "--dump %s", o->dump_name ? o->dump_name : o->dump_path);
    d->ranks = o->dump_ranks;
    struct status s = open_writer(d, o->dump_path, &o->cases[0]);
    if (!s.code && d->ranks) s = fixture_create_ranks(d->writer, o->cases[0].tp, ep);
    if (s.code)
        dump_discard(d);
    else
        *out = d;
    return s;
}

void dump_skip(struct dump *d, const char *case_line, const char *why) {
    if (!d->skip.code)
        d->skip = status_error("%s: not written, %.160s was skipped: %.200s", d->label, case_line, why);
}

struct status dump_keep(struct dump *d) {
    if (!d) return status_ok();
    struct status s = d->skip;
    if (!s.code) {
        s = fixture_finish(d->writer);
        d->writer = NULL;
    }
    dump_discard(d);
    return s;
}

void dump_discard(struct dump *d) {
    if (!d) return;
    fixture_abandon(d->writer);
    free(d);
}

/* rank < 0: whole. */
static struct status dump_tensor(struct dump *d, const struct trunk *t, const char *group,
                                 const struct shard_plan *plan, int rank, enum tensor_id id,
                                 const struct stored *stored) {
    char name[128];
    int64_t shape[MAX_AXES];
    const int n = slice_shape(plan, id, rank, shape);
    snprintf(name, sizeof name, "layers.%lld.%s.%s", (long long)t->layer, part_name(t->c.part),
             tensor_table[id].name);
    return fixture_write(d->writer, group, name, stored->dtype, n, shape, stored->memory.data);
}

/* q and k are stored by more than one stage: the last one counts. */
static bool stored_again(const struct trunk *t, int stage, enum tensor_id id) {
    for (int later = stage + 1; later < S_COUNT; later++) {
        if (!trunk_has_stage(t, later)) continue;
        for (const enum tensor_id *out = stage_table[later].out; *out != T_NONE; out++)
            if (*out == id) return true;
    }
    return false;
}

static bool is_shown(const struct trunk *t, int stage, enum tensor_id id) {
    return tensor_table[id].role != ROLE_LOCAL && !seat_in_place(id) && !stored_again(t, stage, id);
}

struct status dump_stage(struct dump *d, const struct trunk *t, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        const enum tensor_role role = tensor_table[*id].role;
        const struct stored *const s = &t->store.of[*id];
        const bool first = role == ROLE_INPUT && (stage == S_ATTN_NORM || stage == S_FFN_NORM);
        if (s->count && (role == ROLE_WEIGHT || first))
            TRY(dump_tensor(d, t, role == ROLE_WEIGHT ? "weights" : "inputs", &t->crew.plan, -1, *id, s));
    }
    for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++)
        if (is_shown(t, stage, *id))
            TRY(dump_tensor(d, t, "activations", &t->crew.plan, -1, *id, &t->outcome.got.of[*id]));
    return status_ok();
}

/* A rank whose experts have no rows stores none. */
struct status dump_rank(struct dump *d, const struct trunk *t, const struct placed *at,
                        const struct store *got) {
    char group[32];
    if (!d || !d->ranks) return status_ok();
    snprintf(group, sizeof group, "ranks/%d", at->rank);
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++)
        if (is_shown(t, at->stage, *id) && got->of[*id].count)
            TRY(dump_tensor(d, t, group, &at->crew->plan, at->rank, *id, &got->of[*id]));
    return status_ok();
}

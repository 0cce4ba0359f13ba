/* What does a fixture file hold of a layer's part, whatever the layout of its ranks? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/dump_side.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct status side_open(struct side *s, const char *letter, const char *path) {
    *s = (struct side){.path = path, .letter = letter};
    TRY(fixture_open(path, &s->fixture));
    fixture_ranks(s->fixture, &s->tp, &s->ep);
    return status_ok();
}

/* Whose experts have which rows. */
static struct status count_rows(struct side *s, struct crew *crew) {
    const struct layer_spec *const spec = &s->trunk.crew.spec;
    const int64_t n = s->trunk.crew.plan.size[AXIS_T] * spec->top_k;
    if (crew->part != PART_FFN || !spec->moe) return status_ok();
    double *const values = memory_zeroed((size_t)n, sizeof *values);
    int32_t *const ids = memory_zeroed((size_t)n, sizeof *ids);
    bool found = false;
    const struct status status = fixture_read(s->fixture, s->trunk.layer, PART_FFN, T_IDS, n, values, &found);
    for (int64_t i = 0; i < n; i++) ids[i] = found ? (int32_t)values[i] : 0;
    crew_count_rows(crew, ids);
    free(values);
    free(ids);
    return status;
}

struct status side_begin(struct side *s, int64_t layer, enum part part) {
    struct check_case c = case_defaults();
    const struct model *const model = fixture_model(s->fixture);
    snprintf(c.model, sizeof c.model, "%s", s->path);
    c.part = part;
    c.layer = layer;
    c.dtype = model->dtype;
    c.tokens = fixture_n_tokens(s->fixture);
    case_finish(&c);
    TRY(case_check(&c, model, NULL));
    trunk_open(&s->trunk, &c, model, s->fixture, NULL, NULL);
    const struct layer_spec *const spec = &s->trunk.crew.spec;
    const int64_t tp = s->tp ? s->tp : 1, ep = s->tp && part == PART_FFN && spec->moe ? s->ep : 1;
    if (!plan_fits(spec, part, tp, ep))
        return status_error("%.200s: %lld ranks cannot hold the %s of layer %lld; store the layout that ran",
                            s->path, (long long)tp, part_name(part), (long long)layer);
    s->crew = (struct crew){.storage = c.dtype};
    crew_open(&s->crew, spec, part, &s->trunk.batch, tp, ep);
    TRY(count_rows(s, &s->trunk.crew));
    return count_rows(s, &s->crew);
}

struct status side_whole(const struct side *s, enum tensor_id id, double **out) {
    const int64_t n = slice_count(&s->trunk.crew.plan, id, -1);
    bool found = false;
    *out = memory_zeroed((size_t)n + 1, sizeof **out);
    const struct status status =
        fixture_read(s->fixture, s->trunk.layer, s->trunk.crew.part, id, n, *out, &found);
    if (!status.code && found) return status;
    free(*out);
    *out = NULL;
    return status;
}

struct status side_rank(const struct side *s, enum tensor_id id, int rank, double **out) {
    const int64_t n = slice_count(&s->crew.plan, id, rank);
    bool found = false;
    *out = memory_zeroed((size_t)n + 1, sizeof **out);
    const struct status status =
        fixture_read_rank(s->fixture, s->trunk.layer, s->crew.part, id, rank, n, *out, &found);
    if (!status.code && found) return status;
    free(*out);
    *out = NULL;
    return status;
}

static void merge_rank(const struct side *s, enum tensor_id id, int rank, double *part, struct merged *m) {
    const int64_t n = slice_count(&s->crew.plan, id, rank);
    const bool adds = tensor_table[id].role == ROLE_PARTIAL;
    double *const before = memory_zeroed((size_t)n + 1, sizeof *before);
    bool *const seen = memory_zeroed((size_t)n + 1, sizeof *seen);
    slice_copy(&s->crew.plan, id, rank, sizeof *before, before, m->values);
    slice_copy(&s->crew.plan, id, rank, sizeof *seen, seen, m->seen);
    for (int64_t i = 0; i < n; i++) {
        const bool other = seen[i] && memcmp(&before[i], &part[i], sizeof *part) != 0 &&
                           !(isnan(before[i]) && isnan(part[i]));
        if (!adds && other && m->conflict < 0) m->conflict = rank;
        if (adds) part[i] += before[i];
        seen[i] = true;
    }
    slice_put(&s->crew.plan, id, rank, sizeof *part, part, m->values);
    slice_put(&s->crew.plan, id, rank, sizeof *seen, seen, m->seen);
    free(before);
    free(seen);
}

struct status side_merged(const struct side *s, enum tensor_id id, struct merged *m) {
    const int64_t n = slice_count(&s->crew.plan, id, -1);
    struct status status = status_ok();
    *m = (struct merged){memory_zeroed((size_t)n + 1, sizeof(double)), memory_zeroed((size_t)n + 1, 1), -1};
    bool whole = true, any = false;
    for (int rank = 0; rank < s->tp && !status.code; rank++) {
        double *part;
        status = side_rank(s, id, rank, &part);
        if (part) merge_rank(s, id, rank, part, m), any = true;
        if (!part && tensor_table[id].role == ROLE_PARTIAL && slice_count(&s->crew.plan, id, rank))
            whole = false;
        free(part);
    }
    for (int64_t i = 0; i < n; i++) whole &= m->seen[i];
    free(m->seen);
    m->seen = NULL;
    if (whole && any && !status.code) return status;
    free(m->values);
    m->values = NULL;
    return status;
}

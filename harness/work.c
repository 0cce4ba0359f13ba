/* How much is there to compute? */
/* SPDX-License-Identifier: MIT */
#include "harness/work.h"

#include "harness/answer.h"

#define UNKNOWN_WORK 8e8 /* about a second */

static double case_work(const struct check_case *c, const struct model *model) {
    const struct layer_spec spec = case_spec(c, model);
    const struct fill fill = {.kind = c->fill, .seed = c->seed, .spec = &spec};
    struct batch batch;
    struct crew crew = {.storage = c->dtype, .unsharded = true};
    double work = 0;
    batch_build(&batch, c, &fill);
    crew_open(&crew, &spec, c->part, &batch, 1, 1);
    for (int stage = 0; stage < S_COUNT; stage++) {
        struct call call;
        if (!stage_applies(stage, c->part, &spec) || op_table[stage_table[stage].op].by_world) continue;
        call_sketch(&call, &(struct setting){stage, 0, &spec, &crew.plan, &batch}, crew.storage);
        work += call_work(&call);
    }
    batch_free(&batch);
    return 2 * work;
}

/* Cases that share a trunk have the same. */
double *request_work(const struct run_request *o) {
    double *const work = memory_zeroed((size_t)o->n_cases, sizeof *work);
    for (int64_t first = 0, n; first < o->n_cases; first += n) {
        const struct check_case *const c = &o->cases[first];
        struct model model;
        n = request_group(o, first);
        const bool known = !o->fixture_path && !o->judge.n_dumps && !model_load(c->model, &model).code;
        work[first] = known ? case_work(c, &model) : UNKNOWN_WORK;
        for (int64_t i = 1; i < n; i++) work[first + i] = work[first];
    }
    return work;
}

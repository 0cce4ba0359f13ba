/* What does a fixture bring, or a dump? */
/* SPDX-License-Identifier: MIT */
#include "harness/facts.h"

#include <string.h>

#include "fixtures/fixture.h"
#include "fixtures/recording.h"
#include "fixtures/tensor_file.h"

static struct status of_recording(const struct judge_wish *judge, struct facts *out) {
    const struct recording_source source = {judge->dump, judge->n_dumps, judge->model};
    struct recording *r;
    TRY(recording_open(&source, &r));
    out->model = *recording_model(r);
    out->tp = recording_tp(r);
    out->ep = recording_ep(r);
    for (int64_t layer = 0; layer < out->model.n_layers; layer++)
        for (int part = 0; part < PART_COUNT; part++)
            out->layer[layer][part] = recording_has_part(r, layer, (enum part)part);
    recording_unread(r, out->unread, sizeof out->unread);
    recording_close(r);
    return status_ok();
}

static struct status of_fixture(const char *path, struct facts *out) {
    struct fixture *fixture = NULL;
    TRY(fixture_open(path, &fixture));
    out->model = *fixture_model(fixture);
    out->n_tokens = fixture_n_tokens(fixture);
    fixture_ranks(fixture, &out->tp, &out->ep);
    if (!out->tp) out->tp = 1;
    for (int64_t layer = 0; layer < out->model.n_layers; layer++)
        for (int part = 0; part < PART_COUNT; part++)
            out->layer[layer][part] = fixture_has_layer(fixture, layer, (enum part)part);
    fixture_close(fixture);
    return status_ok();
}

bool judge_is_fixture(const struct judge_wish *judge) {
    struct tensor_file *file;
    if (judge->n_dumps != 1 || judge->model || tensor_file_open(judge->dump[0], &file).code) return false;
    const bool fixture = !strcmp(tensor_file_format(file), "HDF5") && tensor_file_fact(file, "config_json");
    tensor_file_close(file);
    return fixture;
}

struct status facts_read(const struct run_request *o, struct facts *out) {
    memset(out, 0, sizeof *out);
    if (!o->judge.n_dumps) return of_fixture(o->fixture_path, out);
    return judge_is_fixture(&o->judge) ? of_fixture(o->judge.dump[0], out) : of_recording(&o->judge, out);
}

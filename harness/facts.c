/* What does a fixture bring? */
/* SPDX-License-Identifier: MIT */
#include "harness/facts.h"

#include <string.h>

#include "fixtures/fixture.h"

struct status facts_read(const char *path, struct facts *out) {
    struct fixture *fixture = NULL;
    memset(out, 0, sizeof *out);
    TRY(fixture_open(path, &fixture));
    out->model = *fixture_model(fixture);
    out->n_tokens = fixture_n_tokens(fixture);
    for (int64_t layer = 0; layer < out->model.n_layers; layer++)
        for (int part = 0; part < PART_COUNT; part++)
            out->layer[layer][part] = fixture_has_layer(fixture, layer, (enum part)part);
    fixture_close(fixture);
    return status_ok();
}

/* Any bytes as a config.json: a model whose layers can be planned and counted, or one clean
 * line. */
/* SPDX-License-Identifier: MIT */
#include "fixtures/model.h"
#include "tests/fuzz/fuzz.h"

void fuzz_config(const uint8_t *data, size_t n) {
    static struct model m;
    const struct status s = model_parse("fuzz.json", (const char *)data, n, &m);
    if (s.code) {
        fuzz_check_refusal(&s);
        return;
    }
    FUZZ_CHECK(m.n_layers >= 1 && m.n_layers <= MAX_LAYERS && m.n_kinds >= 1 && m.n_kinds <= MAX_KINDS);
    for (int64_t i = 0; i < m.n_layers; i++) FUZZ_CHECK(m.kind_of[i] < m.n_kinds);
    FUZZ_CHECK(model_param_count(&m) > 0);
}

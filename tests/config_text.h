/* config_text - a preset's config.json with changes, and what must be said of a wrong one. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CONFIG_TEXT_H
#define TESTS_CONFIG_TEXT_H

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/model.h"

static inline struct model preset(const char *name) {
    struct model m;
    const struct status status = model_load(name, &m);
    cr_assert(!status.code, "%s", status.message);
    return m;
}

/* The preset's config with `patch` (a JSON object) on top; to be freed. */
static inline char *patched_config(const char *name, const char *patch) {
    json_t *config = json_loads(model_preset_json(name), 0, NULL);
    json_t *changes = json_loads(patch, 0, NULL);
    cr_assert(config && changes, "%s", patch);
    json_object_update(config, changes);
    char *text = json_dumps(config, 0);
    json_decref(changes);
    json_decref(config);
    return text;
}

static inline void patched_config_write(const char *name, const char *patch, const char *path) {
    char *const text = patched_config(name, patch);
    FILE *const file = fopen(path, "w");
    cr_assert(file && fputs(text, file) >= 0 && !fclose(file), "%s", path);
    free(text);
}

static inline struct status parse_patched(const char *name, const char *patch, struct model *out) {
    char *const text = patched_config(name, patch);
    const struct status status = model_parse("test.json", text, strlen(text), out);
    free(text);
    return status;
}

static inline void must_say(struct status status, const char *first, const char *second) {
    cr_assert(status.code, "accepted, expected an error with %s", first);
    cr_expect(!strncmp(status.message, "test.json: ", 11), "%s", status.message);
    cr_expect(strstr(status.message, first) && strstr(status.message, second), "%s", status.message);
    cr_expect(!strchr(status.message, '\n'), "%s", status.message);
}

#endif

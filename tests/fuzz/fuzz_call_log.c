/* Any bytes as the metadata of a logged call: its arguments are told, or why there are none. */
/* SPDX-License-Identifier: MIT */
#include <unistd.h>

#include "fixtures/call_log.h"
#include "tests/fuzz/fuzz.h"

static char folder[64], path[96];

static void remove_folder(void) {
    unlink(path);
    rmdir(folder);
}

static void make_folder(void) {
    strcpy(folder, "/tmp/shardcheck-fuzz-XXXXXX");
    FUZZ_CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/metadata.jsonl", folder);
    atexit(remove_folder);
}

void fuzz_call_log(const uint8_t *data, size_t n) {
    if (!folder[0]) make_folder();
    FILE *const file = fopen(path, "wb");
    FUZZ_CHECK(file && fwrite(data, 1, n, file) == n && !fclose(file));
    struct call_log *log;
    const struct status s = call_log_open(folder, &log);
    FUZZ_CHECK(!s.code && call_log_count(log) == 1 && call_log_recognises(folder));
    struct logged_call *const c = call_log_at(log, 0);
    call_open(c);
    FUZZ_CHECK(c->problem[0] || c->function[0]);
    for (int i = 0; !c->problem[0] && call_given(c, i); i++) {
        const struct call_value v = call_argument(c, call_given(c, i));
        FUZZ_CHECK(v.kind != VALUE_TENSOR && strlen(v.text) < CALL_TEXT);
    }
    call_close(c);
    call_log_close(log);
}

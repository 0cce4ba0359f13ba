/* Everything that was timed, for programs, and back. Schema shardcheck-bench/1; keys are only ever
 * added. What follows from the samples stands beside them, and is not read. */
/* SPDX-License-Identifier: MIT */
#include "reports/bench.h"
#include "reports/json_values.h"

/* ---- writing ---- */

static json_t *series_object(const struct bench_result *r, const struct bench_row *row,
                             enum bench_cache cache, bool *failed) {
    const struct bench_series *const s = &row->series[cache];
    const struct bench_spread spread = bench_spread_of(s);
    const struct bench_limits limits = bench_limits_of(r);
    const struct bench_share share = bench_share_of(row, cache, &limits);
    const struct bench_row *peer;
    json_t *const o = json_object(), *const seconds = json_array();
    for (int i = 0; i < s->n; i++)
        if (json_array_append_new(seconds, number(s->seconds[i]))) *failed = true;
    set(o, "median", number(spread.median), failed);
    set(o, "quartile_1", number(spread.q1), failed);
    set(o, "quartile_3", number(spread.q3), failed);
    if (share.share > 0 && !row->gauge) {
        set(o, "share", number(share.share), failed);
        set(o, "share_of", string(share.by_memory ? "copy" : "dense"), failed);
    }
    const double ratio = row->peer || row->gauge ? 0 : bench_ratio(r, row, cache, &peer);
    if (ratio > 0) {
        set(o, "fastest_peer", string(peer->name), failed);
        set(o, "peer_over_ours", number(ratio), failed);
    }
    set(o, "per_round", integer(s->per_round), failed);
    set(o, "seconds", seconds, failed);
    return o;
}

static json_t *row_object(const struct bench_result *r, const struct bench_row *row, bool *failed) {
    json_t *const o = json_object();
    set(o, "shape", string(row->shape), failed);
    set(o, "name", string(row->name), failed);
    if (row->peer) set(o, "peer", json_true(), failed);
    if (row->gauge) set(o, "gauge", json_true(), failed);
    set(o, "state", string(bench_state_name(row->state)), failed);
    if (row->note[0]) set(o, "note", string(row->note), failed);
    if (row->rows) {
        set(o, "rows_judged", integer(row->rows_judged), failed);
        set(o, "rows", integer(row->rows), failed);
        set(o, "elements", integer(row->elements), failed);
        set(o, "margin", number(row->margin), failed);
    }
    set(o, "bytes", number(row->bytes), failed);
    set(o, "flops", number(row->flops), failed);
    for (int cache = 0; cache < BENCH_CACHES; cache++)
        if (row->series[cache].n)
            set(o, bench_cache_name((enum bench_cache)cache),
                series_object(r, row, (enum bench_cache)cache, failed), failed);
    return o;
}

void bench_json(FILE *file, const struct bench_result *r) {
    bool failed = false;
    json_t *const root = json_object(), *const rows = json_array();
    const struct bench_limits limits = bench_limits_of(r);
    for (int64_t i = 0; i < r->n_rows; i++)
        if (json_array_append_new(rows, row_object(r, &r->row[i], &failed))) failed = true;
    set(root, "schema", string("shardcheck-bench/1"), &failed);
    set(root, "version", string(r->version), &failed);
    set(root, "device", string(r->device), &failed);
    set(root, "speed", string(r->speed), &failed);
    set(root, "command", string(r->command), &failed);
    if (r->peers[0]) set(root, "peers", string(r->peers), &failed);
    if (r->stopped[0]) set(root, "stopped", string(r->stopped), &failed);
    set(root, "copy_bytes_per_second", number(limits.bytes), &failed);
    set(root, "dense_flops_per_second", number(limits.flops), &failed);
    set(root, "rows", rows, &failed);
    if (failed || json_dumpf(root, file, JSON_INDENT(1)))
        fputs("{\"schema\": \"shardcheck-bench/1\", \"error\": \"out of memory\"}", file);
    fputc('\n', file);
    json_decref(root);
}

/* ---- reading ---- */

static bool read_series(const json_t *row, enum bench_cache cache, struct bench_series *s) {
    const json_t *const o = json_object_get(row, bench_cache_name(cache)), *const seconds =
                                                                               json_object_get(o, "seconds");
    const size_t n = json_array_size(seconds), most = 1 << 20;
    int64_t per_round = 0;
    if (!o) return true;
    if (!read_integer(o, "per_round", &per_round) || !n || n > most || per_round < 1 ||
        per_round > (int64_t)n)
        return false;
    s->seconds = calloc(n, sizeof *s->seconds);
    if (!s->seconds) return false;
    s->n = (int)n;
    s->per_round = (int)per_round;
    for (size_t i = 0; i < n; i++) {
        const json_t *const v = json_array_get(seconds, i);
        s->seconds[i] = json_number_value(v);
        if (!json_is_number(v) || !(s->seconds[i] > 0)) return false;
    }
    return true;
}

static bool read_row(const json_t *o, struct bench_row *row) {
    const char *const state = json_string_value(json_object_get(o, "state"));
    int s = 0;
    while (state && s <= BENCH_REFUSED && strcmp(state, bench_state_name((enum bench_state)s)) != 0) s++;
    if (!state || s > BENCH_REFUSED) return false;
    row->state = (enum bench_state)s;
    row->peer = json_is_true(json_object_get(o, "peer"));
    row->gauge = json_is_true(json_object_get(o, "gauge"));
    return read_string(o, "shape", row->shape, sizeof row->shape) && row->shape[0] &&
           read_string(o, "name", row->name, sizeof row->name) && row->name[0] &&
           read_string(o, "note", row->note, sizeof row->note) &&
           read_integer(o, "rows_judged", &row->rows_judged) && read_integer(o, "rows", &row->rows) &&
           read_integer(o, "elements", &row->elements) && read_number(o, "margin", &row->margin) &&
           read_number(o, "bytes", &row->bytes) && read_number(o, "flops", &row->flops) &&
           read_series(o, BENCH_COLD, &row->series[BENCH_COLD]) &&
           read_series(o, BENCH_WARM, &row->series[BENCH_WARM]) &&
           (row->state == BENCH_TIMED || !(row->series[BENCH_COLD].n + row->series[BENCH_WARM].n));
}

static bool read_all(const json_t *root, struct bench_result *r) {
    const json_t *const rows = json_object_get(root, "rows");
    const size_t most = 4096;
    if (!json_is_array(rows) || json_array_size(rows) > most ||
        !read_string(root, "version", r->version, sizeof r->version) ||
        !read_string(root, "device", r->device, sizeof r->device) ||
        !read_string(root, "speed", r->speed, sizeof r->speed) ||
        !read_string(root, "command", r->command, sizeof r->command) ||
        !read_string(root, "peers", r->peers, sizeof r->peers) ||
        !read_string(root, "stopped", r->stopped, sizeof r->stopped))
        return false;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        struct bench_row *const row = bench_result_add(r);
        if (!read_row(json_array_get(rows, i), row) || bench_find(r, row) != row) return false; /* twice */
    }
    return true;
}

bool bench_is_json(const char *text, size_t length) {
    json_t *const root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    const char *const schema = json_string_value(json_object_get(root, "schema"));
    const bool is = schema && !strncmp(schema, "shardcheck-bench/", 17);
    json_decref(root);
    return is;
}

const char *bench_read(const char *text, size_t length, struct bench_result *out) {
    *out = (struct bench_result){0};
    json_t *const root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    const char *const schema = json_string_value(json_object_get(root, "schema"));
    const char *problem = NULL;
    if (!schema || strncmp(schema, "shardcheck-bench/", 17) != 0)
        problem = "nothing that was timed; give what bench --report json:FILE wrote";
    else if (strcmp(schema, "shardcheck-bench/1") != 0)
        problem = "of another version, whose schema is not shardcheck-bench/1; measure again";
    else if (!read_all(root, out))
        problem = "a damaged report of bench; write it again";
    json_decref(root);
    if (problem) bench_result_free(out);
    return problem;
}

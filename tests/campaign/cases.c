/* Do the real kernels pass in cases that nobody chose? A line of random sizes and switches, through
 * the whole engine; lines that the command line refuses are drawn again. */
/* SPDX-License-Identifier: MIT */
#include "tests/campaign/campaign.h"

#include <stdio.h>
#include <string.h>

#include "harness/cli/options.h"

static long long draw(struct trial *t, int64_t low, int64_t high) {
    return (long long)trial_draw(t, low, high);
}

#define PICK(t, ...)                                                                                         \
    ((const char *const[]){__VA_ARGS__})[trial_draw(                                                         \
        t, 0, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *) - 1)]

static int attention_line(struct trial *t, char *line, size_t size) {
    const long long kv = draw(t, 1, 4), half = draw(t, 2, 40);
    return snprintf(
        line, size,
        "tiny/attention:hidden=%lld,heads=%lld,kv=%lld,dim=%lld,rot=%lld,bias=%s,qk_norm=%s,layout=%s",
        8 * draw(t, 1, 24), kv * draw(t, 1, 9), kv, 2 * half, 2 * draw(t, 0, half),
        PICK(t, "none", "qkv", "o", "qkvo"), PICK(t, "on", "off"), PICK(t, "packed", "contig"));
}

static int ffn_line(struct trial *t, char *line, size_t size) {
    const long long groups = draw(t, 1, 4), experts = groups * draw(t, 2, 12), kept = draw(t, 1, groups);
    const long long room = kept * (experts / groups);
    return snprintf(
        line, size,
        "tiny/ffn:hidden=%lld,experts=%lld,top=%lld,width=%lld,shared=%lld,groups=%lld,topk_groups=%lld,"
        "group_fill=%s,score=%s,select_bias=%s,renorm=%s,ep=%s",
        8 * draw(t, 1, 24), experts, draw(t, 1, room < 8 ? room : 8), 8 * draw(t, 1, 12), 8 * draw(t, 0, 8),
        groups, kept, PICK(t, "-inf", "0"), PICK(t, "sigmoid", "softmax"), PICK(t, "on", "off"),
        PICK(t, "on", "off"), PICK(t, "1", "1", "2", "4"));
}

static void run_line(struct trial *t, const struct options *o) {
    struct run_output out;
    const struct status s = run_cases(&o->run, &out);
    char text[400];
    if (s.code) {
        trial_alarm(t, s.message);
        return;
    }
    for (int64_t i = 0; i < out.result.n_cases; i++) {
        const struct case_result *const r = &out.cases[i];
        t->elements += r->edge[EDGE_KERNEL].elements + r->edge[EDGE_SHARD].elements;
        if (r->verdict != CASE_FAILED) continue;
        snprintf(text, sizeof text, "%.120s, %.40s.%.40s: %.120s", r->where, r->first.stage, r->first.tensor,
                 r->first.note);
        trial_alarm(t, text);
    }
    run_output_free(&out);
}

bool case_trial(struct trial *t) {
    const bool ffn = trial_flip(t);
    char line[600];
    size_t n = (size_t)(ffn ? ffn_line : attention_line)(t, line, sizeof line);
    snprintf(line + n, sizeof line - n,
             ",phase=%s,tokens=%lld,cached=%lld,seqs=%lld,dtype=%s,seed=%lld,tp=%s",
             PICK(t, "prefill", "chunked", "decode"), draw(t, 1, 40), draw(t, 0, 200), draw(t, 1, 3),
             PICK(t, "bf16", "fp16", "fp32"), draw(t, 1, 1 << 20), PICK(t, "1", "2", "4", "8"));
    char *argv[] = {"shardcheck", "run", line};
    struct options o;
    snprintf(t->made_of, sizeof t->made_of, "shardcheck run '%s'", line);
    if (options_parse(3, argv, &o).code) return false;
    run_line(t, &o);
    options_free(&o);
    return true;
}

/* Are the numbered schedules all different and always the same; does a kernel whose bits hang on
 * the order of its threads fail on the edge it belongs to, with place, schedule and reproducer; and
 * do ours pass under every order? */
/* SPDX-License-Identifier: MIT */
#include "harness/schedules.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/options.h"

/* ---- the list ---- */

static bool same(struct simt_options a, struct simt_options b) {
    return a.order == b.order && a.async == b.async && a.seed == b.seed;
}

Test(schedules, the_first_is_the_plain_run_and_twelve_meet_every_pair) {
    bool met[SIMT_ORDER_COUNT][SIMT_ASYNC_COUNT] = {{false}};
    cr_expect(same(schedule_numbered(0), simt_get_options()), "what a run without --schedules uses");
    for (int i = 0; i < 12; i++) {
        const struct simt_options s = schedule_numbered(i);
        cr_expect_not(met[s.order][s.async], "number %d", i);
        met[s.order][s.async] = true;
    }
}

Test(schedules, a_number_names_one_schedule_and_no_two_share_it) {
    char text[MAX_SCHEDULES][64];
    for (int i = 0; i < MAX_SCHEDULES; i++) {
        cr_expect(same(schedule_numbered(i), schedule_numbered(i)));
        schedule_describe(i, text[i], sizeof text[i]);
        for (int j = 0; j < i; j++) cr_expect_str_neq(text[i], text[j]);
        if (i >= 12)
            cr_expect_geq(schedule_numbered(i).order, SIMT_RANDOM_LANES, "%s repeats an earlier run",
                          text[i]);
    }
    cr_expect_str_eq(text[5], "order descending, async random, seed 6");
}

Test(schedules, a_schedule_leaves_the_threads_alone) {
    struct device *device;
    cr_assert_eq(device_open(DEVICE_HOST, &device).code, STATUS_OK);
    simt_set_threads(3);
    const struct simt_options s = schedule_numbered(7);
    cr_assert_eq(device_set_schedule(device, &s).code, STATUS_OK);
    cr_expect(same(simt_get_options(), s));
    cr_expect_eq(simt_get_options().threads, 3);
    device_close(device);
}

/* ---- whole runs ---- */

/* One attention case of preset tiny whose `stage` runs `kernel`. */
static void run(const char *text, const char *schedules, int stage, const struct kernel *kernel,
                struct options *o, struct run_output *out) {
    char *argv[] = {"shardcheck", "run", (char *)text, "--schedules", (char *)schedules};
    struct status s = options_parse(5, argv, o);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    cr_assert_eq(o->run.n_cases, 1);
    if (kernel) ((struct check_case *)o->run.cases)[0].kernel[stage] = kernel;
    s = run_cases(&o->run, out);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
}

static void done(struct options *o, struct run_output *out) {
    run_output_free(out);
    options_free(o);
}

/* A kernel of the registry, with another launch. */
static struct kernel disguised(const char *name, launch_fn launch) {
    struct kernel k = *kernel_by_name(name);
    k.launch[DEVICE_HOST] = launch;
    return k;
}

static void expect_failure(const struct case_result *r, enum edge edge, const char *note) {
    for (int e = 0; e < EDGE_COUNT; e++)
        cr_expect_eq(r->edge[e].state == EDGE_FAIL, e == (int)edge, "edge %d of %s", e, r->line);
    cr_expect_eq(r->verdict, CASE_FAILED);
    cr_expect(!strncmp(r->first.note, note, strlen(note)), "'%s' is not '%s'", r->first.note, note);
    cr_expect(strstr(r->repro, " --schedules "), "%s", r->repro);
}

Test(schedules, correct_kernels_store_the_same_bits_under_all, .timeout = 120) {
    static const char *const cases[] = {"tiny/attention:tp=2,phase=chunked,tokens=5,cached=9",
                                        "tiny/attention:tp=4,phase=decode,tokens=3,cached=40",
                                        "tiny/ffn:tp=2,tokens=5"};
    for (int i = 0; i < 3; i++) {
        struct options o;
        struct run_output out;
        run(cases[i], "5", 0, NULL, &o, &out);
        cr_expect_eq(out.result.n_passed, 1, "%s: %s", cases[i], out.cases[0].where);
        cr_expect(same(simt_get_options(), schedule_numbered(0)), "the plain schedule is back");
        done(&o, &out);
    }
}

const char *arrival_host(const struct call *call, void *scratch, void *stream);

Test(schedules, a_kernel_that_hangs_on_the_order_passes_once_and_fails_twice) {
    const struct kernel arrival = disguised("residual", arrival_host);
    struct options o;
    struct run_output out;
    run("tiny/attention:tp=1,tokens=4", "1", S_ATTN_RESIDUAL, &arrival, &o, &out);
    cr_expect_eq(out.result.n_passed, 1);
    done(&o, &out);

    run("tiny/attention:tp=1,tokens=4", "2", S_ATTN_RESIDUAL, &arrival, &o, &out);
    const struct case_result *r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED);
    cr_expect_eq(r->edge[EDGE_KERNEL].state, EDGE_FAIL);
    cr_expect_str_eq(r->first.note, "depends on the schedule (order descending, async eager, seed 2)");
    cr_expect_str_eq(r->first.stage, "attn_residual");
    cr_expect_str_eq(r->first.tensor, "y");
    cr_expect_eq(r->first.rank, -1);
    cr_expect(strstr(r->where, "stage attn_residual"), "%s", r->where);
    cr_expect(strstr(r->repro, "tp=1") && strstr(r->repro, " --schedules 2"), "%s", r->repro);
    done(&o, &out);
}

/* rope, but for one bit of one head of ranks that do not hold all 8 heads, when warps are
 * shuffled. */
static const char *rope_of_ranks(const struct call *call, void *scratch, void *stream) {
    const struct rope_args *const a = &call->u.rope;
    const char *const refused = kernel_by_name("rope")->launch[DEVICE_HOST](call, scratch, stream);
    if (a->n_heads < 8 && simt_get_options().order == SIMT_RANDOM_WARPS)
        ((uint16_t *)a->q_out.data)[a->q_out.stride[0] + a->q_out.stride[1] + 3] ^= 1;
    return refused;
}

Test(schedules, a_difference_of_a_rank_is_the_shard_edges) {
    const struct kernel rope = disguised("rope", rope_of_ranks);
    struct options o;
    struct run_output out;
    run("tiny/attention:tp=2,tokens=4", "4", S_ROPE, &rope, &o, &out);
    expect_failure(&out.cases[0], EDGE_SHARD,
                   "depends on the schedule (order random warps, async lazy, seed 4)");
    cr_expect_eq(out.cases[0].first.rank, 0);
    cr_expect_str_eq(out.cases[0].first.where, "token 1 head 1 dim 3");
    cr_expect_eq(out.cases[0].edge[EDGE_SHARD].outside, 2, "one element a rank");
    done(&o, &out);
}

/* rope, whose plain run leaves an element of the unsharded call as it found it; `late`: other runs
 * store another wrong value there. */
static bool late;
static const char *rope_wrong_at_first(const struct call *call, void *scratch, void *stream) {
    const struct rope_args *const a = &call->u.rope;
    const char *const refused = kernel_by_name("rope")->launch[DEVICE_HOST](call, scratch, stream);
    uint16_t *const element = (uint16_t *)a->q_out.data + a->q_out.stride[0] + 3;
    const bool plain = simt_get_options().order == SIMT_ASCENDING && simt_get_options().async == SIMT_LAZY;
    if (a->n_heads == 8 && plain) *element = 0xffff;
    if (a->n_heads == 8 && !plain && late) *element = 0x4f00;
    return refused;
}

Test(schedules, a_plain_run_that_is_wrong_is_not_the_measure_of_the_others) {
    const struct kernel rope = disguised("rope", rope_wrong_at_first);
    static const char *const others[] = {
        "NaN: never written, or read from where nothing is; depends on the schedule: all right under (order "
        "descending, async eager, seed 2)",
        "NaN: never written, or read from where nothing is; depends on the schedule: other values, not all "
        "right either, under (order descending, async eager, seed 2)"};
    for (int i = 0; i < 2; i++) {
        struct options o;
        struct run_output out;
        late = i;
        run("tiny/attention:tp=2,tokens=4", "4", S_ROPE, &rope, &o, &out);
        const struct case_result *const r = &out.cases[0];
        cr_expect_eq(r->edge[EDGE_KERNEL].state, EDGE_FAIL);
        cr_expect_eq(r->edge[EDGE_KERNEL].outside, 1, "once, by the reference: %d",
                     (int)r->edge[EDGE_KERNEL].outside);
        cr_expect_str_eq(r->first.note, others[i]);
        cr_expect(isnan(r->first.got) && !isnan(r->first.expected), "the reference is the measure");
        done(&o, &out);
    }
}

static const char *rope_refused(const struct call *call, void *scratch, void *stream) {
    if (simt_get_options().order == SIMT_DESCENDING) return "kernel rope: came in the wrong order";
    return kernel_by_name("rope")->launch[DEVICE_HOST](call, scratch, stream);
}

Test(schedules, an_error_under_one_schedule_names_it) {
    const struct kernel rope = disguised("rope", rope_refused);
    struct options o;
    struct run_output out;
    run("tiny/attention:tp=1,tokens=4", "2", S_ROPE, &rope, &o, &out);
    cr_expect_eq(out.cases[0].edge[EDGE_KERNEL].state, EDGE_FAIL);
    cr_expect(strstr(out.cases[0].first.note, "(order descending, async eager, seed 2): kernel rope"), "%s",
              out.cases[0].first.note);
    done(&o, &out);
}

/* permute as atomics make it: under another schedule the first two rows of the first expert that has
 * two are exchanged. `forgetful`: in row_slot alone. */
static bool forgetful;
static const char *permute_in_some_order(const struct call *call, void *scratch, void *stream) {
    const struct permute_args *const a = &call->u.permute;
    const char *const refused = kernel_by_name("permute_simt")->launch[DEVICE_HOST](call, scratch, stream);
    const int32_t *const offsets = a->offsets.data;
    int32_t *const row_slot = a->row_slot.data, *const slot_row = a->slot_row.data;
    int64_t e = 0;
    while (offsets[e + 1] - offsets[e] < 2) cr_assert(++e < a->expert_count);
    const int32_t r = offsets[e], slot = row_slot[r];
    if (simt_get_options().order == SIMT_ASCENDING) return refused;
    row_slot[r] = row_slot[r + 1], row_slot[r + 1] = slot;
    if (forgetful) return refused;
    slot_row[slot] = r + 1, slot_row[row_slot[r]] = r;
    uint16_t *const row = (uint16_t *)a->rows.data + r * a->width;
    for (int64_t c = 0; c < a->width; c++) {
        const uint16_t bits = row[c];
        row[c] = row[a->width + c], row[a->width + c] = bits;
    }
    return refused;
}

Test(schedules, rows_of_an_expert_may_stand_in_another_order_if_all_follow_it) {
    const struct kernel permute = disguised("permute_simt", permute_in_some_order);
    struct options o;
    struct run_output out;
    run("tiny/ffn:tp=2,ep=2,tokens=9", "3", S_PERMUTE, &permute, &o, &out);
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "%s", out.cases[0].first.note);
    done(&o, &out);
    forgetful = true;
    run("tiny/ffn:tp=2,ep=2,tokens=9", "3", S_PERMUTE, &permute, &o, &out);
    cr_expect(out.cases[0].edge[EDGE_KERNEL].state == EDGE_FAIL);
    cr_expect(strstr(out.cases[0].first.note, "depends on the schedule (order descending"), "%s",
              out.cases[0].first.note);
    done(&o, &out);
}

/* ---- the option ---- */

Test(schedules, numbers_out_of_range_and_gpus_are_refused) {
    static const char *const mistakes[][3] = {
        {"0", "host", "--schedules 0: use an integer from 1 to 64"},
        {"65", "host", "--schedules 65: use an integer from 1 to 64"},
        {"-1", "host", "--schedules -1: use an integer from 1 to 64"},
        {"3x", "host", "--schedules 3x: use an integer from 1 to 64"},
        {"99999999999999999999", "host", "use an integer from 1 to 64"},
        {"2", "cuda", "--schedules 2: only the host device"},
        {"1", "host,cuda", "--schedules 1: only the host device"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        char *argv[] = {
            "shardcheck",          "run", "tiny", "--schedules", (char *)mistakes[i][0], "--device",
            (char *)mistakes[i][1]};
        struct options o;
        const struct status s = options_parse(7, argv, &o);
        cr_expect(s.code && strstr(s.message, mistakes[i][2]), "%s: '%s'", mistakes[i][2], s.message);
    }
    char *argv[] = {"shardcheck", "run", "tiny/ffn"};
    struct options o;
    cr_assert_eq(options_parse(3, argv, &o).code, STATUS_OK);
    cr_expect_eq(o.run.schedules, 1);
    options_free(&o);
}

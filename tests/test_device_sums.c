/* Does the kernel that adds up for the reference have the bits of the reference's own loops? On the host
 * device; on a GPU every run asks that again of some rows. */
/* SPDX-License-Identifier: MIT */
#include "harness/device_sums.h"
#include "reports/report.h"
#include "tests/one_case.h"
#include "tests/summer_calls.h"

struct emulated {
    struct device *device;
    struct device_sums sums;
};

static void emulate(struct emulated *e) {
    const struct status opened = device_open(DEVICE_HOST, &e->device);
    cr_assert_not(opened.code, "%s", opened.message);
    device_sums_open(&e->sums, e->device, SUMS_DEVICE);
}

static void end(struct emulated *e) {
    device_sums_close(&e->sums);
    device_close(e->device);
}

Test(device_sums, every_bit_is_that_of_the_loops) {
    struct emulated e;
    emulate(&e);
    for (int i = 0; i < N_SUMMER_SHAPES; i++) expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[i]);
    cr_expect_str_eq(e.sums.summer.wrong, "");
    cr_expect_str_eq(e.sums.summer.why, "");
    cr_expect_gt(e.sums.summer.answers, 2 * N_SUMMER_SHAPES);
    end(&e);
}

Test(device_sums, sums_without_an_error_are_told_from_others) {
    struct emulated e;
    emulate(&e);
    struct summer_call c = summer_call_make(&summer_shapes[N_SUMMER_SHAPES - 1]); /* whole numbers */
    int64_t n, exact = 0;
    double *const whole = summer_answer(&c, 0, &n);
    for (int64_t i = n; i < 2 * n; i++) exact += whole[i] == 0;
    cr_expect_eq(exact, n);
    dtype_store(c.owned[0], DTYPE_BF16, 0, 0x1p-30); /* of the first row */
    double *const others = summer_answer(&c, 0, &n);
    for (int64_t i = n; i < 2 * n; i++) exact -= others[i] == 0;
    cr_expect(exact > 0 && exact <= 70, "%lld", (long long)exact);
    cr_expect_eq(e.sums.summer.answers, 4, "with bounds, and as there are exact ones plain sums");
    free(whole), free(others);
    summer_call_free(&c);
    end(&e);
}

Test(device_sums, numbers_at_the_ends_of_their_formats_have_the_same_bits_too) {
    enum { ROWS = 3, COLS = 2, INNER = 8 };
    double x[ROWS * INNER] = {/* products below the normal numbers, */
                              0x1p-540, 0x1p-1074, -0x1p-540, 3, -0.0, 0, 0x1p-1022, -1,
                              /* sums beyond the largest, then NaN, */
                              1e308, 1e308, 1, -1e308, -1e308, INFINITY, 1, 2,
                              /* and NaN at once */
                              NAN, 1, 2, 3, INFINITY, -INFINITY, 0, -5};
    double w[COLS * INNER] = {0x1p-530, 0.5, 0x1p-530, -0x1p-1074, 0.0, -1, 0x1p-10,  7,
                              1,        1.5, -1,       1,          1,   -1, INFINITY, 1};
    struct summer_call c = {.call.op = OP_LINEAR, .contract = contract_exact(OP_LINEAR)};
    c.call.u.linear = (struct linear_args){.x = {x, DTYPE_F64, {INNER}, 0, ROWS * INNER},
                                           .w = {w, DTYPE_F64, {0, INNER}, 0, COLS * INNER},
                                           .n_rows = ROWS,
                                           .n_cols = COLS,
                                           .n_inner = INNER,
                                           .n_groups = 1};
    struct emulated e;
    emulate(&e);
    expect_same_answers(&e.sums.summer, &c, "ends");
    cr_expect_str_eq(e.sums.summer.wrong, "");
    cr_expect_eq(e.sums.summer.answers, 3);
    end(&e);
}

Test(device_sums, calls_of_few_products_or_of_few_rows_a_group_are_not_worth_the_way) {
    struct emulated e;
    emulate(&e);
    e.sums.summer.least_work = 70 * 67 * 40; /* all rows; without the first, there is less to do */
    expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[7]);
    cr_expect_eq(e.sums.summer.answers, 1);
    e.sums.summer.least_work =
        0; /* groups of 1, 35, 32 and 2 rows; without the first row, of the last three */
    e.sums.summer.least_rows = 20;
    expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[7]);
    cr_expect_eq(e.sums.summer.answers, 3);
    end(&e);
}

static const struct accumulator chain_of_fma = {.unit = UNIT_F32, .block = 1};
static const struct accumulator cores[] = {{.block = 16, .fraction = 25, .keep = 24},
                                           {.block = 8, .fraction = 24, .keep = 23},
                                           {.block = 4, .fraction = 23, .keep = 24}};

Test(device_sums, an_order_gives_the_very_bits_that_the_loops_give) {
    struct emulated e;
    emulate(&e);
    int chains = 0, steps = 0;
    for (int i = 0; i < N_SUMMER_SHAPES; i++)
        for (int64_t each = 1; each <= 3; each++) {
            const struct summer_shape *const s = &summer_shapes[i];
            if (s->x == DTYPE_F64) continue;
            expect_same_replays(&e.sums.summer, s, chain_of_fma, each), chains++;
            for (size_t k = 0; k < sizeof cores / sizeof *cores; k++)
                if (s->x == DTYPE_BF16 && s->w == DTYPE_BF16 && s->slice % cores[k].block == 0)
                    expect_same_replays(&e.sums.summer, s, cores[k], each), steps++;
        }
    cr_expect_str_eq(e.sums.summer.wrong, "");
    cr_expect_geq(e.sums.summer.answers, chains + steps);
    cr_expect(chains > 20 && steps > 30);
    end(&e);
}

Test(device_sums, an_order_that_the_kernel_does_not_know_is_replayed_on_the_cpu) {
    struct emulated e;
    emulate(&e);
    expect_same_replays(&e.sums.summer, &summer_shapes[1],
                        (struct accumulator){.block = 64, .fraction = 25, .keep = 24}, 1);
    cr_expect_eq(e.sums.summer.answers, 0);
    cr_expect_str_eq(e.sums.summer.wrong, "");
    cr_expect(strstr(e.sums.summer.why, "no whole steps"), "%s", e.sums.summer.why);
    end(&e);
}

static bool replay_zeros(struct ref_summer *self, struct ref_sums *s) {
    static double *zeros;
    (void)self;
    free(zeros);
    s->y = zeros = calloc((size_t)(s->n_rows * s->n_cols), sizeof *zeros);
    return true;
}

Test(device_sums, an_order_whose_sums_differ_is_found_and_the_loops_answer) {
    struct ref_summer wrong = {.sum = replay_zeros};
    expect_same_replays(&wrong, &summer_shapes[1], cores[0], 2);
    cr_expect(strstr(wrong.wrong, "disagrees with the CPU's: the sum in order of row 0, column "), "%s",
              wrong.wrong);
}

/* ---- in a run ---- */

/* The case without its times and without who added up. */
static char *told(struct run_output *out) {
    struct case_result *const r = &out->cases[0];
    r->seconds = 0;
    r->sums[0] = 0;
    for (int i = 0; i < r->n_stages; i++) r->stage[i].seconds_kernel = r->stage[i].seconds_reference = 0;
    return report_case_json(r);
}

Test(device_sums, a_run_tells_the_very_same_whoever_adds_up) {
    static const char *const lines[] = {"tiny/attention:tp=2,tokens=40", "tiny/ffn:tp=2,tokens=40",
                                        "tiny/ffn:tp=4,ep=2,dtype=fp16,phase=decode"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct run_output cpu = run_one(lines[i], (struct one_case){.reference = SUMS_CPU});
        struct run_output device = run_one(lines[i], (struct one_case){.reference = SUMS_DEVICE});
        cr_expect_eq(cpu.cases[0].verdict, CASE_PASSED);
        cr_expect_str_eq(cpu.cases[0].sums, "");
        cr_expect(!strncmp(device.cases[0].sums, "sums of ", 8) &&
                      strstr(device.cases[0].sums, " recomputed"),
                  "%s", device.cases[0].sums);
        char *const a = told(&cpu), *const b = told(&device);
        cr_expect_str_eq(a, b);
        free(a), free(b);
        run_output_free(&cpu), run_output_free(&device);
    }
    cr_expect_null(ref_summer(), "nobody is left");
}

Test(device_sums, a_mistake_is_found_named_and_placed_alike) {
    const struct mutant *const mutant = mutant_by_name("packed-view");
    const struct one_case on_device = {.mutant = mutant, .reference = SUMS_DEVICE};
    struct run_output cpu = run_one("tiny/attention:tp=2", (struct one_case){.mutant = mutant});
    struct run_output device = run_one("tiny/attention:tp=2", on_device);
    char *const a = told(&cpu), *const b = told(&device);
    cr_expect_eq(cpu.cases[0].verdict, CASE_FAILED);
    cr_expect_str_eq(a, b);
    free(a), free(b);
    run_output_free(&cpu), run_output_free(&device);
}

static bool sum_zeros(struct ref_summer *self, struct ref_sums *s) {
    static double *zeros;
    (void)self;
    free(zeros);
    s->y = s->span = s->s1 = zeros = calloc((size_t)(s->n_rows * s->args->n_cols), sizeof *zeros);
    return true;
}

static struct status try_run(struct ref_summer *summer, struct run_output *out) {
    static struct check_case c;
    bool has_part;
    cr_assert_not(case_parse("tiny/ffn:tp=2,tokens=9", &c, &has_part).code);
    const struct run_request request = {.cases = &c, .n_cases = 1};
    ref_use_summer(summer);
    return run_cases(&request, out);
}

Test(device_sums, sums_that_differ_end_in_trouble_and_no_verdict) {
    struct ref_summer wrong = {.sum = sum_zeros};
    struct run_output out;
    const struct status s = try_run(&wrong, &out);
    cr_expect_eq(s.code, STATUS_ERROR);
    cr_expect(strstr(s.message, "the device's reference disagrees with the CPU's: the sum of row 0, column"),
              "%s", s.message);
    cr_expect(strstr(s.message, "; use --reference cpu"), "%s", s.message);
}

static bool lack_memory(struct ref_summer *self, struct ref_sums *s) {
    (void)s;
    snprintf(self->why, sizeof self->why, "no GPU memory");
    return false;
}

Test(device_sums, what_the_device_cannot_do_the_cpu_does_and_the_case_says_why) {
    struct ref_summer lacking = {.sum = lack_memory};
    struct run_output out;
    const struct status s = try_run(&lacking, &out);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED);
    cr_expect_str_eq(out.cases[0].sums, "sums on the CPU: no GPU memory");
    run_output_free(&out);
}

/* Does every PTX instruction wrapper do on the host device what the PTX ISA says, bit by bit,
 * whatever the order of threads and the time of asynchronous work? Does every misuse end in one
 * clear line? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device/device.h"
#include "kernels/simt/simt_options.h"
#include "tests/kernels/conformance.h"
#include "tests/kernels/simt_cases.h"

static const struct {
    enum simt_order order;
    uint64_t seed;
} schedules[] = {{SIMT_ASCENDING, 1},     {SIMT_DESCENDING, 1},   {SIMT_RANDOM_LANES, 1},
                 {SIMT_RANDOM_LANES, 99}, {SIMT_RANDOM_WARPS, 1}, {SIMT_RANDOM_WARPS, 7}};
enum { SCHEDULES = sizeof schedules / sizeof *schedules };

static struct device *device;
static struct conformance_input input;

static void must(struct status s) { cr_assert_eq(s.code, STATUS_OK, "%s", s.message); }

static void open_host(void) {
    must(device_open(DEVICE_HOST, &device));
    conformance_fill(&input);
}

static void close_host(void) { device_close(device); }

TestSuite(instructions, .init = open_host, .fini = close_host, .timeout = 240);

static void set_schedule(int schedule, enum simt_async async, enum simt_tensor_core tensor_core) {
    simt_set_options((struct simt_options){.order = schedules[schedule].order,
                                           .seed = schedules[schedule].seed,
                                           .async = async,
                                           .threads = 1,
                                           .tensor_core = tensor_core});
}

static struct device_buffer buffer_of(const char *name, size_t bytes) {
    struct device_buffer buffer;
    must(device_alloc(device, name, bytes, 1024, &buffer));
    return buffer;
}

/* ---- right results ---- */

static void check_case(const struct conformance *c, const struct device_buffer *in, const uint32_t *expected,
                       const char *how) {
    struct device_buffer out = buffer_of("out", c->words * sizeof(uint32_t));
    const char *refused = conformance_host(c, in->data, out.data, device_stream(device));
    cr_assert_null(refused, "%s: %s", c->name, refused);
    must(device_sync(device));
    must(device_pull(device, &out));
    const uint32_t *got = out.host;
    for (size_t i = 0; i < c->words; i++)
        cr_assert_eq(got[i], expected[i], "%s (%s): word %zu is %08x, not %08x", c->name, how, i, got[i],
                     expected[i]);
    size_t damaged;
    must(device_guard_damage(device, &out, &damaged));
    cr_assert_eq(damaged, 0, "%s (%s): wrote outside its output", c->name, how);
    device_free(device, &out);
}

static void check_under_all_schedules(const struct conformance *c, const struct device_buffer *in,
                                      enum simt_tensor_core tensor_core) {
    uint32_t *expected = calloc(c->words, sizeof *expected);
    conformance_expected(c, &input, tensor_core == SIMT_TRUNCATING, expected);
    for (int s = 0; s < SCHEDULES; s++)
        for (int async = 0; async < SIMT_ASYNC_COUNT; async++) {
            char how[64];
            snprintf(how, sizeof how, "schedule %d, async %d, tensor core %d", s, async, (int)tensor_core);
            set_schedule(s, (enum simt_async)async, tensor_core);
            check_case(c, in, expected, how);
        }
    free(expected);
}

Test(instructions, every_wrapper_does_what_the_ptx_isa_says) {
    struct device_buffer in = buffer_of("in", sizeof input);
    memcpy(in.host, &input, sizeof input);
    must(device_push(device, &in));
    for (const struct conformance *c = conformance_cases; c->name; c++) {
        check_under_all_schedules(c, &in, SIMT_TRUNCATING);
        if (c->kind == CONFORM_MMA || c->kind == CONFORM_WGMMA) check_under_all_schedules(c, &in, SIMT_PLAIN);
    }
    device_free(device, &in);
}

/* ---- and what a GPU does: lines of tests/kernels/conformance_record.c ---- */

static const struct conformance *case_named(const char *name) {
    for (const struct conformance *c = conformance_cases; c->name; c++)
        if (!strcmp(c->name, name)) return c;
    return NULL;
}

Test(instructions, an_h200_gives_the_same_bits) {
    FILE *golden = fopen("fixtures/golden/instructions_h200.txt", "r");
    cr_assert_not_null(golden,
                       "fixtures/golden/instructions_h200.txt cannot be read; run from the project's root");
    char line[200], name[100];
    size_t words, cases = 0, rows = 0;
    unsigned long long hash;
    while (fgets(line, sizeof line, golden)) {
        if (line[0] == '#') continue;
        cr_assert_eq(sscanf(line, "%99[^\t]\t%zu\t%llx", name, &words, &hash), 3, "%s", line);
        const struct conformance *c = case_named(name);
        cr_assert_not_null(c, "%s is no conformance case", name);
        cr_assert_eq(c->words, words, "%s", name);
        uint32_t *expected = calloc(words, sizeof *expected);
        conformance_expected(c, &input, 1, expected);
        cr_assert_eq(conformance_hash(expected, words), hash, "%s differs from the recording", name);
        free(expected);
        rows++;
    }
    fclose(golden);
    for (const struct conformance *c = conformance_cases; c->name; c++) cases++;
    cr_assert_eq(rows, cases, "%zu cases are recorded, there are %zu", rows, cases);
}

/* ---- misuse ---- */

static const struct misuse *const misuse_tables[] = {instruction_misuse_cases, copy_misuse_cases};
enum { MISUSE_TABLES = sizeof misuse_tables / sizeof *misuse_tables };

static void check_misuse(const struct misuse *m, int schedule, int async) {
    struct device_buffer misused = buffer_of("misused", MISUSE_FLOATS * sizeof(float));
    const char *refused = m->launch(misused.data);
    cr_assert_null(refused, "%s: %s", m->name, refused);
    const struct status s = device_sync(device);
    cr_assert_eq(s.code, STATUS_ERROR, "%s (schedule %d, async %d): no error", m->name, schedule, async);
    cr_assert_null(strchr(s.message, '\n'), "%s: more than one line: %s", m->name, s.message);
    for (int i = 0; i < 3 && m->says[i]; i++)
        cr_assert_not_null(strstr(s.message, m->says[i]), "%s (schedule %d, async %d) does not say '%s': %s",
                           m->name, schedule, async, m->says[i], s.message);
    cr_assert_not_null(strstr(s.message, "misuse.cu:"), "%s: %s", m->name, s.message);
    cr_assert_not_null(strstr(s.message, "kernel "), "%s: %s", m->name, s.message);
    if (schedule == 0 && async == 0) cr_log_info("%s: %s", m->name, s.message);
    must(device_sync(device));
    device_free(device, &misused);
}

Test(instructions, every_misuse_ends_in_one_line) {
    for (int s = 0; s < SCHEDULES; s++)
        for (int async = 0; async < SIMT_ASYNC_COUNT; async++) {
            set_schedule(s, (enum simt_async)async, SIMT_PLAIN);
            for (int t = 0; t < MISUSE_TABLES; t++)
                for (const struct misuse *m = misuse_tables[t]; m->name; m++) check_misuse(m, s, async);
        }
}

Test(instructions, a_block_works_after_a_failed_one) {
    struct device_buffer in = buffer_of("in", sizeof input);
    memcpy(in.host, &input, sizeof input);
    must(device_push(device, &in));
    set_schedule(0, SIMT_LAZY, SIMT_TRUNCATING);
    const struct conformance *last = conformance_cases;
    while (last[1].name) last++;
    uint32_t *expected = calloc(last->words, sizeof *expected);
    conformance_expected(last, &input, 1, expected);
    for (int t = 0; t < MISUSE_TABLES; t++)
        for (const struct misuse *m = misuse_tables[t]; m->name; m++) {
            check_misuse(m, 1, 0);
            check_case(last, &in, expected, m->name);
        }
    free(expected);
    device_free(device, &in);
}

Test(instructions, impossible_tensor_maps_are_refused) {
    for (const struct misuse *m = copy_misuse_launches; m->name; m++) {
        struct device_buffer buffer = buffer_of("unused", MISUSE_FLOATS * sizeof(float));
        const char *refused = m->launch(buffer.data);
        cr_assert_not_null(refused, "%s: not refused", m->name);
        cr_assert_not_null(strstr(refused, m->says[0]), "%s: %s", m->name, refused);
        device_free(device, &buffer);
    }
}

Test(instructions, a_block_may_not_end_before_its_tiles_have_come) {
    for (int s = 0; s < SCHEDULES; s++) {
        set_schedule(s, SIMT_LAZY, SIMT_PLAIN);
        check_misuse(&copy_misuse_lazy, s, SIMT_LAZY);
    }
}

/* Does the SIMT executor carry out barriers, votes, shuffles and atomics as CUDA does, with the
 * same bits in every order of threads, and does every misuse end in one clear line? And do buffers
 * show who wrote where? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "kernels/device/device.h"
#include "kernels/simt/simt_options.h"
#include "layer/dtype.h"
#include "tests/kernels/simt_cases.h"

static const struct simt_options schedules[] = {
    {.order = SIMT_ASCENDING, .seed = 1, .threads = 1},
    {.order = SIMT_ASCENDING, .seed = 1, .threads = 3},
    {.order = SIMT_DESCENDING, .seed = 1, .threads = 1},
    {.order = SIMT_RANDOM_LANES, .seed = 1, .threads = 1},
    {.order = SIMT_RANDOM_LANES, .seed = 99, .threads = 2},
    {.order = SIMT_RANDOM_WARPS, .seed = 1, .threads = 1},
    {.order = SIMT_RANDOM_WARPS, .seed = 7, .threads = 2},
};
enum { SCHEDULES = sizeof schedules / sizeof *schedules };

static struct device *device;

static void open_host(void) {
    const struct status s = device_open(DEVICE_HOST, &device);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
}

static void close_host(void) { device_close(device); }

TestSuite(simt, .init = open_host, .fini = close_host, .timeout = 120);

static void must(struct status s) { cr_assert_eq(s.code, STATUS_OK, "%s", s.message); }

static struct device_buffer buffer_of(const char *name, size_t bytes, size_t guard) {
    struct device_buffer buffer;
    must(device_alloc(device, name, bytes, guard, &buffer));
    return buffer;
}

/* ---- right results, in every order ---- */

enum { MAX_RESULTS = 6 * 1024 };

struct collectives_run {
    unsigned blocks_x, blocks_y, threads_x, threads_y;
};
static const struct collectives_run shapes[] = {
    {3, 2, 32, 1}, {3, 2, 128, 1}, {2, 1, 20, 4}, {5, 1, 8, 1}, {2, 1, 64, 16}};

static float expected_tree_sum(int first, int lanes) {
    float value[32];
    for (int i = 0; i < lanes; i++) value[i] = 1.0f / (float)(1 + first + i);
    for (int by = 16; by; by /= 2)
        for (int i = 0; i + by < lanes; i++) value[i] += value[i + by];
    return value[0];
}

static int within(int lane, int width, int source, int own) {
    return lane / width == source / width ? source : own;
}

/* A source lane the warp does not have cannot be asked for; shapes are chosen so that none is. */
static struct lane_results expected(int block, int linear, int threads) {
    const int first = linear / 32 * 32, lane = linear - first,
              lanes = threads - first < 32 ? threads - first : 32;
    const int base = 1000 * block + first;
    struct lane_results r = {.linear = linear, .block = block};
    r.index = base + lane * 7 % lanes;
    r.up = base + (lane % 16 < 3 ? lane : lane - 3);
    r.down = base + within(lane, 8, lane + 1, lane);
    r.xor_ = base + (lane ^ 5);
    r.even = base + (lane ^ (lane % 2 ? 2 : 4));
    for (int i = 0; i < lanes; i++) r.ballot |= (uint32_t)((base + i) % 3 == 0) << i;
    r.any = first <= 40 && 40 < first + lanes;
    r.all = first + lanes <= 64;
    r.or_ = 1;
    r.and_ = 0;
    for (int i = 0; i < threads; i++) r.count += i % 3 == 1;
    r.warp_sum = expected_tree_sum(first, lanes);
    for (int w = 0; w < threads; w += 32)
        r.block_sum += expected_tree_sum(w, threads - w < 32 ? threads - w : 32);
    return r;
}

static void check_collectives(struct collectives_run shape) {
    const int blocks = (int)(shape.blocks_x * shape.blocks_y),
              threads = (int)(shape.threads_x * shape.threads_y);
    struct device_buffer results =
        buffer_of("results", sizeof(struct lane_results) * (size_t)(blocks * threads), 256);
    struct device_buffer counters = buffer_of("counters", 5 * sizeof(int32_t), 256);
    struct device_buffer sum = buffer_of("sum", sizeof(float), 256);
    memset(counters.host, 0, counters.bytes);
    memset(sum.host, 0, sum.bytes);
    must(device_push(device, &counters));
    must(device_push(device, &sum));
    const char *refused = collectives_host(results.data, counters.data, sum.data, device_stream(device),
                                           shape.blocks_x, shape.blocks_y, shape.threads_x, shape.threads_y);
    cr_assert_null(refused, "%s", refused);
    must(device_sync(device));
    must(device_pull(device, &results));
    must(device_pull(device, &counters));
    must(device_pull(device, &sum));

    const struct lane_results *got = results.host;
    int32_t want[5] = {0, 0, 0, 2 * blocks * threads, 1};
    for (int id = 0; id < blocks * threads; id++) {
        const struct lane_results r = expected(id / threads, id % threads, threads);
        cr_assert_eq(memcmp(&got[id], &r, sizeof r), 0, "block %d thread %d of %d", r.block, r.linear,
                     threads);
        want[0] += id;
        if (id * 7 % 1000 > want[1]) want[1] = id * 7 % 1000;
        if (-(id * 11 % 1000) < want[2]) want[2] = -(id * 11 % 1000);
    }
    cr_assert_eq(memcmp(counters.host, want, sizeof want), 0);
    cr_assert_float_eq(*(float *)sum.host, 0.5f + (float)(blocks * threads), 0);
    struct device_buffer *all[] = {&results, &counters, &sum};
    for (int i = 0; i < 3; i++) {
        size_t damaged;
        must(device_guard_damage(device, all[i], &damaged));
        cr_assert_eq(damaged, 0);
        device_free(device, all[i]);
    }
}

Test(simt, collectives_give_the_same_right_bits_in_every_order) {
    for (int s = 0; s < SCHEDULES; s++) {
        simt_set_options(schedules[s]);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_collectives(shapes[i]);
    }
}

/* Every bf16 number, the values half-way to the next, and their neighbours, against the reference's
 * rounding. */
Test(simt, bf16_rounds_as_the_reference) {
    enum { N = 65536 * 4 };
    struct device_buffer in = buffer_of("in", N * sizeof(float), 0),
                         out = buffer_of("out", N * sizeof(float), 0);
    static const uint32_t tails[] = {0, 0x7fff, 0x8000, 0x8001};
    uint32_t *bits = in.host;
    for (uint32_t i = 0; i < N; i++) bits[i] = i / 4 << 16 | tails[i % 4];
    must(device_push(device, &in));
    cr_assert_null(convert_host(in.data, out.data, N, device_stream(device)));
    must(device_sync(device));
    must(device_pull(device, &out));
    const float *from = in.host, *to = out.host;
    for (int i = 0; i < N; i++) {
        if (isnan(from[i])) {
            cr_assert(isnan(to[i]));
            continue;
        }
        const float want = (float)dtype_round(DTYPE_BF16, (double)from[i]);
        cr_assert_eq(memcmp(&to[i], &want, sizeof want), 0, "%a gives %a, not %a", from[i], to[i], want);
    }
    device_free(device, &in);
    device_free(device, &out);
}

/* ---- misuse: one line, and the next launch works ---- */

static void check_says(const struct misuse *m, const char *line, int schedule) {
    cr_assert_not_null(line, "%s (schedule %d): no error", m->name, schedule);
    cr_assert_null(strchr(line, '\n'), "%s: more than one line: %s", m->name, line);
    for (int i = 0; i < 3 && m->says[i]; i++)
        cr_assert_not_null(strstr(line, m->says[i]), "%s (schedule %d) does not say '%s': %s", m->name,
                           schedule, m->says[i], line);
}

static void check_misuse(const struct misuse *m, int schedule) {
    struct device_buffer misused = buffer_of("misused", MISUSE_FLOATS * sizeof(float), 1024);
    const char *refused = m->launch(misused.data);
    cr_assert_null(refused, "%s: %s", m->name, refused);
    const struct status s = device_sync(device);
    cr_assert_eq(s.code, STATUS_ERROR, "%s (schedule %d): no error", m->name, schedule);
    check_says(m, s.message, schedule);
    cr_assert_not_null(strstr(s.message, "kernel "), "%s: %s", m->name, s.message);
    cr_assert_not_null(strstr(s.message, "block ("), "%s: %s", m->name, s.message);
    if (schedule == 0) cr_log_info("%s", s.message);
    must(device_sync(device));
    device_free(device, &misused);
}

Test(simt, every_misuse_ends_in_one_line) {
    for (int s = 0; s < SCHEDULES; s++) {
        simt_set_options(schedules[s]);
        for (const struct misuse *m = misuse_cases; m->name; m++) {
            check_misuse(m, s);
            check_collectives((struct collectives_run){2, 1, 32, 1});
        }
    }
}

Test(simt, impossible_launches_are_refused) {
    struct device_buffer buffer = buffer_of("unused", MISUSE_FLOATS * sizeof(float), 0);
    for (const struct misuse *m = misuse_launches; m->name; m++) {
        check_says(m, m->launch(buffer.data), 0);
        must(device_sync(device));
    }
    device_free(device, &buffer);
}

Test(simt, the_first_error_is_the_one_kept) {
    struct device_buffer misused = buffer_of("misused", MISUSE_FLOATS * sizeof(float), 1024);
    cr_assert_null(misuse_cases[0].launch(misused.data));
    cr_assert_null(misuse_cases[1].launch(misused.data));
    check_says(&misuse_cases[0], device_sync(device).message, 0);
    must(device_sync(device));
    device_free(device, &misused);
}

/* ---- buffers ---- */

static size_t count_other(const unsigned char *p, size_t n, unsigned char byte) {
    size_t other = 0;
    for (size_t i = 0; i < n; i++) other += p[i] != byte;
    return other;
}

Test(simt, buffers_start_as_nan_and_stay_apart) {
    static const size_t sizes[][2] = {{0, 0}, {0, 4096}, {1, 1}, {4096, 0}, {5000, 64}, {1 << 20, 1 << 16}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct device_buffer b = buffer_of("poisoned", sizes[i][0], sizes[i][1]);
        cr_assert_eq(b.data, b.host);
        cr_assert_eq((uintptr_t)b.data % 256, 0);
        const unsigned char *low = (const unsigned char *)b.host - b.guard;
        cr_assert_eq(count_other(low, b.bytes + 2 * b.guard, 0xff), 0);
        device_free(device, &b);
        cr_assert_null(b.data);
        device_free(device, &b);
    }
}

Test(simt, guard_damage_is_counted) {
    struct device_buffer b = buffer_of("guarded", 1000, 300);
    unsigned char *data = b.host;
    size_t damaged;
    memset(data, 0, 1000);
    must(device_guard_damage(device, &b, &damaged));
    cr_assert_eq(damaged, 0);
    data[-1] = data[-300] = data[1000] = data[1299] = data[1150] = 0;
    must(device_guard_damage(device, &b, &damaged));
    cr_assert_eq(damaged, 5);
    device_free(device, &b);
}

Test(simt, a_sealed_buffer_can_be_read_and_not_written) {
    enum { N = 8192 };
    struct device_buffer from = buffer_of("from", N * sizeof(float), 1024),
                         to = buffer_of("to", N * sizeof(float), 1024);
    memset(from.host, 0, from.bytes);
    device_seal(device, &from, true);
    cr_assert_null(convert_host(from.data, to.data, N, NULL));
    must(device_sync(device));
    cr_assert_eq(count_other(to.host, to.bytes, 0), 0);
    cr_assert_null(convert_host(to.data, from.data, N, NULL));
    const struct status s = device_sync(device);
    cr_assert_eq(s.code, STATUS_ERROR);
    cr_assert_not_null(strstr(s.message, "write to from, an input: offset "), "%s", s.message);
    device_seal(device, &from, false);
    memset(to.host, 0x3f, to.bytes);
    cr_assert_null(convert_host(to.data, from.data, N, NULL));
    must(device_sync(device));
    cr_assert_eq(count_other(from.host, from.bytes, 0), from.bytes / 2);
    device_free(device, &from);
    device_free(device, &to);
}

Test(simt, reused_buffers_stay_warm_and_can_be_poisoned) {
    struct device_buffer b = {0};
    must(device_reuse(device, "weights", 100000, 4096, false, &b));
    memset(b.host, 1, b.bytes);
    must(device_reuse(device, "weights", 3000, 128, true, &b));
    cr_assert_eq(b.bytes, 3000);
    cr_assert_eq(b.guard, 128);
    cr_assert_eq(count_other((unsigned char *)b.host - 128, 3000 + 256, 0xff), 0);
    must(device_reuse(device, "weights", 100000, 4096, true, &b));
    cr_assert_eq(count_other((unsigned char *)b.host - 4096, 100000 + 8192, 0xff), 0);
    must(device_reuse(device, "weights", 50 << 20, 4096, false, &b));
    ((unsigned char *)b.host)[(50 << 20) - 1] = 1;
    device_free(device, &b);
}

Test(simt, devices_say_who_they_are) {
    struct device *host;
    must(device_open(DEVICE_HOST, &host));
    cr_assert_eq(strncmp(device_label(host), "host (SIMT executor, ", 21), 0, "%s", device_label(host));
    cr_assert_eq(device_kind_of(host), DEVICE_HOST);
    cr_assert_str_eq(device_kind_name(DEVICE_CUDA), "cuda");
    device_close(host);
    struct device *cuda;
    const struct status s = device_open(DEVICE_CUDA, &cuda);
    if (s.code) {
        cr_assert_null(cuda);
        cr_assert_not_null(strstr(s.message, "--device cuda: "), "%s", s.message);
    }
    device_close(cuda);
}

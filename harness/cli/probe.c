/* How wrong are this device's exp, log, root and division, and do the contracts of the kernels
 * allow for it? Every float of the interval that matters goes through the device and is compared
 * with double libm, whose own error is 2^-52. The constant is the smallest that any kernel of the
 * device declares. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/commands.h"

#include <math.h>
#include <string.h>

#include "harness/call.h"
#include "harness/output.h"
#include "kernels/device/elementary.h"
#include "kernels/kernels.h"

enum { CHUNK = 1 << 22 }; /* arguments a launch: 16 MiB of results */

/* What a kernel declares, and which one declares the least. */
struct assumed {
    double error;
    const char *kernel;
};

static double exp_error(const struct contract *c) {
    switch (c->op) {
    case OP_ATTENTION: return c->u.attention.exp_error;
    case OP_ROUTE: return c->u.route.exp_error;
    case OP_ACTIVATION: return c->u.activation.exp_error;
    case OP_GATED_LINEAR: return c->u.gated_linear.activation.exp_error;
    default: return INFINITY;
    }
}

static double root_error(const struct contract *c) {
    return c->op == OP_NORM || c->op == OP_QK_NORM ? c->u.norm.rsqrt_error : INFINITY;
}

/* The merge of slices allows for one rounding of the logarithm's last place, which is two of its
 * unit. */
static double log_error(const struct contract *c) {
    return c->op == OP_ATTENTION && c->u.attention.splits > 1 ? 2 * c->u.attention.unit : INFINITY;
}

/* Divisions are taken to be correctly rounded. */
static double division_error(const struct contract *c) {
    switch (c->op) {
    case OP_ATTENTION: return c->u.attention.unit;
    case OP_ROUTE: return c->u.route.unit;
    case OP_ACTIVATION: return c->u.activation.unit;
    default: return INFINITY;
    }
}

/* The fused silu: two places of the quotient, which are four of its unit. */
static double fast_division_error(const struct contract *c) {
    return c->op == OP_GATED_LINEAR ? 4 * c->u.gated_linear.activation.unit : INFINITY;
}

static double reciprocal_root(double x) { return 1 / sqrt(x); }

static const struct probe_row {
    const char *name, *interval;
    enum probe_function function;
    uint32_t first_bits, last_bits; /* every float in between */
    double (*truth)(double x);      /* NULL: numerator / x */
    double (*error)(const struct contract *c);
} probe_table[] = {
    {"expf(x)", "[-87, -2^-25]", PROBE_EXP, 0xb3000000, 0xc2ae0000, exp, exp_error},
    {"exp2f(x)", "[-126, -2^-25]", PROBE_EXP2, 0xb3000000, 0xc2fc0000, exp2, exp_error},
    {"exp2_approx(x)", "[-126, -2^-25]", PROBE_EXP2_APPROX, 0xb3000000, 0xc2fc0000, exp2, exp_error},
    {"logf(x)", "[1, 2^20]", PROBE_LOG, 0x3f800000, 0x49800000, log, log_error},
    {"1 / sqrtf(x)", "[1, 4)", PROBE_RECIPROCAL_ROOT, 0x3f800000, 0x407fffff, reciprocal_root, root_error},
    {"y / x", "[1, 2)", PROBE_DIVISION, 0x3f800000, 0x3fffffff, NULL, division_error},
    {"fast y / x", "[1, 2)", PROBE_FAST_DIVISION, 0x3f800000, 0x3fffffff, NULL, fast_division_error},
};
enum { N_PROBES = sizeof probe_table / sizeof *probe_table };

/* A call of an everyday size, for contracts that hang on it: four tokens of the default model,
 * decoded at 4096 keys. Which layer and which step: the first that has the op. */
struct everyday {
    struct model model;
    struct check_case c;
};

static struct status everyday_open(struct everyday *e) {
    e->c = case_defaults();
    e->c.phase = PHASE_DECODE;
    e->c.tokens = 4;
    e->c.cached = 4096;
    return model_load(model_preset_names()[0], &e->model);
}

static struct call everyday_call(const struct everyday *e, enum op op) {
    struct check_case c = e->c;
    struct call call;
    struct batch batch;
    struct shard_plan plan;
    int stage = 0;
    while (stage_table[stage].op != op) stage++;
    c.part = stage_table[stage].part;
    const struct layer_spec spec = case_spec(&c, &e->model);
    batch_build(&batch, &c, &(struct fill){.seed = c.seed, .spec = &spec});
    plan_build(&plan, &spec, 1, 1);
    batch_sizes(&batch, plan.size);
    call_sketch(&call, &(struct setting){stage, 0, &spec, &plan, &batch}, c.dtype);
    batch_free(&batch);
    return call;
}

static struct assumed least_assumed(const struct everyday *e, const struct probe_row *row,
                                    enum device_kind kind) {
    struct assumed least = {INFINITY, NULL};
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (!k->launch[kind]) continue;
        const struct call call = everyday_call(e, k->op);
        const struct contract c = k->contract(&call);
        if (row->error(&c) < least.error) least = (struct assumed){row->error(&c), k->name};
    }
    return least;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Relative; not a number where the device's answer is none. */
static double error_at(const struct probe_row *row, uint32_t bits, float got) {
    const double x = float_of(bits);
    const double truth = row->truth ? row->truth(x) : float_of(PROBE_NUMERATOR_BITS(bits)) / x;
    const double error = truth == got ? 0 : fabs((got - truth) / truth);
    return isnan(error) ? INFINITY : error;
}

struct worst {
    double error;
    uint32_t bits;
};

static void compare_chunk(const struct probe_row *row, uint32_t first, uint32_t n, const float *got,
                          struct worst *worst) {
#pragma omp parallel
    {
        struct worst own = {-1, 0};
#pragma omp for schedule(static)
        for (uint32_t i = 0; i < n; i++) {
            const double error = error_at(row, first + i, got[i]);
            if (error > own.error) own = (struct worst){error, first + i};
        }
#pragma omp critical
        if (own.error > worst->error || (own.error == worst->error && own.bits < worst->bits)) *worst = own;
    }
}

static struct status measure(const struct probe_row *row, struct device *device, struct device_buffer *out,
                             struct worst *worst) {
    *worst = (struct worst){-1, 0};
    for (uint32_t first = row->first_bits; first <= row->last_bits; first += CHUNK) {
        const uint32_t left = row->last_bits - first + 1, n = left < CHUNK ? left : CHUNK;
        const char *const refused =
            probe_launch[device_kind_of(device)](row->function, first, n, out->data, device_stream(device));
        if (refused) return status_error("probe of %s: %s", row->name, refused);
        TRY(device_sync(device));
        TRY(device_pull(device, out));
        compare_chunk(row, first, n, out->host, worst);
    }
    return status_ok();
}

/* "2^-22.65"; "0" where every answer is exact. */
static const char *power_text(double error, char text[24]) {
    if (error > 0)
        snprintf(text, 24, "2^%.2f", log2(error));
    else
        snprintf(text, 24, "0");
    return text;
}

static void print_row(FILE *file, const struct probe_row *row, const struct worst *worst,
                      const struct assumed *assumed) {
    char measured[24], constant[24], at[40];
    snprintf(at, sizeof at, "%.9g", (double)float_of(worst->bits));
    const bool exceeds = !(worst->error <= assumed->error);
    fprintf(file, "%-14s %-15s %10u  %-9s %-15s %-9s %-8s %s\n", row->name, row->interval,
            row->last_bits - row->first_bits + 1, power_text(worst->error, measured), at,
            assumed->kernel ? power_text(assumed->error, constant) : "-",
            !assumed->kernel ? "unused"
            : exceeds        ? "EXCEEDS"
                             : "ok",
            assumed->kernel ? assumed->kernel : "");
}

/* Prints the table; *exceeded counts the constants that a measured error is above. */
static struct status probe_device(enum device_kind kind, FILE *file, int *exceeded) {
    struct device *device;
    struct device_buffer out = {0};
    struct everyday everyday;
    *exceeded = 0;
    TRY(everyday_open(&everyday));
    TRY(device_open(kind, &device));
    struct status s = device_alloc(device, "probe", CHUNK * sizeof(float), 0, &out);
    if (!s.code)
        fprintf(file, "elementary functions on %s\n%-14s %-15s %10s  %-9s %-15s %-9s %-8s %s\n",
                device_label(device), "FUNCTION", "INTERVAL", "ARGUMENTS", "ERROR", "AT X", "CONTRACT",
                "VERDICT", "TIGHTEST KERNEL");
    for (int i = 0; i < N_PROBES && !s.code && !fflush(file); i++) { /* not for nobody */
        struct worst worst;
        const struct assumed assumed = least_assumed(&everyday, &probe_table[i], kind);
        s = measure(&probe_table[i], device, &out, &worst);
        if (s.code) break;
        print_row(file, &probe_table[i], &worst, &assumed);
        *exceeded += assumed.kernel && !(worst.error <= assumed.error);
    }
    device_free(device, &out);
    device_close(device);
    return s;
}

/* ---- the command ---- */

struct status apply_device(struct parse *parse, const struct option_row *row, const char *value) {
    struct check_case scratch = case_defaults();
    TRY(case_set(&scratch, "--device ", row->name, value));
    parse->out->device = scratch.device;
    return status_ok();
}

void device_values(struct choices *choices) {
    const struct case_key *const key = &case_keys[CASE_KEY(device)];
    for (int i = 0; i < key->n_values; i++) choices_add(choices, "%s", key->value(i));
}

const struct option_row probe_options[] = {
    {"device", 0, 0, "NAME", -1, apply_device, "default host", device_values},
    {0},
};

struct status probe_parse(struct parse *parse) {
    if (!parse->request.n_subjects) return status_ok();
    return status_error("probe %.60s: takes no model; use probe --device NAME", parse->request.subject[0]);
}

struct status probe_run(const struct options *options, enum exit_code *code) {
    int exceeded;
    struct output *out;
    TRY(output_open("standard output", NULL, &out));
    struct status s = probe_device(options->device, output_file(out), &exceeded);
    if (!s.code) s = output_commit(&out);
    output_discard(&out);
    if (!s.code && exceeded) *code = EXIT_DEFECT;
    return s;
}

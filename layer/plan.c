/* Which part of a tensor belongs to which rank, and where in the whole does an element of it
 * sit? */
/* SPDX-License-Identifier: MIT */
#include "layer/plan.h"
#include "layer/copy.h"

#include <assert.h>
#include <string.h>

static struct span even_cut(int64_t size, int64_t parts, int64_t index) {
    return (struct span){index * (size / parts), size / parts};
}

/* With more ranks than kv heads, rank r holds kv head floor(r / (tp/G)). */
static struct span kv_heads(int64_t n_kv, int64_t tp, int64_t rank) {
    return tp <= n_kv ? even_cut(n_kv, tp, rank) : (struct span){rank / (tp / n_kv), 1};
}

static bool attention_fits(const struct layer_spec *spec, int64_t tp) {
    const int64_t n_kv = spec->n_kv_heads;
    return spec->n_heads % tp == 0 && (n_kv % tp == 0 || tp % n_kv == 0);
}

static bool ffn_fits(const struct layer_spec *spec, int64_t tp, int64_t ep) {
    if (spec->shared_width % tp != 0) return false;
    if (!spec->moe) return ep == 1;
    return tp % ep == 0 && spec->n_experts % ep == 0 && spec->expert_width % (tp / ep) == 0;
}

bool plan_fits(const struct layer_spec *spec, enum part part, int64_t tp, int64_t ep) {
    return part == PART_ATTENTION ? ep == 1 && attention_fits(spec, tp) : ffn_fits(spec, tp, ep);
}

void plan_build(struct shard_plan *plan, const struct layer_spec *spec, int64_t tp, int64_t ep) {
    *plan = (struct shard_plan){.tp = tp, .ep = ep, .etp = tp / ep};
    assert(tp <= MAX_RANKS && tp % ep == 0);
    layer_sizes(spec, plan->size);
    for (int64_t r = 0; r < tp; r++) {
        struct span *const of = plan->rank[r];
        of[AXIS_H] = even_cut(spec->n_heads, tp, r);
        of[AXIS_G] = kv_heads(spec->n_kv_heads, tp, r);
        of[AXIS_S] = even_cut(spec->shared_width, tp, r);
        of[AXIS_E] = even_cut(spec->n_experts, ep, r / plan->etp);
        of[AXIS_F] = even_cut(spec->expert_width, plan->etp, r % plan->etp);
    }
}

void plan_set_rows(struct shard_plan *plan, const int32_t *offsets) {
    plan->size[AXIS_N] = offsets[plan->size[AXIS_E]];
    for (int64_t r = 0; r < plan->tp; r++) {
        const struct span e = plan->rank[r][AXIS_E];
        plan->rank[r][AXIS_N] =
            (struct span){offsets[e.first], offsets[e.first + e.count] - offsets[e.first]};
    }
}

struct layer_spec plan_local_spec(const struct shard_plan *plan, const struct layer_spec *spec, int rank) {
    struct layer_spec local = *spec;
    const struct span *const of = plan->rank[rank];
    local.n_heads = of[AXIS_H].count;
    local.n_kv_heads = of[AXIS_G].count;
    local.shared_width = of[AXIS_S].count;
    local.expert_width = of[AXIS_F].count;
    if (rank > 0) local.o_bias = false; /* a row-parallel bias is added once, by rank 0 */
    return local;
}

/* ---- slicing ---- */

struct segment {
    int64_t whole, part, count; /* positions along the axis */
};
struct cut_axis {
    int n_segments;
    struct segment segment[3];
    int64_t whole_size, part_size; /* with the axis's extra elements, which no segment holds */
};
struct cut {
    int n;
    struct cut_axis axis[MAX_AXES];
};

static struct span block_span(const struct shard_plan *plan, const struct axis_block *b, int rank,
                              int64_t *size) {
    *size = b->name == AXIS_NUMBER ? b->number : plan->size[b->name];
    return b->group == GROUP_NONE || rank < 0 ? (struct span){0, *size} : plan->rank[rank][b->name];
}

static struct cut cut_axes(const struct shard_plan *plan, const struct axes *axes, int rank) {
    struct cut cut = {.n = axes->n};
    for (int i = 0; i < axes->n; i++) {
        struct cut_axis *const a = &cut.axis[i];
        a->n_segments = axes->axis[i].n_blocks;
        for (int b = 0; b < a->n_segments; b++) {
            int64_t size;
            const struct span s = block_span(plan, &axes->axis[i].block[b], rank, &size);
            a->segment[b] = (struct segment){a->whole_size + s.first, a->part_size, s.count};
            a->whole_size += size;
            a->part_size += s.count;
        }
        a->whole_size += axes->axis[i].extra;
        a->part_size += axes->axis[i].extra;
    }
    return cut;
}

static struct cut cut_tensor(const struct shard_plan *plan, enum tensor_id id, int rank) {
    const struct axes axes = tensor_axes(id);
    return cut_axes(plan, &axes, rank);
}

int axes_shape(const struct shard_plan *plan, const char *text, int64_t shape[MAX_AXES]) {
    struct axes axes;
    const char *const problem = axes_parse(text, &axes);
    assert(!problem);
    (void)problem;
    const struct cut cut = cut_axes(plan, &axes, -1);
    for (int i = 0; i < cut.n; i++) shape[i] = cut.axis[i].whole_size;
    return cut.n;
}

int slice_shape(const struct shard_plan *plan, enum tensor_id id, int rank, int64_t shape[MAX_AXES]) {
    const struct cut cut = cut_tensor(plan, id, rank);
    for (int i = 0; i < cut.n; i++) shape[i] = cut.axis[i].part_size;
    return cut.n;
}

int64_t slice_count(const struct shard_plan *plan, enum tensor_id id, int rank) {
    int64_t shape[MAX_AXES], n = 1;
    for (int i = slice_shape(plan, id, rank, shape); i-- > 0;) n *= shape[i];
    return n;
}

enum { LARGE_COPY = 1 << 20 };

struct copy_job {
    const struct cut *cut;
    int last_cut; /* axes behind this one are whole: their elements move in one piece */
    size_t inner_bytes;
    char *part, *whole;
    bool back;  /* part into whole */
    bool large; /* all cores copy */
};

static void copy_piece(const struct copy_job *job, int64_t part, int64_t whole, int64_t count) {
    char *const in_part = job->part + (size_t)part * job->inner_bytes;
    char *const in_whole = job->whole + (size_t)whole * job->inner_bytes;
    copy_bytes(job->back ? in_whole : in_part, job->back ? in_part : in_whole,
               (size_t)count * job->inner_bytes);
}

static void copy_axis(const struct copy_job *job, int axis, int64_t part, int64_t whole) {
    const struct cut_axis *const a = &job->cut->axis[axis];
    const bool shared = job->large && axis == 0;
    for (int s = 0; s < a->n_segments; s++) {
        const struct segment g = a->segment[s];
        const int64_t p = part * a->part_size + g.part, w = whole * a->whole_size + g.whole;
        if (axis == job->last_cut && !shared) {
            copy_piece(job, p, w, g.count);
            continue;
        }
#pragma omp parallel for if (shared)
        for (int64_t i = 0; i < g.count; i++)
            axis == job->last_cut ? copy_piece(job, p + i, w + i, 1) : copy_axis(job, axis + 1, p + i, w + i);
    }
}

static void copy(const struct shard_plan *plan, enum tensor_id id, int rank, size_t bytes, void *part,
                 void *whole, bool back) {
    const struct cut cut = cut_tensor(plan, id, rank);
    struct copy_job job = {.cut = &cut, .inner_bytes = bytes, .part = part, .whole = whole, .back = back};
    job.last_cut = cut.n - 1;
    job.large = (size_t)slice_count(plan, id, rank) * bytes > LARGE_COPY;
    while (job.last_cut >= 0 && cut.axis[job.last_cut].part_size == cut.axis[job.last_cut].whole_size)
        job.inner_bytes *= (size_t)cut.axis[job.last_cut--].whole_size;
    if (job.last_cut < 0)
        copy_piece(&job, 0, 0, 1);
    else
        copy_axis(&job, 0, 0, 0);
}

void slice_copy(const struct shard_plan *plan, enum tensor_id id, int rank, size_t bytes, void *part,
                const void *whole) {
    copy(plan, id, rank, bytes, part, (void *)whole, false);
}

void slice_put(const struct shard_plan *plan, enum tensor_id id, int rank, size_t bytes, const void *part,
               void *whole) {
    copy(plan, id, rank, bytes, (void *)part, whole, true);
}

struct place slice_place(const struct shard_plan *plan, enum tensor_id id, int rank, int64_t index) {
    const struct cut cut = cut_tensor(plan, id, rank);
    const struct axes axes = tensor_axes(id);
    struct place place = {.n = cut.n};
    for (int i = cut.n - 1; i >= 0; i--) {
        const struct cut_axis *const a = &cut.axis[i];
        const int64_t blocks = a->part_size - axes.axis[i].extra; /* what lies behind stands with the last */
        const int64_t at = index % a->part_size < blocks ? index % a->part_size : blocks - 1;
        index /= a->part_size;
        int b = 0;
        while (at >= a->segment[b].part + a->segment[b].count) b++;
        int64_t block_first = 0, size; /* where the block begins on the whole axis */
        for (int j = 0; j < b; j++) {
            block_span(plan, &axes.axis[i].block[j], -1, &size);
            block_first += size;
        }
        place.axis[i] = axes.axis[i].block[b].name;
        place.block[i] = b;
        place.index[i] = a->segment[b].whole + (at - a->segment[b].part) - block_first;
    }
    return place;
}

/* Wrappers of paged attention: run brings q and the cache, the last plan of the same object the
 * sequences and sizes, __init__ the layout and the kernels. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/flashinfer_call.h"
#include "layer/producers.h"

/* ---- arithmetic ---- */

static bool add_contract(struct flash_call *f, const char *backend) {
    struct producer p;
    const struct hf64_range range = {.n_positions = f->batch.max_kv};
    if (strcmp(backend, "fa2") != 0 && strcmp(backend, "fa3") != 0)
        return flash_refuse(f, "what the kernels of backend %.40s round is not known here", backend);
    const struct status s = producer_find(backend, &p);
    p.storage = f->dtype;
    f->contract[f->n_contracts++] = producer_contract(&p, S_ATTENTION, &range);
    return !s.code;
}

/* "auto" is either, by the card; the log does not say which. */
static bool add_contracts(struct flash_call *f, const char *backend) {
    if (!strcmp(backend, "auto")) return add_contract(f, "fa2") && add_contract(f, "fa3");
    return add_contract(f, backend);
}

/* ---- arguments, of both wrappers ---- */

static const struct flash_rule init_rules[] = {
    {"float_workspace_buffer", NULL},
    {"kv_layout", NULL},
    {"backend", NULL},
    {"use_tensor_cores", "True"},
    {"use_cuda_graph", NULL},
    {"paged_kv_indptr_buffer", NULL},
    {"paged_kv_indices_buffer", NULL},
    {"paged_kv_last_page_len_buffer", NULL},
    {"qo_indptr_buf", NULL},
    {"paged_kv_indptr_buf", NULL},
    {"paged_kv_indices_buf", NULL},
    {"paged_kv_last_page_len_buf", NULL},
    {"custom_mask_buf", "None"},
    {"mask_indptr_buf", "None"},
    {"jit_args", "None"},
    {"jit_kwargs", "None"},
    {0},
};
static const struct flash_rule plan_rules[] = {
    {"indptr", NULL},
    {"indices", NULL},
    {"last_page_len", NULL},
    {"qo_indptr", NULL},
    {"paged_kv_indptr", NULL},
    {"paged_kv_indices", NULL},
    {"paged_kv_last_page_len", NULL},
    {"num_qo_heads", NULL},
    {"num_kv_heads", NULL},
    {"head_dim", NULL},
    {"head_dim_qk", NULL},
    {"head_dim_vo", NULL}, /* the cache has the one head dim */
    {"page_size", NULL},
    {"causal", NULL},
    {"sm_scale", NULL},
    {"pos_encoding_mode", "NONE"},
    {"window_left", "-1"},
    {"logits_soft_cap", "None|0"},
    {"custom_mask", "None"},
    {"packed_custom_mask", "None"},
    {"use_fp16_qk_reduction", "False"},
    {"prefix_len_ptr", "None"},
    {"token_pos_in_items_ptr", "None"},
    {"token_pos_in_items_len", "0"},
    {"max_item_len_ptr", "None"},
    {"fixed_split_size", "None"},
    {"disable_split_kv", NULL},
    {"rope_scale", NULL}, /* of an encoding */
    {"rope_theta", NULL},
    {"q_data_type", NULL}, /* the tensors say so, too */
    {"kv_data_type", NULL},
    {"o_data_type", NULL},
    {"data_type", NULL},
    {"non_blocking", NULL},
    {"block_tables", NULL},
    {"seq_lens", NULL},
    {"seq_lens_q", NULL},
    {"max_token_per_sequence", NULL},
    {"max_sequence_kv", NULL},
    {0},
};
static const struct flash_rule run_rules[] = {
    {"q", NULL},
    {"paged_kv_cache", NULL},
    {"q_scale", "None|1"},
    {"k_scale", "None|1"},
    {"v_scale", "None|1"},
    {"window_left", "None|-1"},
    {"sinks", "None"},
    {"q_len_per_req", "None|1"},
    {"skip_softmax_threshold_scale_factor", "None|0"},
    {"out", NULL},
    {"lse", NULL},
    {"return_lse", NULL},
    {"enable_pdl", NULL},
    {0},
};

/* ---- the calls before it ---- */

/* The last one of the same object before this one. */
static struct logged_call *earlier(struct flash_call *f, const char *method) {
    const char *const dot = strrchr(f->logged->function, '.');
    char function[CALL_TEXT];
    snprintf(function, sizeof function, "%.*s%.30s", (int)(dot - f->logged->function), f->logged->function,
             method);
    for (int i = f->index - 1; i >= 0 && f->logged->object[0]; i--) {
        struct logged_call *const c = call_log_at(f->log, i);
        if (!strcmp(c->function, function) && !strcmp(c->object, f->logged->object)) return c;
    }
    flash_refuse(f, "no call of %.80s of the same object before it", function);
    return NULL;
}

static struct logged_call *open_earlier(struct flash_call *f, const char *method) {
    struct logged_call *const c = earlier(f, method);
    if (!c) return NULL;
    call_open(c);
    if (c->problem[0]) return flash_refuse(f, "its %s: %.150s", method + 1, c->problem), NULL;
    return c;
}

/* ---- sequences ---- */

static bool get_size(struct flash_call *f, const struct logged_call *plan, const char *name, int64_t *out) {
    const struct call_value v = call_argument(plan, name);
    enum { MOST = 1 << 20 };
    *out = v.kind == VALUE_NUMBER && v.number >= 1 && v.number <= MOST ? (int64_t)v.number : 0;
    return (*out > 0 && (double)*out == v.number) ||
           flash_refuse(f, "argument %s of its plan is no size", name);
}

static double *get_integers(struct flash_call *f, const struct logged_call *plan, const char *name,
                            int64_t *n) {
    const struct named_tensor *const t = flash_tensor(f, plan, name, 1);
    if (!t) return NULL;
    if (t->element != ELEMENT_I32 && t->element != ELEMENT_I64)
        return flash_refuse(f, "%s of its plan holds no integers", name), NULL;
    *n = t->count;
    return flash_numbers(f, plan, t);
}

static bool is_rising(const double *x, int64_t n) {
    if (n < 2 || x[0] != 0) return false;
    for (int64_t i = 1; i < n; i++)
        if (!(x[i] >= x[i - 1] && x[i] <= INT32_MAX)) return false;
    return true;
}

struct cache {
    int64_t n_pages, n_used, page_size, n_kv_heads, head_dim;
    bool heads_first;
    const struct named_tensor *half[2]; /* k and v; one tensor may be both */
    int32_t *as;                        /* [n_pages] its number among the used ones; -1: not used */
};

/* Of sequence b. */
static bool add_pages(struct flash_call *f, struct cache *c, int64_t b, const double *page, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (!(page[i] >= 0 && page[i] < (double)c->n_pages))
            return flash_refuse(f, "page %.0f of sequence %lld: the cache has %lld pages", page[i],
                                (long long)b, (long long)c->n_pages);
        int32_t *const as = &c->as[(int64_t)page[i]];
        if (*as < 0) *as = (int32_t)c->n_used++;
        f->batch.page_table[b * f->batch.max_pages + i] = *as;
    }
    return true;
}

/* indptr [B + 1], pages, last [B]: how many keys the last page has. */
static bool read_pages(struct flash_call *f, const struct logged_call *plan, const char *const names[3],
                       struct cache *c) {
    int64_t n_indptr, n_pages, n_last;
    double *const indptr = get_integers(f, plan, names[0], &n_indptr),
                  *const page = indptr ? get_integers(f, plan, names[1], &n_pages) : NULL,
                  *const last = page ? get_integers(f, plan, names[2], &n_last) : NULL;
    struct batch *const batch = &f->batch;
    if (!last) return false;
    if (!is_rising(indptr, n_indptr) || n_last != n_indptr - 1 || indptr[n_last] > (double)n_pages)
        return flash_refuse(f, "%s, %s and %s of its plan do not fit together", names[0], names[1], names[2]);
    batch->n_seqs = n_last;
    for (int64_t b = 0; b < n_last; b++)
        batch->max_pages = (int64_t)fmax((double)batch->max_pages, indptr[b + 1] - indptr[b]);
    batch->kv_len = flash_own(f, (size_t)n_last, sizeof *batch->kv_len);
    batch->page_table = flash_own(f, (size_t)(n_last * batch->max_pages), sizeof *batch->page_table);
    for (int64_t b = 0; b < n_last; b++) {
        const int64_t n = (int64_t)(indptr[b + 1] - indptr[b]);
        if (n > 0 && !(last[b] >= 1 && last[b] <= (double)c->page_size))
            return flash_refuse(f, "sequence %lld has %.0f keys in its last page of %lld", (long long)b,
                                last[b], (long long)c->page_size);
        const int64_t keys = n > 0 ? (n - 1) * c->page_size + (int64_t)last[b] : 0;
        if (keys > INT32_MAX) return flash_refuse(f, "sequence %lld has more than 2^31 keys", (long long)b);
        batch->kv_len[b] = (int32_t)keys;
        if (keys > batch->max_kv) batch->max_kv = keys;
        if (!add_pages(f, c, b, page + (int64_t)indptr[b], n)) return false;
    }
    return true;
}

/* start NULL: one query a sequence. */
static bool read_queries(struct flash_call *f, const double *start, int64_t n_queries, bool causal) {
    struct batch *const b = &f->batch;
    b->n_tokens = n_queries;
    b->query_start = flash_own(f, (size_t)b->n_seqs + 1, sizeof *b->query_start);
    b->positions = flash_own(f, (size_t)n_queries, sizeof *b->positions);
    for (int64_t i = 0; i <= b->n_seqs; i++) b->query_start[i] = (int32_t)(start ? start[i] : (double)i);
    if (b->query_start[b->n_seqs] != n_queries)
        return flash_refuse(f, "q has %lld rows, its plan is about %d", (long long)n_queries,
                            b->query_start[b->n_seqs]);
    for (int64_t i = 0; i < b->n_seqs; i++) {
        const int32_t first = b->query_start[i], n = b->query_start[i + 1] - first;
        if (n > b->max_queries) b->max_queries = n;
        if (causal && n > b->kv_len[i])
            return flash_refuse(
                f, "sequence %lld has %d queries and %d keys: what the first see is not known here",
                (long long)i, n, b->kv_len[i]);
        for (int32_t q = 0; q < n; q++) b->positions[first + q] = b->kv_len[i] - n + q;
    }
    return true;
}

/* ---- the cache ---- */

/* k and v, or one tensor of both: [pages, page_size, G, D] (NHD) or [pages, G, page_size, D]
 * (HND), with a dimension of 2 after the pages where they are one. */
static bool find_cache(struct flash_call *f, const struct logged_call *init, struct cache *c) {
    const struct call_value layout = call_argument(init, "kv_layout");
    c->heads_first = !strcmp(layout.text, "HND");
    if (layout.kind != VALUE_TEXT || (!c->heads_first && strcmp(layout.text, "NHD") != 0))
        return flash_refuse(f, "kv_layout %.40s is not known here", layout.text);
    const bool one = call_argument(f->logged, "paged_kv_cache").kind == VALUE_TENSOR;
    for (int i = 0; i < 2; i++) {
        const struct named_tensor *const t = one ? call_argument(f->logged, "paged_kv_cache").tensor
                                                 : call_item(f->logged, "paged_kv_cache", i);
        if (!t)
            return flash_refuse(f,
                                "its cache was passed as two tensors, which this version of FlashInfer does "
                                "not save; pass one [pages, 2, ...]");
        const int64_t shape[] = {c->heads_first ? c->n_kv_heads : c->page_size,
                                 c->heads_first ? c->page_size : c->n_kv_heads, c->head_dim};
        bool fits =
            t->n_dims == 4 + one && t->dim[0] >= 1 && t->dim[0] <= INT32_MAX && (!one || t->dim[1] == 2);
        for (int d = 0; d < 3 && fits; d++) fits = t->dim[1 + one + d] == shape[d];
        if (!fits || (i && t->dim[0] != c->n_pages))
            return flash_refuse(f, "its cache has not the shape that its plan and %s say", layout.text);
        c->n_pages = t->dim[0];
        c->half[i] = t;
    }
    c->as = flash_own(f, (size_t)c->n_pages, sizeof *c->as);
    memset(c->as, -1, (size_t)c->n_pages * sizeof *c->as);
    return true;
}

/* Only pages that some sequence has; of each k, then v. */
static bool read_cache(struct flash_call *f, const struct cache *c) {
    struct attention_args *const a = &f->call.u.attention;
    const int64_t half = c->page_size * c->n_kv_heads * c->head_dim, n = c->n_used * 2 * half;
    const bool one = c->half[0] == c->half[1];
    double *const numbers = flash_own(f, (size_t)n + 1, sizeof *numbers);
    for (int64_t p = 0; p < c->n_pages; p++)
        for (int i = 0; i < 2 && c->as[p] >= 0; i++) {
            const struct status s =
                tensor_read(f->logged->inputs, c->half[i], one ? (2 * p + i) * half : p * half, half,
                            numbers + (2 * c->as[p] + i) * half);
            if (s.code) return flash_refuse(f, "%.220s", s.message);
        }
    const int64_t slot = c->heads_first ? c->head_dim : c->n_kv_heads * c->head_dim,
                  head = c->heads_first ? c->page_size * c->head_dim : c->head_dim;
    a->k_cache = flash_view(numbers, n, 2 * half, slot, head);
    a->v_cache = flash_view(numbers + half, n - half, 2 * half, slot, head);
    return true;
}

/* ---- both wrappers ---- */

static struct view integers(int32_t *data, int64_t count, int64_t stride) {
    return (struct view){data, DTYPE_I32, {stride}, 0, count};
}

struct wrapper {
    const char *pages[3], *queries,
        *head_dim; /* names of the plan's arguments; queries NULL: one a sequence */
};

static bool build(struct flash_call *f, const struct wrapper *w, const struct logged_call *init,
                  const struct logged_call *plan) {
    struct attention_args *const a = &f->call.u.attention;
    struct cache c = {0};
    const struct named_tensor *const q = flash_tensor(f, f->logged, "q", 3);
    int64_t n_start = 0;
    if (!q || !flash_dtype(f, q, &f->dtype) || !flash_follows(f, init, init_rules) ||
        !flash_follows(f, plan, plan_rules) || !flash_follows(f, f->logged, run_rules) ||
        !get_size(f, plan, "num_qo_heads", &f->spec.n_heads) ||
        !get_size(f, plan, "num_kv_heads", &c.n_kv_heads) || !get_size(f, plan, w->head_dim, &c.head_dim) ||
        !get_size(f, plan, "page_size", &c.page_size))
        return false;
    if (q->dim[1] != f->spec.n_heads || q->dim[2] != c.head_dim || f->spec.n_heads % c.n_kv_heads)
        return flash_refuse(f, "q and its plan are about other heads");
    if (!find_cache(f, init, &c) || !read_pages(f, plan, w->pages, &c)) return false;
    double *const start = w->queries ? get_integers(f, plan, w->queries, &n_start) : NULL;
    if (w->queries && (!start || !is_rising(start, n_start) || n_start != f->batch.n_seqs + 1))
        return f->reason[0] ? false : flash_refuse(f, "%s of its plan does not fit its pages", w->queries);
    const struct call_value causal = call_argument(plan, "causal"), scale = call_argument(plan, "sm_scale");
    const bool masked = w->queries && causal.kind == VALUE_FLAG && causal.number != 0;
    if (w->queries && causal.kind != VALUE_FLAG)
        return flash_refuse(f, "argument causal of its plan is no flag");
    if (scale.kind != VALUE_NUMBER && scale.kind != VALUE_NONE)
        return flash_refuse(f, "argument sm_scale of its plan is no number");
    double *const numbers = flash_numbers(f, f->logged, q);
    f->call.op = OP_ATTENTION;
    if (!numbers || !read_queries(f, start, q->dim[0], masked) || !read_cache(f, &c)) return false;

    struct batch *const b = &f->batch;
    b->n_pages = c.n_used;
    b->n_positions = b->max_kv;
    a->q = flash_view(numbers, q->count, f->spec.n_heads * c.head_dim, c.head_dim, 0);
    a->page_table = integers(b->page_table, b->n_seqs * b->max_pages, b->max_pages);
    a->query_start = integers(b->query_start, b->n_seqs + 1, 1);
    a->kv_len = integers(b->kv_len, b->n_seqs, 1);
    a->n_tokens = b->n_tokens, a->n_seqs = b->n_seqs, a->n_pages = c.n_used;
    a->n_heads = f->spec.n_heads, a->n_kv_heads = c.n_kv_heads, a->head_dim = c.head_dim;
    a->page_size = c.page_size, a->max_queries = b->max_queries, a->max_kv = b->max_kv;
    a->scale = scale.kind == VALUE_NUMBER ? scale.number : 1 / sqrt((double)c.head_dim);
    a->causal = masked;
    f->stage = S_ATTENTION;
    f->id = T_O;
    f->spec.n_kv_heads = c.n_kv_heads, f->spec.head_dim = c.head_dim;
    return true;
}

static bool run_of(struct flash_call *f, const struct wrapper *w, const char *backend) {
    struct logged_call *const plan = open_earlier(f, ".plan"), *const init =
                                                                   plan ? open_earlier(f, ".__init__") : NULL;
    bool ok = init && build(f, w, init, plan);
    if (ok) {
        const struct call_value asked = call_argument(init, "backend");
        ok = add_contracts(f, backend && !strcmp(asked.text, "auto") ? backend : asked.text);
    }
    if (init) call_close(init);
    if (plan) call_close(plan);
    return ok;
}

/* With tensor cores decode runs the fa2 kernels of prefill, split. */
bool flash_decode(struct flash_call *f) {
    static const struct wrapper wrapper = {.pages = {"indptr", "indices", "last_page_len"},
                                           .head_dim = "head_dim"};
    return run_of(f, &wrapper, "fa2");
}

bool flash_prefill(struct flash_call *f) {
    static const struct wrapper wrapper = {
        .pages = {"paged_kv_indptr", "paged_kv_indices", "paged_kv_last_page_len"},
        .queries = "qo_indptr",
        .head_dim = "head_dim_qk"};
    return run_of(f, &wrapper, NULL);
}

/* The two tables of the layer. Every stage reads the tensors that the
 * stages before it (or the fill) wrote; an id that is both input and output gets a new version. */
/* SPDX-License-Identifier: MIT */
#include "layer/layer.h"

#include <assert.h>
#include <string.h>

#define STORED (-1) /* in the storage dtype of the case */

static bool has_qk_norm(const struct layer_spec *s) { return s->qk_norm; }
static bool has_qkv_bias(const struct layer_spec *s) { return s->qkv_bias; }
static bool has_o_bias(const struct layer_spec *s) { return s->o_bias; }
static bool has_rope(const struct layer_spec *s) { return s->rot_dim > 0; }
static bool has_moe(const struct layer_spec *s) { return s->moe; }
static bool has_select_bias(const struct layer_spec *s) { return s->moe && s->select_bias; }
static bool has_shared(const struct layer_spec *s) { return s->shared_width > 0; }

const struct tensor_row tensor_table[T_COUNT] = {
    [T_X] = {"x", "t m", ROLE_INPUT, STORED},
    [T_Y] = {"y", "t m", ROLE_ACTIVATION, STORED},
    [T_NORM_W] = {"norm_w", "m", ROLE_WEIGHT, STORED},
    [T_NORMED] = {"normed", "t m", ROLE_ACTIVATION, STORED},

    [T_W_QKV] = {"w_qkv", "(h/tp g/tp g/tp) d m", ROLE_WEIGHT, STORED},
    [T_B_QKV] = {"b_qkv", "(h/tp g/tp g/tp) d", ROLE_WEIGHT, STORED, .present = has_qkv_bias},
    [T_QKV] = {"qkv", "t (h/tp g/tp g/tp) d", ROLE_ACTIVATION, STORED},
    [T_Q_NORM_W] = {"q_norm_w", "d", ROLE_WEIGHT, STORED, .present = has_qk_norm},
    [T_K_NORM_W] = {"k_norm_w", "d", ROLE_WEIGHT, STORED, .present = has_qk_norm},
    [T_Q] = {"q", "t h/tp d", ROLE_ACTIVATION, STORED},
    [T_K] = {"k", "t g/tp d", ROLE_ACTIVATION, STORED},
    [T_V] = {"v", "t g/tp d", ROLE_ACTIVATION, STORED},
    [T_ROPE_TABLE] = {"rope_table", "p r", ROLE_INDEX, DTYPE_F32, .present = has_rope},
    [T_POSITIONS] = {"positions", "t", ROLE_INDEX, DTYPE_I32, .present = has_rope},
    [T_SLOTS] = {"slots", "t", ROLE_INDEX, DTYPE_I32},
    [T_K_CACHE] = {"k_cache", "page slot g/tp d", ROLE_ACTIVATION, STORED},
    [T_V_CACHE] = {"v_cache", "page slot g/tp d", ROLE_ACTIVATION, STORED},
    [T_PAGE_TABLE] = {"page_table", "b entry", ROLE_INDEX, DTYPE_I32},
    [T_QUERY_START] = {"query_start", "b+1", ROLE_INDEX, DTYPE_I32},
    [T_KV_LEN] = {"kv_len", "b", ROLE_INDEX, DTYPE_I32},
    [T_O] = {"o", "t h/tp d", ROLE_ACTIVATION, STORED},
    [T_W_O] = {"w_o", "m h/tp d", ROLE_WEIGHT, STORED},
    [T_B_O] = {"b_o", "m", ROLE_WEIGHT, STORED, .present = has_o_bias},
    [T_O_PART] = {"o_part", "t m +tp", ROLE_PARTIAL, STORED},
    [T_ATTN_OUT] = {"attn_out", "t m", ROLE_ACTIVATION, STORED},

    [T_W_ROUTER] = {"router_w", "e m", ROLE_WEIGHT, STORED, .present = has_moe},
    [T_LOGITS] = {"logits", "t e", ROLE_ACTIVATION, DTYPE_F32, .present = has_moe},
    [T_SELECT_BIAS] = {"select_bias", "e", ROLE_WEIGHT, DTYPE_F32, .present = has_select_bias},
    [T_IDS] = {"ids", "t k", ROLE_ACTIVATION, DTYPE_I32, .present = has_moe},
    [T_GATES] = {"gates", "t k", ROLE_ACTIVATION, DTYPE_F32, .present = has_moe},
    [T_OFFSETS] = {"offsets", "e/ep+1", ROLE_LOCAL, DTYPE_I32, .present = has_moe},
    [T_ROW_SLOT] = {"row_slot", "n/ep", ROLE_LOCAL, DTYPE_I32, .present = has_moe},
    [T_SLOT_ROW] = {"slot_row", "t k", ROLE_LOCAL, DTYPE_I32, .present = has_moe},
    [T_ROWS] = {"rows", "n/ep m", ROLE_ACTIVATION, STORED, .present = has_moe},
    [T_W_GATE_UP] = {"w_gate_up", "e/ep 2 f/etp m", ROLE_WEIGHT, STORED, .present = has_moe, .routed = true},
    [T_GATE_UP] = {"gate_up", "n/ep 2 f/etp", ROLE_ACTIVATION, STORED, .present = has_moe},
    [T_ACT] = {"act", "n/ep f/etp", ROLE_ACTIVATION, STORED, .present = has_moe},
    [T_W_DOWN] = {"w_down", "e/ep m f/etp", ROLE_WEIGHT, STORED, .present = has_moe, .routed = true},
    [T_DOWN] = {"down", "n/ep m +etp", ROLE_PARTIAL, STORED, .present = has_moe},
    [T_MOE_PART] = {"moe_part", "t m +tp", ROLE_PARTIAL, STORED, .present = has_moe},
    [T_W_SHARED_GATE_UP] = {"w_shared_gate_up", "2 s/tp m", ROLE_WEIGHT, STORED, .present = has_shared},
    [T_SHARED_GATE_UP] = {"shared_gate_up", "t 2 s/tp", ROLE_ACTIVATION, STORED, .present = has_shared},
    [T_SHARED_ACT] = {"shared_act", "t s/tp", ROLE_ACTIVATION, STORED, .present = has_shared},
    [T_W_SHARED_DOWN] = {"w_shared_down", "m s/tp", ROLE_WEIGHT, STORED, .present = has_shared},
    [T_SHARED_PART] = {"shared_part", "t m +tp", ROLE_PARTIAL, STORED, .present = has_shared},
    [T_FFN_OUT] = {"ffn_out", "t m", ROLE_ACTIVATION, STORED},
};

#define IO(...)                                                                                              \
    { __VA_ARGS__, T_NONE }
const struct stage_row stage_table[S_COUNT] = {
    [S_ATTN_NORM] = {"attn_norm", PART_ATTENTION, OP_NORM, false, IO(T_X, T_NORM_W), IO(T_NORMED), NULL, 0},
    [S_QKV_PROJ] = {"qkv_proj", PART_ATTENTION, OP_LINEAR, false, IO(T_NORMED, T_W_QKV, T_B_QKV), IO(T_QKV),
                    NULL, 0},
    [S_QKV_SPLIT] = {"qkv_split", PART_ATTENTION, OP_SPLIT, true, IO(T_QKV), IO(T_Q, T_K, T_V), NULL, 0},
    [S_QK_NORM] = {"qk_norm", PART_ATTENTION, OP_QK_NORM, false, IO(T_Q, T_K, T_Q_NORM_W, T_K_NORM_W),
                   IO(T_Q, T_K), has_qk_norm, 0},
    [S_ROPE] = {"rope", PART_ATTENTION, OP_ROPE, false, IO(T_Q, T_K, T_ROPE_TABLE, T_POSITIONS), IO(T_Q, T_K),
                has_rope, 0},
    [S_KV_WRITE] = {"kv_write", PART_ATTENTION, OP_KV_WRITE, true, IO(T_K, T_V, T_SLOTS),
                    IO(T_K_CACHE, T_V_CACHE), NULL, 0},
    [S_ATTENTION] = {"attention", PART_ATTENTION, OP_ATTENTION, false,
                     IO(T_Q, T_K_CACHE, T_V_CACHE, T_PAGE_TABLE, T_QUERY_START, T_KV_LEN), IO(T_O), NULL, 0},
    [S_O_PROJ] = {"o_proj", PART_ATTENTION, OP_LINEAR, false, IO(T_O, T_W_O, T_B_O), IO(T_O_PART), NULL, 0},
    [S_ATTN_SUM] = {"attn_sum", PART_ATTENTION, OP_SUM, false, IO(T_O_PART), IO(T_ATTN_OUT), NULL, 0},
    [S_ATTN_RESIDUAL] = {"attn_residual", PART_ATTENTION, OP_RESIDUAL, true, IO(T_X, T_ATTN_OUT), IO(T_Y),
                         NULL, 0},

    [S_FFN_NORM] = {"ffn_norm", PART_FFN, OP_NORM, false, IO(T_X, T_NORM_W), IO(T_NORMED), NULL, 0},
    [S_ROUTER] = {"router", PART_FFN, OP_LINEAR, false, IO(T_NORMED, T_W_ROUTER), IO(T_LOGITS), has_moe, 0},
    [S_ROUTE] = {"route", PART_FFN, OP_ROUTE, true, IO(T_LOGITS, T_SELECT_BIAS), IO(T_IDS, T_GATES), has_moe,
                 0},
    [S_PERMUTE] = {"permute", PART_FFN, OP_PERMUTE, true, IO(T_NORMED, T_IDS),
                   IO(T_OFFSETS, T_ROW_SLOT, T_SLOT_ROW, T_ROWS), has_moe, 0},
    [S_GATE_UP_ACT] = {"gate_up_act", PART_FFN, OP_GATED_LINEAR, false, IO(T_ROWS, T_W_GATE_UP, T_OFFSETS),
                       IO(T_ACT), has_moe, 2},
    [S_GATE_UP] = {"gate_up", PART_FFN, OP_LINEAR, false, IO(T_ROWS, T_W_GATE_UP, T_OFFSETS), IO(T_GATE_UP),
                   has_moe, 0},
    [S_ACTIVATION] = {"activation", PART_FFN, OP_ACTIVATION, false, IO(T_GATE_UP), IO(T_ACT), has_moe, 0},
    [S_DOWN] = {"down", PART_FFN, OP_LINEAR, false, IO(T_ACT, T_W_DOWN, T_OFFSETS), IO(T_DOWN), has_moe, 0},
    [S_COMBINE] = {"combine", PART_FFN, OP_COMBINE, false, IO(T_DOWN, T_SLOT_ROW, T_GATES), IO(T_MOE_PART),
                   has_moe, 0},
    [S_SHARED_GATE_UP_ACT] = {"shared_gate_up_act", PART_FFN, OP_GATED_LINEAR, false,
                              IO(T_NORMED, T_W_SHARED_GATE_UP), IO(T_SHARED_ACT), has_shared, 2},
    [S_SHARED_GATE_UP] = {"shared_gate_up", PART_FFN, OP_LINEAR, false, IO(T_NORMED, T_W_SHARED_GATE_UP),
                          IO(T_SHARED_GATE_UP), has_shared, 0},
    [S_SHARED_ACTIVATION] = {"shared_activation", PART_FFN, OP_ACTIVATION, false, IO(T_SHARED_GATE_UP),
                             IO(T_SHARED_ACT), has_shared, 0},
    [S_SHARED_DOWN] = {"shared_down", PART_FFN, OP_LINEAR, false, IO(T_SHARED_ACT, T_W_SHARED_DOWN),
                       IO(T_SHARED_PART), has_shared, 0},
    [S_FFN_SUM] = {"ffn_sum", PART_FFN, OP_SUM, false, IO(T_MOE_PART, T_SHARED_PART), IO(T_FFN_OUT), NULL, 0},
    [S_FFN_RESIDUAL] = {"ffn_residual", PART_FFN, OP_RESIDUAL, true, IO(T_X, T_FFN_OUT), IO(T_Y), NULL, 0},
};

/* `summed`: the operand whose axes, as far as the output lacks them, are added up. */
enum { ADDS_NOTHING = -1 };
static const struct {
    const char *name;
    int summed;
} op_rows[OP_COUNT] = {
    [OP_NORM] = {"norm", ADDS_NOTHING},
    [OP_LINEAR] = {"linear", 0},
    [OP_SPLIT] = {"split", ADDS_NOTHING},
    [OP_QK_NORM] = {"qk_norm", ADDS_NOTHING},
    [OP_ROPE] = {"rope", ADDS_NOTHING},
    [OP_KV_WRITE] = {"kv_write", ADDS_NOTHING},
    [OP_ATTENTION] = {"attention", ADDS_NOTHING},
    [OP_ROUTE] = {"route", ADDS_NOTHING},
    [OP_PERMUTE] = {"permute", ADDS_NOTHING},
    [OP_ACTIVATION] = {"activation", ADDS_NOTHING},
    [OP_GATED_LINEAR] = {"gated_linear", 0},
    [OP_COMBINE] = {"combine", 2}, /* the gates: a choice each */
    [OP_SUM] = {"sum", ADDS_NOTHING},
    [OP_RESIDUAL] = {"residual", ADDS_NOTHING},
};

static const char *const part_names[PART_COUNT] = {[PART_ATTENTION] = "attention", [PART_FFN] = "ffn"};

const char *part_name(enum part part) { return part_names[part]; }

bool part_by_name(const char *name, enum part *out) {
    for (enum part p = 0; p < PART_COUNT; p++)
        if (!strcmp(part_names[p], name)) {
            *out = p;
            return true;
        }
    return false;
}

const char *op_name(enum op op) { return op_rows[op].name; }

enum tensor_id tensor_by_name(const char *name) {
    for (int i = 0; i < T_COUNT; i++)
        if (!strcmp(tensor_table[i].name, name)) return (enum tensor_id)i;
    return T_NONE;
}

int stage_by_name(const char *name) {
    for (int i = 0; i < S_COUNT; i++)
        if (!strcmp(stage_table[i].name, name)) return i;
    return -1;
}

bool stage_applies(int stage, enum part part, const struct layer_spec *spec) {
    const struct stage_row *const row = &stage_table[stage];
    return row->part == part && !row->fuses && (!row->present || row->present(spec));
}

enum dtype tensor_dtype(enum tensor_id id, enum dtype storage) {
    const int own = tensor_table[id].dtype;
    return own == STORED || (storage == DTYPE_F64 && own != DTYPE_I32) ? storage : (enum dtype)own;
}

bool tensor_present(enum tensor_id id, const struct layer_spec *spec) {
    return !tensor_table[id].present || tensor_table[id].present(spec);
}

/* ---- what follows from the rows ---- */

void layer_sizes(const struct layer_spec *spec, int64_t size[AXIS_COUNT]) {
    for (int a = 0; a < AXIS_COUNT; a++) size[a] = 0;
    size[AXIS_M] = spec->hidden;
    size[AXIS_H] = spec->n_heads;
    size[AXIS_G] = spec->n_kv_heads;
    size[AXIS_D] = spec->head_dim;
    size[AXIS_R] = spec->rot_dim;
    size[AXIS_E] = spec->n_experts;
    size[AXIS_K] = spec->top_k;
    size[AXIS_F] = spec->expert_width;
    size[AXIS_S] = spec->shared_width;
}

struct axes tensor_axes(enum tensor_id id) {
    struct axes axes;
    const char *const problem = axes_parse(tensor_table[id].axes, &axes);
    assert(!problem);
    (void)problem;
    return axes;
}

static bool has_axis(const struct axes *axes, enum axis_name name) {
    for (int i = 0; i < axes->n; i++)
        for (int b = 0; b < axes->axis[i].n_blocks; b++)
            if (axes->axis[i].block[b].name == name) return true;
    return false;
}

static int64_t contracted(enum tensor_id operand, enum tensor_id result, const int64_t size[AXIS_COUNT]) {
    const struct axes in = tensor_axes(operand), out = tensor_axes(result);
    int64_t terms = 1;
    for (int i = 0; i < in.n; i++)
        if (!has_axis(&out, in.axis[i].block[0].name)) terms *= size[in.axis[i].block[0].name];
    return terms;
}

static int stage_making(enum tensor_id id, int before) {
    for (int s = before; s-- > 0;)
        for (const enum tensor_id *out = stage_table[s].out; *out != T_NONE; out++)
            if (*out == id) return s;
    return -1;
}

int64_t stage_terms(int stage, const int64_t size[AXIS_COUNT]) {
    const struct stage_row *const row = &stage_table[stage];
    const int summed = op_rows[row->op].summed;
    if (summed == ADDS_NOTHING) return 0;
    int64_t terms = contracted(row->in[summed], row->out[0], size);
    for (const enum tensor_id *id = row->in; *id != T_NONE; id++)
        if (tensor_table[*id].role == ROLE_PARTIAL) terms += stage_terms(stage_making(*id, stage), size);
    return terms;
}

int64_t tensor_fan_in(enum tensor_id id, const int64_t size[AXIS_COUNT]) {
    for (int s = 0; s < S_COUNT; s++)
        if (op_rows[stage_table[s].op].summed != ADDS_NOTHING && stage_table[s].in[1] == id &&
            tensor_table[id].role == ROLE_WEIGHT)
            return stage_terms(s, size);
    return 0;
}

bool tensor_continues(enum tensor_id id) {
    for (int s = 0; s < S_COUNT && tensor_table[id].role == ROLE_PARTIAL; s++)
        for (const enum tensor_id *in = stage_table[s].in; *in != T_NONE; in++)
            if (*in == id && stage_table[s].op != OP_SUM) return true;
    return false;
}

struct layer_spec layer_defaults(void) {
    return (struct layer_spec){
        .causal = true,
        .norm_eps = 1e-6,
        .rope_pairing = ROPE_NEOX,
        .rope_theta = 1e4,
        .score = SCORE_SOFTMAX,
        .n_group = 1,
        .topk_group = 1,
        .renormalise = true,
        .routed_scale = 1,
    };
}

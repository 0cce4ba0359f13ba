/* Do the keys that change a layer change what they say and nothing else, and are layers that cannot
 * be refused? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/case.h"

/* The layer of a line, which has to be a legal case, or the refusal. */
static struct status layer_of(const char *line, struct layer_spec *spec) {
    struct check_case c;
    struct case_given given;
    struct model model;
    cr_assert_eq(case_read(line, &c, &given).code, STATUS_OK, "%s", line);
    cr_assert_eq(model_load(c.model, &model).code, STATUS_OK, "%s", line);
    *spec = case_spec(&c, &model);
    return case_check(&c, &model, &given);
}

/* A field of layer_spec as a number. */
static double number(const struct layer_spec *s, size_t offset, size_t size) {
    const char *const at = (const char *)s + offset;
    int64_t wide;
    int narrow;
    double real;
    if (size == sizeof(bool)) return *(const bool *)at;
    if (size == sizeof narrow) return memcpy(&narrow, at, sizeof narrow), narrow;
    if (offset == offsetof(struct layer_spec, attn_scale) ||
        offset == offsetof(struct layer_spec, norm_eps) ||
        offset == offsetof(struct layer_spec, rope_theta) ||
        offset == offsetof(struct layer_spec, rope_factor) ||
        offset == offsetof(struct layer_spec, rope_low) || offset == offsetof(struct layer_spec, rope_high) ||
        offset == offsetof(struct layer_spec, renorm_eps) ||
        offset == offsetof(struct layer_spec, routed_scale))
        return memcpy(&real, at, sizeof real), real;
    return memcpy(&wide, at, sizeof wide), (double)wide;
}

#define FIELD(name)                                                                                          \
    { #name, offsetof(struct layer_spec, name), sizeof(((struct layer_spec *)0)->name) }
static const struct {
    const char *name;
    size_t offset, size;
} fields[] = {
    FIELD(hidden),       FIELD(n_heads),      FIELD(n_kv_heads),   FIELD(head_dim),     FIELD(attn_scale),
    FIELD(qkv_bias),     FIELD(o_bias),       FIELD(causal),       FIELD(norm_eps),     FIELD(qk_norm),
    FIELD(rope_pairing), FIELD(rot_dim),      FIELD(rope_theta),   FIELD(rope_scaling), FIELD(rope_factor),
    FIELD(rope_low),     FIELD(rope_high),    FIELD(rope_trained), FIELD(moe),          FIELD(shared_width),
    FIELD(n_experts),    FIELD(top_k),        FIELD(expert_width), FIELD(score),        FIELD(select_bias),
    FIELD(n_group),      FIELD(topk_group),   FIELD(group_score),  FIELD(group_fill),   FIELD(renormalise),
    FIELD(renorm_eps),   FIELD(routed_scale),
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

/* On tiny (8 heads of 16, 4 kv heads, hidden 64, 16 experts top 4 of width 32, shared 64, sigmoid):
 * what the key makes of the layer, in the order of the fields. */
static const struct {
    const char *key, *line, *changes;
} effects[] = {
    {"hidden", "tiny/ffn:hidden=24", "hidden=24"},
    {"heads", "tiny/attention:heads=12", "n_heads=12"},
    {"kv", "tiny/attention:kv=2", "n_kv_heads=2"},
    {"dim", "tiny/attention:dim=64", "head_dim=64 attn_scale=0.125 rot_dim=64"},
    {"rot", "tiny/attention:rot=6", "rot_dim=6"},
    {"bias", "tiny/attention:bias=qkv", "qkv_bias=1"},
    {"bias", "tiny/attention:bias=qkvo", "qkv_bias=1 o_bias=1"},
    {"qk_norm", "tiny/attention:qk_norm=off", "qk_norm=0"},
    {"experts", "tiny/ffn:experts=128", "n_experts=128"},
    {"top", "tiny/ffn:top=16", "top_k=16"},
    {"width", "tiny/ffn:width=8", "expert_width=8"},
    {"shared", "tiny/ffn:shared=0", "shared_width=0"},
    {"shared", "tiny/ffn:layer=0,shared=8", "shared_width=8"},
    {"groups", "tiny/ffn:groups=4", "n_group=4"},
    {"topk_groups", "tiny/ffn:groups=8,topk_groups=2", "n_group=8 topk_group=2"},
    {"group_fill", "tiny/ffn:groups=4,topk_groups=2,group_fill=0", "n_group=4 topk_group=2 group_fill=1"},
    {"score", "tiny/ffn:score=softmax", "score=0"},
    {"select_bias", "tiny/ffn:select_bias=off", "select_bias=0"},
    {"renorm", "tiny/ffn:renorm=off", "renormalise=0 renorm_eps=0"},
};
enum { N_EFFECTS = sizeof effects / sizeof *effects };

static void differences(const struct layer_spec *old, const struct layer_spec *new, char *text, size_t size) {
    text[0] = 0;
    for (int f = 0; f < N_FIELDS; f++) {
        const double now = number(new, fields[f].offset, fields[f].size);
        const size_t n = strlen(text);
        if (number(old, fields[f].offset, fields[f].size) != now)
            snprintf(text + n, size - n, "%s%s=%g", n ? " " : "", fields[f].name, now);
    }
}

Test(case_spec, every_key_changes_its_own_fields_of_the_layer) {
    for (int e = 0; e < N_EFFECTS; e++) {
        struct layer_spec old, new;
        char plain[64], text[200];
        snprintf(plain, sizeof plain, "%.*s%s", (int)strcspn(effects[e].line, ":"), effects[e].line,
                 strstr(effects[e].line, "layer=0") ? ":layer=0" : "");
        cr_assert_eq(layer_of(plain, &old).code, STATUS_OK);
        const struct status status = layer_of(effects[e].line, &new);
        cr_expect_eq(status.code, STATUS_OK, "%s: %s", effects[e].line, status.message);
        differences(&old, &new, text, sizeof text);
        cr_expect_str_eq(text, effects[e].changes, "%s: %s", effects[e].line, text);
    }
    for (int k = 0; case_keys[k].name; k++) {
        bool shown = case_keys[k].override == NULL;
        for (int e = 0; e < N_EFFECTS && !shown; e++) shown = !strcmp(effects[e].key, case_keys[k].name);
        cr_expect(shown, "%s is not among the effects", case_keys[k].name);
    }
}

Test(case_spec, what_hangs_on_the_head_dim_follows_it) {
    struct layer_spec s;
    cr_assert_eq(layer_of("param2-17b/attention:dim=10", &s).code, STATUS_OK);
    cr_expect(s.rot_dim == 10 && s.attn_scale == 1 / sqrt(10.0));
    cr_assert_eq(layer_of("param2-17b/attention:dim=11", &s).code, STATUS_OK);
    cr_expect_eq(s.rot_dim, 10, "an even number rotates");
    cr_assert_eq(layer_of("param2-17b/attention:dim=2,rot=0", &s).code, STATUS_OK);
    cr_expect_eq(s.rot_dim, 0);
    const int dim = CASE_KEY(dim);
    struct layer_spec glm = {.head_dim = 128, .rot_dim = 64, .attn_scale = 0.25}, none = {.head_dim = 128};
    case_keys[dim].override(&glm, 12);
    cr_expect(glm.rot_dim == 6 && glm.head_dim == 12, "half of the head rotates, as before");
    cr_expect_eq(glm.attn_scale, 0.25, "a scale of the model's own stays");
    glm.head_dim = 128, glm.rot_dim = 16;
    case_keys[dim].override(&glm, 8);
    cr_expect_eq(glm.rot_dim, 2, "what rotated goes on rotating");
    case_keys[dim].override(&none, 16);
    cr_expect_eq(none.rot_dim, 0);
}

/* The text in front of the '|' is a line; the refusal begins with the first piece and has the
 * second. */
Test(case_spec, layers_that_cannot_be_are_refused_with_what_could) {
    static const char *const refused[][3] = {
        {"tiny/attention:heads=6", "heads=6: 4 kv heads do not divide 6 heads", "use kv 1, 2, 3 or 6"},
        {"tiny/attention:kv=3", "kv=3: 3 kv heads", "use kv 1, 2, 4 or 8"},
        {"tiny/attention:heads=6,kv=4", "kv=4: ", "use kv 1, 2, 3 or 6"},
        {"tiny/attention:rot=7", "rot=7: 7 of 16 head dims", "an even rot from 0 to 16"},
        {"tiny/attention:rot=18", "rot=18: ", "0 to 16"},
        {"tiny/attention:dim=1", "dim=1: 2 of 1 head dims", "rot from 0 to 1"},
        {"tiny/attention:heads=16777216,kv=1", "heads=16777216: the fused qkv row", "at most 16777216"},
        {"tiny/ffn:top=17", "top=17: 17 experts per token of only 16", "use top 1 to 16"},
        {"tiny/ffn:experts=3", "experts=3: 4 experts per token of only 3", "use top 1 to 3"},
        {"tiny/ffn:groups=3", "groups=3: 16 experts do not make 3 groups", "use groups 1, 2, 4 or 8"},
        {"tiny/ffn:groups=16", "groups=16: ", "use groups 1, 2, 4 or 8"},
        {"tiny/ffn:topk_groups=2", "topk_groups=2: 2 groups per token of only 1", "topk_groups 1 to 1"},
        {"tiny/ffn:groups=8", "groups=8: 1 of 8 groups hold 2 experts",
         "use topk_groups 2 to 8, or top 1 to 2"},
        {"tiny/ffn:layer=0,shared=0", "shared=0: an ffn without experts has a width", "use 1 or more"},
        {"tiny/ffn:hidden=16777216,width=16777216", "hidden=16777216: a tensor of", "at most 2^40"},
        {"tiny/ffn:layer=0,experts=4", "experts=4: layer 0 of tiny has no routed experts", "leave it out"},
        {"llama-3.1-8b/ffn:score=sigmoid", "score=sigmoid: layer 0 of llama-3.1-8b has no", "leave it out"},
        {"tiny/ffn:heads=4", "heads=4: is a key of part attention, the case checks ffn", "leave it out"},
        {"tiny/attention:shared=4", "shared=4: is a key of part ffn", "the case checks attention"},
        {"tiny/attention:heads=4,tp=8", "tp=8: tiny has 4 heads and 4 kv heads", "use 1, 2 or 4"},
        {"tiny/ffn:width=6,experts=6,shared=6,tp=6,ep=4", "ep=4: tiny has 6 experts of width 6",
         "use 1, 2, 3 or 6"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct layer_spec spec;
        const struct status status = layer_of(refused[i][0], &spec);
        cr_expect(!strncmp(status.message, refused[i][1], strlen(refused[i][1])) &&
                      strstr(status.message, refused[i][2]),
                  "%s: '%s'", refused[i][0], status.message);
    }
}

/* The preset that belongs to the layer by hand: Param2's layer in small. */
Test(case_spec, a_twin_of_param2_is_the_preset_tiny) {
    struct layer_spec tiny, twin;
    char text[200];
    cr_assert_eq(layer_of("tiny/attention:layer=1", &tiny).code, STATUS_OK);
    const struct status attention =
        layer_of("param2-17b/attention:layer=1,hidden=64,heads=8,kv=4,dim=16", &twin);
    cr_assert_eq(attention.code, STATUS_OK, "%s", attention.message);
    differences(&tiny, &twin, text, sizeof text);
    cr_expect_str_eq(text, "shared_width=4096 n_experts=64 top_k=6 expert_width=2048", "%s", text);
    const struct status ffn =
        layer_of("param2-17b/ffn:layer=1,hidden=64,experts=16,top=4,width=32,shared=64", &twin);
    cr_assert_eq(ffn.code, STATUS_OK, "%s", ffn.message);
    differences(&tiny, &twin, text, sizeof text);
    cr_expect_str_eq(text, "n_heads=32 n_kv_heads=8 head_dim=64 attn_scale=0.125 rot_dim=64", "%s", text);
}

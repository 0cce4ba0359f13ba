/* case - everything that is needed to run one check again. Prints as one line,
 * MODEL/PART:key=value,..., with every key that is not at its default, and parses back to the same
 * case. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CASE_H
#define HARNESS_CASE_H

#include <stddef.h>

#include "fixtures/model.h"
#include "fixtures/fill.h"
#include "kernels/kernels.h"
#include "layer/layer.h"
#include "layer/status.h"

enum phase { PHASE_PREFILL, PHASE_CHUNKED, PHASE_DECODE, PHASE_COUNT };
/* How the lengths of a batch's sequences differ (batch.h): a little | not at all | as much as can be */
enum lengths { LENGTHS_RAGGED, LENGTHS_EQUAL, LENGTHS_SPREAD, LENGTHS_COUNT };
/* q, k, v: views of the fused qkv | copies */
enum layout { LAYOUT_PACKED, LAYOUT_CONTIG, LAYOUT_COUNT };
const char *phase_name(enum phase p);
const char *layout_name(enum layout l);

struct check_case {
    char model[PATH_BYTES]; /* a preset or a path */
    enum part part;
    int64_t layer; /* -1: the first layer (default); otherwise explicit */
    enum phase phase;
    int64_t tokens; /* prefill, chunked: new tokens per sequence; decode: sequences */
    int64_t cached; /* keys cached before; prefill: 0 */
    int64_t seqs;   /* prefill, chunked: sequences */
    enum lengths lengths;
    int64_t tp, ep;
    enum dtype dtype;
    enum layout layout;
    enum fill_kind fill;
    enum device_kind device;
    uint64_t seed;
    const struct kernel *kernel[S_COUNT]; /* NULL: the registry picks */

    /* The layer's own, instead of what the model says; -1: the model's. */
    int64_t hidden;
    int64_t heads, kv, dim, rot;
    int bias, qk_norm;
    int64_t experts, top, width, shared, groups, topk_groups;
    int group_fill, score, select_bias, renorm;
};

/* ---- keys ---- */

/* Lists multiply from the outermost key inwards; cases that share a trunk stand side by side. */
enum case_nest { NEST_OUTERMOST = -1, NEST_AS_PRINTED = 0, NEST_EP, NEST_TP };

/* Which cases a key may stand in; SCOPE_EXPERTS: an ffn with routed experts. */
enum case_scope { SCOPE_ALL, SCOPE_ATTENTION, SCOPE_FFN, SCOPE_EXPERTS };

/* A row serves printing, parsing, errors, the option of that name, --help and the order in which
 * lists multiply: a new key is one row in case_keys.c and its field in struct check_case. */
struct case_key {
    const char *name;
    size_t offset; /* of the field: an int64_t (seed: uint64_t), an enum where `value` is set */
    enum case_nest nest;
    uint64_t min, max;
    int64_t absent;                   /* what the field holds when nobody gives the key */
    const char *(*value)(int number); /* names; NULL: a number that is no legal value of the key */
    int n_values;
    const char *help;      /* NULL: the name says it */
    const char *otherwise; /* what happens without it; NULL: `absent` as it prints */
    enum case_scope scope;
    /* Of a key that says what the layer is: puts its value in the place of the model's. */
    void (*override)(struct layer_spec *spec, int64_t value);
};
extern const struct case_key case_keys[]; /* in the order in which they are printed; ended by {0} */
enum { MAX_CASE_KEYS = 48 };

int case_key_by_name(const char *name); /* index into case_keys; -1: no such key */
int case_key_at(size_t offset);         /* of a field that has a row */
#define CASE_KEY(field) case_key_at(offsetof(struct check_case, field))
/* An enum as its number, -1 as UINT64_MAX. */
uint64_t case_key_get(int key, const struct check_case *c);
bool case_key_is_set(int key, const struct check_case *c); /* not at its default */
void case_key_reset(int key, struct check_case *c);        /* to its default */
/* Do the two differ in their rank counts only? */
bool case_shares_trunk(const struct check_case *a, const struct check_case *b);
/* ... in phase, tokens, sequences, their lengths and cached keys only? */
bool case_same_but_sequences(const struct check_case *a, const struct check_case *b);
bool case_key_in_part(int key, enum part part);
/* "decode", "129" */
void case_key_text(int key, const struct check_case *c, char *text, size_t size);
/* "fp32, bf16 or fp16", "an integer from 1 to 128" */
void case_key_values(int key, char *text, size_t size);
void case_key_help(int key, char *text, size_t size);
/* Set one key from text (`name` without dashes, or kernel.STAGE; one value). Errors begin with
 * `label` and the value: "--tp 0: use ...", "tp=0: use ...". */
struct status case_set(struct check_case *c, const char *label, const char *key, const char *value);

/* What a case line gave, as opposed to options and defaults. */
struct case_given {
    bool part, key[MAX_CASE_KEYS], kernel[S_COUNT];
};
/* How an error begins that blames a key: "tp=" where the case line gave it, else "--tp ". */
struct case_label {
    char text[48];
};
struct case_label case_label(const struct case_given *given, int key);
struct case_label case_kernel_label(const struct case_given *given, int stage);

/* ---- lines ---- */

/* Bytes of the longest case line, its final zero included; case_check holds cases to it. */
enum { CASE_LINE = PATH_BYTES + 1024 };

/* prefill, 33 tokens, tp 1, packed, random, host, bf16, seed 1 */
struct check_case case_defaults(void);
/* Defaults that hang on another key (cached: 0 in prefill, 64 in chunked, 129 in decode) are -1
 * until this. */
void case_finish(struct check_case *c);
/* Always prints part and tp: on the command line, a text without them asks for both parts and every
 * legal tp. In chunked and decode it prints cached too. */
void case_print(const struct check_case *c, char *line, size_t size);
size_t case_line_length(const struct check_case *c);
/* "MODEL", "MODEL/PART" or "MODEL/PART:key=value,...". *has_part: the text named a part. Errors
 * name the key and list the valid ones. A key may stand once.
 * MODEL may be a path with any of ':', '=' and ','. The line is cut at its last '/' if attention or
 * ffn follows it, and then ':' or the end: no key and no value has a '/', so that what case_print
 * writes is read back whatever the path is. A text without a part is all MODEL if it ends in .json;
 * else keys follow its last ':', if that stands behind the last '/' and before a '='. A path that
 * these rules would cut is named together with a part. */
struct status case_parse(const char *line, struct check_case *c, bool *has_part);
/* The same, unfinished (cached stays -1 where not given), and what the text gave. */
struct status case_read(const char *line, struct check_case *c, struct case_given *given);
/* The whole text is the model: a path that no rule may cut. */
struct status case_set_model(struct check_case *c, const char *text, size_t length);

/* ---- case and model ---- */

/* The layer meant: the explicit one, or 0 for attention and the first MoE layer (0 without any) for
 * ffn. */
int64_t case_layer(const struct check_case *c, const struct model *model);

/* That layer, with the sizes and switches that the case has of its own. */
struct layer_spec case_spec(const struct check_case *c, const struct model *model);
/* Its weights are those of the model's folder: unless they are no weights of its layer, which has sizes or
 * switches of its own, or the fill makes the inputs of every stage. */
bool case_has_weights(const struct check_case *c);
/* The case's own sizes and switches put in the place of the layer's. */
void case_override(struct layer_spec *spec, const struct check_case *c);
int case_spec_key(const struct check_case *c); /* the first key that overrides; -1: none */
/* Do the sizes fit each other? */
struct status case_spec_check(const struct check_case *c, const struct layer_spec *spec,
                              const struct case_given *given);

/* Is the case possible for this model?  Head counts, experts, sizes; the refusal lists the legal
 * values and calls a key as it was given (case_label). NULL: by no line. */
struct status case_check(const struct check_case *c, const struct model *model,
                         const struct case_given *given);

#endif

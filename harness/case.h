/* case - everything that is needed to run one check again. Prints as one line, MODEL/PART:key=value,..., with every
 * key that is not at its default, and parses back to the same case. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CASE_H
#define HARNESS_CASE_H

#include "fixtures/model.h"
#include "fixtures/fill.h"
#include "kernels/kernels.h"
#include "layer/layer.h"
#include "layer/status.h"

enum phase { PHASE_PREFILL, PHASE_CHUNKED, PHASE_DECODE, PHASE_COUNT };
enum layout { LAYOUT_PACKED, LAYOUT_CONTIG, LAYOUT_COUNT }; /* q, k, v: views of the fused qkv | copies */
const char *phase_name(enum phase p);
const char *layout_name(enum layout l);
const char *part_name(enum part p);

struct check_case {
    char model[256];
    enum part part;
    int64_t layer; /* -1: the first layer (default); otherwise explicit */
    enum phase phase;
    int64_t tokens; /* prefill, chunked: new tokens per sequence; decode: sequences */
    int64_t cached; /* keys cached before; prefill: 0 */
    int64_t seqs;   /* prefill, chunked: sequences */
    int64_t tp, ep;
    enum dtype dtype;
    enum layout layout;
    enum fill_kind fill;
    enum device_kind device;
    uint64_t seed;
    const struct kernel *kernel[S_COUNT]; /* NULL: the registry picks */
};

/* The keys of a case line, in the order in which they are printed; kernel.STAGE stands before the seed. */
enum case_key {
    KEY_TP,
    KEY_EP,
    KEY_PHASE,
    KEY_TOKENS,
    KEY_CACHED,
    KEY_SEQS,
    KEY_LAYER,
    KEY_DTYPE,
    KEY_LAYOUT,
    KEY_FILL,
    KEY_DEVICE,
    KEY_SEED,
    KEY_COUNT
};
const char *case_key_name(enum case_key key);
void case_key_values(enum case_key key, char *text,
                     size_t size); /* "bf16 or fp32", "an integer from 1 to 128" */
/* What a text said itself, as opposed to defaults. */
struct case_given {
    bool part, key[KEY_COUNT], kernel[S_COUNT];
};
enum {
    CASE_LINE = 512
}; /* bytes of the longest case line, its final zero included; case_check holds cases to it */

struct check_case case_defaults(void); /* prefill, 33 tokens, tp 1, packed, random, host, bf16, seed 1 */
/* Defaults that hang on another key (cached: 0 in prefill, 64 in chunked, 129 in decode) are -1 until this. */
void case_finish(struct check_case *c);
/* Always prints part and tp: on the command line, a text without them asks for both parts and every legal tp. In
 * chunked and decode it prints cached too. */
void case_print(const struct check_case *c, char *line, size_t size);
size_t case_line_length(const struct check_case *c);
/* "MODEL", "MODEL/PART" or "MODEL/PART:key=value,...". *has_part: the text named a part. Errors name the key and list
 * the valid ones. A key may stand once. */
struct status case_parse(const char *line, struct check_case *c, bool *has_part);
/* The same, unfinished (cached stays -1 where not given), and what the text gave. */
struct status case_read(const char *line, struct check_case *c, struct case_given *given);
/* Set one key from text, as on the command line (`name` without the dashes, one value). Errors name `label`. */
struct status case_set(struct check_case *c, const char *label, const char *key, const char *value);

/* The layer meant: the explicit one, or 0 for attention and the first MoE layer (0 without any) for ffn. */
int64_t case_layer(const struct check_case *c, const struct model *model);

/* Is the case possible for this model?  Head counts, experts, sizes; the refusal lists the legal values. */
struct status case_check(const struct check_case *c, const struct model *model);

#endif

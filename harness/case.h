/* case - everything that is needed to run one check again. Prints as one line, MODEL/PART:key=value,..., with every
 * key that is not at its default, and parses back to the same case. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CASE_H
#define HARNESS_CASE_H

#include "fixtures/config.h"
#include "fixtures/fill.h"
#include "kernels/kernels.h"
#include "reference/layer.h"
#include "reference/status.h"

enum phase { PHASE_PREFILL, PHASE_CHUNKED, PHASE_DECODE, PHASE_COUNT };
enum layout { LAYOUT_PACKED, LAYOUT_CONTIG, LAYOUT_COUNT }; /* q, k, v: views of the fused qkv | copies */
const char *phase_name(enum phase p);
const char *layout_name(enum layout l);
const char *part_name(enum part p);

struct check_case {
    char model[256];
    enum part part;
    int64_t layer;          /* -1: the first layer (default); otherwise explicit */
    enum phase phase;
    int64_t tokens;         /* prefill, chunked: new tokens per sequence; decode: sequences */
    int64_t cached;         /* keys cached before; prefill: 0 */
    int64_t seqs;           /* prefill, chunked: sequences */
    int64_t tp, ep;
    enum dtype dtype;
    enum layout layout;
    enum fill_kind fill;
    enum device_kind device;
    uint64_t seed;
    const struct kernel *kernel[S_COUNT]; /* NULL: the registry picks */
};

struct check_case case_defaults(void); /* prefill, 33 tokens, tp 1, packed, random, host, bf16, seed 1 */
/* Defaults that hang on another key (cached: 0 in prefill, 64 in chunked, 129 in decode) are -1 until this. */
void case_finish(struct check_case *c);
void case_print(const struct check_case *c, char *line, size_t size);
/* "MODEL", "MODEL/PART" or "MODEL/PART:key=value,...". *has_part: the text named a part. Errors name the key and list
 * the valid ones. A key may stand once. */
struct status case_parse(const char *line, struct check_case *c, bool *has_part);
/* Set one key from text, as on the command line (`name` without the dashes, one value). Errors name `label`. */
struct status case_set(struct check_case *c, const char *label, const char *key, const char *value);

/* Is the case possible for this model?  Head counts, experts, sizes; the refusal lists the legal values. */
struct status case_check(const struct check_case *c, const struct model *model);

#endif

/* flashinfer_call - one logged call as a call of ours, between the functions that are known
 * (flashinfer_attention.c, flashinfer_rows.c) and who judges it (flashinfer.c). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_FLASHINFER_CALL_H
#define HARNESS_FLASHINFER_CALL_H

#include "fixtures/call_log.h"
#include "harness/batch.h"
#include "layer/contract.h"

enum { FLASH_MAX_OWNED = 16, FLASH_MAX_CONTRACTS = 2 };

struct flash_call {
    struct call_log *log; /* in which it is number `index` */
    int index;
    struct logged_call *logged; /* open */
    /* made of it */
    struct call call;
    struct contract contract[FLASH_MAX_CONTRACTS]; /* several: either may have run, and nothing tells */
    int n_contracts;
    int stage;         /* whose step it is */
    enum tensor_id id; /* and what it stores: places follow its axes */
    struct layer_spec spec;
    struct batch batch; /* of attention; its arrays are among the owned */
    enum dtype dtype;   /* of the operands */
    void *owned[FLASH_MAX_OWNED];
    int n_owned;
    char reason[240]; /* why it is not judged; else empty */
};

/* An argument that may be passed. `only`: what does not change the result, "None|-1"; NULL:
 * read, or harmless whatever it is. What is in no rule is not judged. */
struct flash_rule {
    const char *name, *only;
};
/* All arguments of a logged call, passed or not, follow the rules, ended by {0}. */
bool flash_follows(struct flash_call *f, const struct logged_call *logged, const struct flash_rule *rules);

/* False, for `return flash_refuse(...)`. */
bool flash_refuse(struct flash_call *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *flash_own(struct flash_call *f, size_t count, size_t size); /* zeroed; freed with f */
/* A tensor of so many dimensions; its numbers, dense and owned. NULL: refused. */
const struct named_tensor *flash_tensor(struct flash_call *f, const struct logged_call *logged,
                                        const char *name, int n_dims);
double *flash_numbers(struct flash_call *f, const struct logged_call *logged, const struct named_tensor *t);
/* fp16, bf16 or fp32 */
bool flash_dtype(struct flash_call *f, const struct named_tensor *t, enum dtype *out);
struct view flash_view(double *data, int64_t count, int64_t stride0, int64_t stride1, int64_t stride2);

/* Fill `call` to `dtype` from f->logged; false: refused. */
bool flash_norm(struct flash_call *f);
bool flash_silu(struct flash_call *f);
bool flash_decode(struct flash_call *f);
bool flash_prefill(struct flash_call *f);

#endif

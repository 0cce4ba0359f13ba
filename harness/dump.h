/* dump - `--dump FILE`: what the trunk read and stored (and with `--ranks` every rank), as a fixture file (docs/fixtures.md) that
 * another tool, or a later `run --fixture`, can open. Names are layers.I.PART.TENSOR. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_DUMP_H
#define HARNESS_DUMP_H

#include "harness/run.h"
#include "harness/trunk.h"

struct dump;

/* Before the work. Everything in one file: so every layer and part may be run at one size only. */
struct status dump_open(const struct run_request *request, struct dump **out);
/* After trunk_stage, before trunk_stage_done. */
struct status dump_stage(struct dump *dump, const struct trunk *trunk, int stage);
/* What a rank has just stored, where that was asked for; `dump` may be NULL. */
struct status dump_rank(struct dump *dump, const struct trunk *trunk, const struct placed *at,
                        const struct store *got);
/* A stage of this case was skipped, why says for what reason: there is no whole run to write. */
void dump_skip(struct dump *dump, const char *case_line, const char *why);
/* Both end the dump; NULL is accepted. Only a kept one is whole. */
struct status dump_keep(struct dump *dump);
void dump_discard(struct dump *dump);

#endif

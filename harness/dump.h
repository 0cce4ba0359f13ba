/* dump - `--dump FILE`: what the trunk read and stored, as a fixture file (docs/fixtures.md) that
 * another tool, or a later `run --fixture`, can open. Names are layers.I.PART.TENSOR. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_DUMP_H
#define HARNESS_DUMP_H

#include "harness/trunk.h"

/* Everything in one file: so every layer and part may be run at one size only. */
struct status dump_create(const char *path, const struct check_case *cases, int64_t n_cases,
                          struct fixture_writer **out);
/* After trunk_stage, before trunk_stage_done. */
struct status dump_stage(struct fixture_writer *writer, const struct trunk *trunk, int stage);

#endif

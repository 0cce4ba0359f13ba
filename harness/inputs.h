/* inputs - where a stage's weights and inputs come from: the fill, or a fixture file. Weights live
 * for one stage; of experts only the routed ones are made, the others stay poison. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_INPUTS_H
#define HARNESS_INPUTS_H

#include "harness/trunk.h"

struct status inputs_prepare(struct trunk *trunk, int stage);
/* The inputs of a stage out of the fill into crew->whole, as far as they are not there; every
 * expert's. */
void inputs_fill(struct crew *crew, const struct fill *fill, int stage);
/* Caches before the call: poison, but for the keys that are cached already. */
void inputs_caches(struct crew *crew, const struct fill *fill);

#endif

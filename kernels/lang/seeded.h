/* seeded - mistakes that stand in the kernels on purpose, for `make bugs` to catch
 * (tests/kernels/bugs):
 *   if (!SEEDED(BUG_X)) __syncthreads();         SEEDED(BUG_X) ? wrong : right
 * The constant 0 in every build but BUILD/bugs, where the environment names the one mistake
 * that a run makes: all of a kernel are compiled once. Both sides are compiled in every
 * build, and the one not taken leaves no code; no template argument may depend on it. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_SEEDED_H
#define KERNELS_LANG_SEEDED_H

#ifdef SEEDED_AT_RUN
#include <stdint.h>

#include <type_traits>

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv: a name as a number, so that a kernel's
 * loops compare numbers. */
constexpr uint64_t seeded_number(const char *name) {
    uint64_t number = 14695981039346656037u;
    for (; *name; name++) number = (number ^ (unsigned char)*name) * 1099511628211u;
    return number;
}

extern const uint64_t seeded_chosen; /* tests/kernels/bugs/chosen.cpp */

#define SEEDED(bug) ((int)(seeded_chosen == std::integral_constant<uint64_t, seeded_number(#bug)>::value))
#else
#define SEEDED(bug) 0
#endif

#endif

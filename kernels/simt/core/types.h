/* types - CUDA's vector types, dim3 and the storage types bf16 and f16 for kernels
 * compiled by g++. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_CORE_TYPES_H
#define KERNELS_SIMT_CORE_TYPES_H

#include <stdint.h>
#include <string.h>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct bf16 {
    uint16_t bits;
};

static inline float bf16_to_float(bf16 x) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Round to nearest even; NaN becomes 0x7fff, as the GPU's conversion has it. */
static inline bf16 bf16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

struct f16 {
    uint16_t bits;
};

static inline float f16_to_float(f16 x) {
    const uint32_t sign = (uint32_t)(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
    uint32_t bits;
    if (magnitude >= 0x7c00u) {
        bits = sign | 0x7f800000u | magnitude << 13; /* infinity, NaN */
    } else if (magnitude >= 0x0400u) {
        bits = sign | (magnitude + ((127u - 15u) << 10)) << 13;
    } else { /* subnormal: a multiple of 2^-24 */
        const float value = (float)magnitude * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Round to nearest even; NaN becomes 0x7fff, as the GPU's conversion has it. */
static inline f16 f16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {0x7fff};
    if (magnitude >= 0x477ff000u) return {(uint16_t)(sign | 0x7c00u)}; /* 65520 and above */
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 1/2 rounds to multiples of 2^-24 */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return {(uint16_t)(sign | (bits - 0x3f000000u))};
    }
    const uint32_t rounded = magnitude - ((127u - 15u) << 23) + 0xfffu + (magnitude >> 13 & 1);
    return {(uint16_t)(sign | rounded >> 13)};
}

#endif

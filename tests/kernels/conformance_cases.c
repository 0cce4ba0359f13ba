/* conformance_cases - the rows of the conformance table, and the inputs they share. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "tests/kernels/conformance.h"

/* ---- the rows ---- */

enum { NONE = 0, B128 = 1, B64 = 2 };                               /* enum shared_swizzle */
enum { BF16 = 0, F16 = 1, BF16_MAP = 0, F16_MAP = 1, F32_MAP = 2 }; /* enum tensor_map_element */

#define MATRIX_CASE(NAME, KIND, MATRICES, TRANSPOSED)                                                        \
    { .name = NAME, .kind = KIND, .words = 128, .matrices = MATRICES, .transposed = TRANSPOSED }
#define LOAD(NAME, WORDS, ...)                                                                               \
    {                                                                                                        \
        .name = "tma_load_2d " NAME, .kind = CONFORM_TMA_LOAD, .words = WORDS, .box = { __VA_ARGS__ }        \
    }
#define STORE(NAME, ...)                                                                                     \
    {                                                                                                        \
        .name = "tma_store_2d " NAME, .kind = CONFORM_TMA_STORE, .words = CONFORMANCE_MATRIX_WORDS, .box = { \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define WGMMA(NAME, TYPE, N, ...)                                                                            \
    {                                                                                                        \
        .name = "wgmma " NAME, .kind = CONFORM_WGMMA, .words = 64 * N, .type = TYPE, .product = {            \
            .columns = N,                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

/* A 64 x 64 tile, or `columns` x 64, as TMA leaves it: 128-byte rows of k, or panels of 64 mn. */
#define K_128(START)                                                                                         \
    { .start = START, .leading = 16, .stride = 1024, .swizzle = B128, .advance = 32 }
#define MN_128(START)                                                                                        \
    { .start = START, .leading = 8192, .stride = 1024, .swizzle = B128, .mn_major = 1, .advance = 2048 }
/* 64-byte rows: 32 k at a time side by side; panels of 32 mn. An advance passes two atoms of 8
 * k. */
#define MN_64(START)                                                                                         \
    { .start = START, .leading = 4096, .stride = 512, .swizzle = B64, .mn_major = 1, .advance = 1024 }
/* The second half of each 64-byte row of four tiles of 64 rows. */
#define K_64(START)                                                                                          \
    { .start = START + 32, .leading = 16, .stride = 512, .swizzle = B64, .advance = 4096 }
/* Atoms of 128 bytes, with gaps between them. */
#define K_NONE(START)                                                                                        \
    { .start = START, .leading = 128, .stride = 1152, .swizzle = NONE, .advance = 256 }
#define MN_NONE(START)                                                                                       \
    { .start = START, .leading = 128, .stride = 1152, .swizzle = NONE, .mn_major = 1, .advance = 256 }

enum { B_AT = 16384 };

const struct conformance conformance_cases[] = {
    {.name = "pack_bf16", .kind = CONFORM_PACK, .words = CONFORMANCE_FLOATS / 2, .type = BF16},
    {.name = "pack_f16", .kind = CONFORM_PACK, .words = CONFORMANCE_FLOATS / 2, .type = F16},
    MATRIX_CASE("ldmatrix_x4", CONFORM_LDMATRIX, 4, 0),
    MATRIX_CASE("ldmatrix_x4_trans", CONFORM_LDMATRIX, 4, 1),
    MATRIX_CASE("ldmatrix_x2", CONFORM_LDMATRIX, 2, 0),
    MATRIX_CASE("ldmatrix_x2_trans", CONFORM_LDMATRIX, 2, 1),
    MATRIX_CASE("stmatrix_x4", CONFORM_STMATRIX, 4, 0),
    MATRIX_CASE("stmatrix_x4_trans", CONFORM_STMATRIX, 4, 1),
    {.name = "mma_m16n8k16 bf16", .kind = CONFORM_MMA, .words = CONFORMANCE_TILES * 128, .type = BF16},
    {.name = "mma_m16n8k16 f16", .kind = CONFORM_MMA, .words = CONFORMANCE_TILES * 128, .type = F16},
    {.name = "cp_async_16", .kind = CONFORM_CP_ASYNC, .words = 3 * 64 * 4},
    {.name = "mbarrier", .kind = CONFORM_MBARRIER, .words = 8 * 32},
    /*                         words  element cols rows row_bytes box.. swizzle x y */
    LOAD("128B inside", 32 * 64, BF16_MAP, 100, 60, 208, 64, 64, B128, 32, -4),
    LOAD("128B bottom right", 32 * 64, F16_MAP, 100, 60, 208, 64, 64, B128, 64, 32),
    LOAD("128B ragged corner", 32 * 16, BF16_MAP, 97, 60, 208, 64, 16, B128, 56, 51),
    LOAD("128B outside", 32 * 8, BF16_MAP, 97, 60, 208, 64, 8, B128, 0, 60),
    LOAD("64B", 16 * 40, BF16_MAP, 97, 60, 208, 32, 40, B64, 72, 30),
    LOAD("64B left", 16 * 8, F16_MAP, 97, 60, 208, 32, 8, B64, -16, -3),
    LOAD("no swizzle", 48 * 20, BF16_MAP, 97, 60, 208, 96, 20, NONE, 8, 45),
    LOAD("no swizzle fp32", 24 * 20, F32_MAP, 45, 60, 192, 24, 20, NONE, 28, -7),
    LOAD("128B fp32", 32 * 20, F32_MAP, 45, 60, 192, 32, 20, B128, 28, 47),
    STORE("128B inside", BF16_MAP, 100, 60, 208, 64, 32, B128, 32, 4),
    STORE("128B bottom right", BF16_MAP, 97, 60, 208, 64, 64, B128, 56, 32),
    STORE("128B f16", F16_MAP, 104, 60, 208, 64, 16, B128, 8, 8),
    STORE("64B", BF16_MAP, 97, 60, 208, 32, 40, B64, 72, 30),
    STORE("no swizzle", BF16_MAP, 104, 60, 208, 96, 20, NONE, 8, 45),
    STORE("no swizzle fp32", F32_MAP, 45, 60, 192, 24, 20, NONE, 28, 45),
    {.name = "named_barrier", .kind = CONFORM_NAMED_BARRIER, .words = 4 * 2 * 32},
    {.name = "set_max_registers", .kind = CONFORM_REGISTERS, .words = 256},
    WGMMA("n64 bf16 K K 128B", BF16, 64, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n64 bf16 K MN 128B", BF16, 64, .accumulate = 1, .a = K_128(0), .b = MN_128(B_AT)),
    WGMMA("n64 bf16 MN K 128B", BF16, 64, .a = MN_128(0), .b = K_128(B_AT)),
    WGMMA("n64 bf16 MN MN 128B", BF16, 64, .accumulate = 1, .a = MN_128(0), .b = MN_128(B_AT)),
    WGMMA("n64 bf16 MN MN 64B", BF16, 64, .accumulate = 1, .a = MN_64(0), .b = MN_64(B_AT)),
    WGMMA("n64 bf16 K K 64B", BF16, 64, .accumulate = 1, .a = K_64(0), .b = K_64(B_AT)),
    WGMMA("n64 bf16 K K none", BF16, 64, .accumulate = 1, .a = K_NONE(0), .b = K_NONE(B_AT)),
    WGMMA("n64 bf16 MN MN none", BF16, 64, .a = MN_NONE(0), .b = MN_NONE(B_AT)),
    WGMMA("n64 bf16 registers K 128B", BF16, 64, .a_in_registers = 1, .accumulate = 1, .b = K_128(B_AT)),
    WGMMA("n64 bf16 registers MN 128B", BF16, 64, .a_in_registers = 1, .accumulate = 1, .b = MN_128(B_AT)),
    WGMMA("n64 f16 K K 128B", F16, 64, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n64 f16 MN MN 64B", F16, 64, .accumulate = 1, .a = MN_64(0), .b = MN_64(B_AT)),
    WGMMA("n64 f16 registers MN 128B", F16, 64, .a_in_registers = 1, .accumulate = 1, .b = MN_128(B_AT)),
    WGMMA("n32 bf16 K K 128B", BF16, 32, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n96 bf16 K K 128B", BF16, 96, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n128 bf16 K K 128B", BF16, 128, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n144 bf16 K K 128B", BF16, 144, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n160 bf16 K K 128B", BF16, 160, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n176 bf16 K K 128B", BF16, 176, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n192 bf16 K K 128B", BF16, 192, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n256 bf16 K K 128B", BF16, 256, .accumulate = 1, .a = K_128(0), .b = K_128(B_AT)),
    WGMMA("n32 bf16 registers MN 64B", BF16, 32, .a_in_registers = 1, .b = MN_64(B_AT)),
    WGMMA("n96 bf16 registers MN 64B", BF16, 96, .a_in_registers = 1, .accumulate = 1, .b = MN_64(B_AT)),
    WGMMA("n128 bf16 registers MN 128B", BF16, 128, .a_in_registers = 1, .accumulate = 1, .b = MN_128(B_AT)),
    WGMMA("n192 bf16 registers MN 128B", BF16, 192, .a_in_registers = 1, .accumulate = 1, .b = MN_128(B_AT)),
    WGMMA("n256 bf16 registers MN 128B", BF16, 256, .a_in_registers = 1, .accumulate = 1, .b = MN_128(B_AT)),
    {.name = NULL},
};

/* ---- the inputs ---- */

static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x9e3779b97f4a7c15u >> 16;
}

static uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* In (-1, 1), more often small. */
static float random_signed(uint64_t *state) {
    const float x = (float)(next_random(state) % 65536) / 65536.0f,
                y = (float)(next_random(state) % 65536) / 65536.0f;
    return x * y * (next_random(state) % 2 ? 1.0f : -1.0f);
}

/* How the products of one tile look; tile i has character i % CHARACTERS. */
enum { PLAIN, POSITIVE, WIDE, SUBNORMAL, EXTREME, SPECIAL, CHARACTERS };

static const struct {
    int fraction, bias, smallest, largest; /* bits of the fraction; exponent fields of finite numbers */
} formats[] = {{7, 127, 0, 254}, {10, 15, 0, 30}};

static uint16_t number(int type, int sign, int exponent_field, uint64_t fraction) {
    const int bits = formats[type].fraction;
    return (uint16_t)(sign << 15 | exponent_field << bits | (int)(fraction & ((1u << bits) - 1)));
}

static uint16_t random_number(uint64_t *state, int type, int character) {
    const uint64_t fraction = next_random(state);
    const int sign = character != POSITIVE && next_random(state) % 2, bias = formats[type].bias;
    const int largest = formats[type].largest, near = (int)(next_random(state) % 4);
    if (next_random(state) % 16 == 0) return number(type, sign, 0, 0); /* zeros of both signs */
    switch (character) {
    case WIDE: return number(type, sign, bias - 7 + (int)(next_random(state) % 15), fraction);
    case SUBNORMAL: return number(type, sign, near == 0 ? bias : near == 1 ? 1 : 0, fraction);
    case EXTREME:
        return number(type, sign, near == 0 ? bias : largest - (int)(next_random(state) % 3), fraction);
    case SPECIAL:
        if (next_random(state) % 64 == 0) return number(type, sign, largest + 1, 0);  /* infinity */
        if (next_random(state) % 512 == 0) return number(type, sign, largest + 1, 1); /* NaN */
        return number(type, sign, bias - near, fraction);
    default: return number(type, sign, bias - near, fraction);
    }
}

static float random_accumulator(uint64_t *state, int character) {
    const float x = random_signed(state);
    switch (character) {
    case POSITIVE: return fabsf(x) * 64.0f;
    case WIDE: return ldexpf(x, (int)(next_random(state) % 60) - 30);
    case SUBNORMAL: return ldexpf(x, (int)(next_random(state) % 20) - 140);
    case EXTREME: return ldexpf(x, 127 - (int)(next_random(state) % 3));
    case SPECIAL: return next_random(state) % 16 ? x : INFINITY;
    default: return next_random(state) % 8 ? x : 0.0f;
    }
}

static void fill_tiles(struct conformance_input *in, uint64_t *state) {
    for (int tile = 0; tile < CONFORMANCE_TILES; tile++) {
        const int character = tile % CHARACTERS;
        for (int type = 0; type < 2; type++)
            for (int k = 0; k < 16; k++) {
                for (int i = 0; i < 16; i++) in->a[type][tile][i][k] = random_number(state, type, character);
                for (int n = 0; n < 8; n++) in->b[type][tile][k][n] = random_number(state, type, character);
            }
        for (int i = 0; i < 16; i++)
            for (int n = 0; n < 8; n++) in->c[tile][i][n] = random_accumulator(state, character);
    }
}

/* Every 16-bit pattern's surroundings would be too many: ties, their neighbours, and the ends of
 * both formats. */
static void fill_floats(struct conformance_input *in, uint64_t *state) {
    static const float ends[] = {0.0f,       -0.0f,    INFINITY,  -INFINITY, NAN,
                                 65504.0f,   65519.0f, 65520.0f,  0x1p-24f,  0x1p-25f,
                                 0x1.8p-25f, 0x1p-14f, 0x1p-126f, 0x1p-149f, 0x1.fffffep127f};
    const int n_ends = sizeof ends / sizeof *ends;
    static const uint32_t tails[] = {0, 0x8000, 0x8001, 0x7fff, 0x1000, 0x1001, 0x0fff, 0x3000};
    for (int i = 0; i < CONFORMANCE_FLOATS; i++) {
        uint32_t bits = (uint32_t)next_random(state);
        if (i % 2) bits = (bits & 0x8fffffffu) | 0x30000000u; /* within f16's reach */
        bits = (bits & 0xffff0000u) | tails[i % 8];
        memcpy(&in->floats[i], &bits, sizeof bits);
        if (i < n_ends) in->floats[i] = ends[i];
        if (isnan(in->floats[i])) bits = float_bits(NAN), memcpy(&in->floats[i], &bits, sizeof bits);
    }
}

void conformance_fill(struct conformance_input *in) {
    uint64_t state = 88172645463325252u;
    memset(in, 0, sizeof *in);
    for (int i = 0; i < 2 * CONFORMANCE_MATRIX_WORDS; i++) in->raw[i] = (uint16_t)next_random(&state);
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < CONFORMANCE_IMAGE; i++)
            in->image[type][i] = random_number(&state, type, i % 64 < 48 ? PLAIN : WIDE);
    for (int i = 0; i < 64; i++)
        for (int n = 0; n < 256; n++) in->accumulators[i][n] = random_signed(&state);
    fill_tiles(in, &state);
    fill_floats(in, &state);
}

uint64_t conformance_hash(const uint32_t *words, size_t n) { /* FNV-1a */
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) hash = (hash ^ words[i]) * 1099511628211u;
    return hash;
}

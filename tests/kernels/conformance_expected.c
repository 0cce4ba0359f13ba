/* conformance_expected - what every conformance case must give, in plain C, from the text of the
 * PTX ISA and not from the emulation: fragment layouts, swizzles, fills, and tensor-core sums term
 * by term. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "tests/kernels/conformance.h"

typedef const struct conformance_input input_t;

static uint32_t two(uint16_t low, uint16_t high) { return low | (uint32_t)high << 16; }

/* Tensor cores know one NaN only. */
static uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return isnan(x) ? 0x7fffffff : bits;
}

/* ---- numbers ---- */

struct format {
    int fraction, bias, top; /* top: the exponent field of infinity and NaN */
};
static const struct format formats[] = {{7, 127, 255}, {10, 15, 31}};

static int field_of(int type, uint16_t x) { return x >> formats[type].fraction & formats[type].top; }

/* The exponent tensor cores align by: subnormals have that of the smallest normal number. */
static int exponent_of(int type, uint16_t x) {
    const int field = field_of(type, x);
    return (field ? field : 1) - formats[type].bias;
}

static double value_of(int type, uint16_t x) {
    const struct format f = formats[type];
    const int field = field_of(type, x), fraction = x & ((1 << f.fraction) - 1);
    double magnitude;
    if (field == f.top)
        magnitude = fraction ? (double)NAN : (double)INFINITY;
    else
        magnitude = ldexp(field ? (1 << f.fraction) + fraction : fraction, exponent_of(type, x) - f.fraction);
    return x & 0x8000 ? -magnitude : magnitude;
}

/* The nearest, to even in a tie; NaN is 0x7fff. */
static uint16_t rounded(int type, float x) {
    const struct format f = formats[type];
    const uint16_t sign = signbit(x) ? 0x8000 : 0, infinity = (uint16_t)(f.top << f.fraction);
    if (isnan(x)) return 0x7fff;
    uint16_t best = 0;
    double least = INFINITY;
    for (uint32_t magnitude = 0; magnitude <= infinity; magnitude++) {
        /* the number past the largest stands for infinity */
        const double value =
            magnitude == infinity ? ldexp(2, f.top - 1 - f.bias) : value_of(type, (uint16_t)magnitude);
        const double distance = fabs(fabs((double)x) - value);
        if (isinf(x) ? magnitude == infinity
                     : distance < least || (distance == least && magnitude % 2 == 0)) {
            best = (uint16_t)magnitude;
            least = distance;
        }
    }
    return best | sign;
}

/* ---- tensor cores ---- */

/* c + sum of a[k] b[k * step], k < 16, all cut off below 2^(largest exponent - 25), the sum to 24
 * bits. */
static float truncated_sum(float c, const uint16_t *a, const uint16_t *b, int step, int type) {
    double terms[17], plain = (double)c;
    int exponents[17], largest = -100000;
    for (int k = 0; k < 16; k++) {
        terms[k] = value_of(type, a[k]) * value_of(type, b[k * step]);
        exponents[k] = exponent_of(type, a[k]) + exponent_of(type, b[k * step]);
        plain += terms[k];
    }
    terms[16] = (double)c;
    exponents[16] = fabsf(c) < 0x1p-126f ? -126 : ilogbf(c);
    if (!isfinite(plain)) return (float)plain;
    for (int k = 0; k < 17; k++)
        if (terms[k] != 0 && exponents[k] > largest) largest = exponents[k];
    if (largest == -100000) return 0.0f;
    double sum = 0;
    for (int k = 0; k < 17; k++) sum += trunc(ldexp(terms[k], 25 - largest));
    if (sum == 0) return 0.0f;
    int lowest = ilogb(sum) - 23; /* of 24 bits */
    if (lowest + largest - 25 < -149) lowest = -149 - largest + 25;
    return (float)ldexp(trunc(ldexp(sum, -lowest)), lowest + largest - 25);
}

static float plain_sum(float c, const uint16_t *a, const uint16_t *b, int step, int type) {
    for (int k = 0; k < 16; k++) c += (float)value_of(type, a[k]) * (float)value_of(type, b[k * step]);
    return c;
}

static void expect_mma(const struct conformance *c, input_t *in, int truncating, uint32_t *out) {
    for (int tile = 0; tile < CONFORMANCE_TILES; tile++)
        for (int i = 0; i < 16; i++)
            for (int n = 0; n < 8; n++) {
                const uint16_t *a = in->a[c->type][tile][i], *b = &in->b[c->type][tile][0][n];
                const float start = in->c[tile][i][n];
                out[tile * 128 + i * 8 + n] = float_bits(truncating ? truncated_sum(start, a, b, 8, c->type)
                                                                    : plain_sum(start, a, b, 8, c->type));
            }
}

/* ---- ldmatrix, stmatrix: row i of the matrices lies in row 5 i % 32 ---- */

static void expect_ldmatrix(const struct conformance *c, input_t *in, uint32_t *out) {
    for (int lane = 0; lane < 32; lane++)
        for (int m = 0; m < 4; m++) {
            uint16_t pair[2] = {0, 0};
            for (int e = 0; e < 2 && m < c->matrices; e++) {
                const int row = c->transposed ? lane % 4 * 2 + e : lane / 4;
                const int column = c->transposed ? lane / 4 : lane % 4 * 2 + e;
                pair[e] = in->raw[(8 * m + row) * 5 % 32 * 8 + column];
            }
            out[lane * 4 + m] = two(pair[0], pair[1]);
        }
}

static void expect_stmatrix(const struct conformance *c, input_t *in, uint32_t *out) {
    uint16_t image[32][8];
    for (int lane = 0; lane < 32; lane++)
        for (int m = 0; m < 4; m++)
            for (int e = 0; e < 2; e++) {
                const int row = c->transposed ? lane % 4 * 2 + e : lane / 4;
                const int column = c->transposed ? lane / 4 : lane % 4 * 2 + e;
                image[(8 * m + row) * 5 % 32][column] = in->raw[(lane * 4 + m) * 2 + e];
            }
    memcpy(out, image, sizeof image);
}

/* ---- copies ---- */

static void expect_cp_async(input_t *in, uint32_t *out) {
    for (int group = 0; group < 3; group++)
        for (int t = 0; t < 64; t++) {
            unsigned char *to = (unsigned char *)out + (group * 64 + t) * 16;
            memset(to, 0, 16);
            memcpy(to, (const unsigned char *)in->raw + (group * 64 + t) * 7 % 256 * 16,
                   (size_t)((t + group) % 17));
        }
}

/* The swizzles as PTX ISA draws them: of the 16-byte chunks in line i of 128 bytes, 128B moves
 * chunk j to j ^ i % 8, and 64B, within each half of the line, to j ^ i % 4. */
static size_t swizzled(int swizzle, size_t offset) {
    const size_t line = offset / 128 % 8, chunk = offset / 16 % 8, rest = offset - chunk * 16;
    if (swizzle == 1) return rest + (chunk ^ line) * 16;
    if (swizzle == 2) return rest + (chunk ^ line % 4) * 16;
    return offset;
}

/* move(tile, matrix or NULL outside) for every 16 bytes of the box; `inside` of them are in the
 * matrix. That a store writes all 16 when some are inside was seen on an H200, as was that x must
 * be a multiple of 16 bytes. */
static void for_each_chunk(const struct conformance_box *b, unsigned char *tile, unsigned char *matrix,
                           void (*move)(unsigned char *tile, unsigned char *matrix, size_t inside)) {
    const int bytes = b->element == 2 ? 4 : 2, width = b->cols * bytes, box_width = b->box_cols * bytes;
    for (int i = 0; i < b->box_rows; i++)
        for (int j = 0; j < box_width; j += 16) {
            const int row = b->y + i, byte = b->x * bytes + j;
            const int inside = row >= 0 && row < b->rows && byte >= 0 && byte < width;
            move(tile + swizzled(b->swizzle, (size_t)(i * box_width + j)),
                 inside ? matrix + row * b->row_bytes + byte : NULL,
                 (size_t)(width - byte < 16 ? width - byte : 16));
        }
}

static void move_in(unsigned char *tile, unsigned char *matrix, size_t inside) {
    memset(tile, 0, 16);
    if (matrix) memcpy(tile, matrix, inside);
}
static void move_out(unsigned char *tile, unsigned char *matrix, size_t inside) {
    (void)inside;
    if (matrix) memcpy(matrix, tile, 16);
}

static void expect_tma(const struct conformance *c, input_t *in, uint32_t *out) {
    static uint16_t raw[2 * CONFORMANCE_MATRIX_WORDS];
    memcpy(raw, in->raw, sizeof raw);
    memset(out, 0xff, c->words * sizeof *out);
    if (c->kind == CONFORM_TMA_LOAD)
        for_each_chunk(&c->box, (unsigned char *)out, (unsigned char *)raw, move_in);
    else
        for_each_chunk(&c->box, (unsigned char *)raw, (unsigned char *)out, move_out);
}

/* ---- wgmma: element (mn, k) of an operand, PTX ISA "Strides" and its canonical layouts ---- */

static uint16_t element_at(const uint16_t *image, const struct conformance_operand *o, int step, int mn,
                           int k) {
    const int line = o->swizzle == 1 ? 64 : 32; /* elements of an atom's row, swizzled */
    int offset = o->start + step * o->advance;
    if (o->swizzle == 0 && !o->mn_major)
        offset += mn / 8 * o->stride + k / 8 * o->leading + mn % 8 * 16 + k % 8 * 2;
    else if (o->swizzle == 0)
        offset += mn / 8 * o->stride + k / 8 * o->leading + k % 8 * 16 + mn % 8 * 2;
    else if (!o->mn_major)
        offset += mn / 8 * o->stride + mn % 8 * line * 2 + k * 2;
    else
        offset += mn / line * o->leading + k / 8 * o->stride + k % 8 * line * 2 + mn % line * 2;
    return image[swizzled(o->swizzle, (size_t)offset) / 2];
}

static void expect_wgmma(const struct conformance *c, input_t *in, int truncating, uint32_t *out) {
    const struct conformance_product *p = &c->product;
    const uint16_t *image = in->image[c->type];
    for (int i = 0; i < 64; i++)
        for (int n = 0; n < p->columns; n++) {
            float d = p->accumulate ? in->accumulators[i][n] : 0.0f;
            for (int step = 0; step < 4; step++) {
                uint16_t a[16], b[16];
                for (int k = 0; k < 16; k++) {
                    a[k] = p->a_in_registers ? image[i * 64 + step * 16 + k]
                                             : element_at(image, &p->a, step, i, k);
                    b[k] = element_at(image, &p->b, step, n, k);
                }
                d = truncating ? truncated_sum(d, a, b, 1, c->type) : plain_sum(d, a, b, 1, c->type);
            }
            out[i * p->columns + n] = float_bits(d);
        }
}

/* ---- the rest ---- */

static void expect_pack(const struct conformance *c, input_t *in, uint32_t *out) {
    for (int i = 0; i < CONFORMANCE_FLOATS / 2; i++)
        out[i] = two(rounded(c->type, in->floats[2 * i]), rounded(c->type, in->floats[2 * i + 1]));
}

void conformance_expected(const struct conformance *c, input_t *in, int truncating, uint32_t *out) {
    switch (c->kind) {
    case CONFORM_PACK: expect_pack(c, in, out); break;
    case CONFORM_LDMATRIX: expect_ldmatrix(c, in, out); break;
    case CONFORM_STMATRIX: expect_stmatrix(c, in, out); break;
    case CONFORM_MMA: expect_mma(c, in, truncating, out); break;
    case CONFORM_CP_ASYNC: expect_cp_async(in, out); break;
    case CONFORM_MBARRIER:
        for (int i = 0; i < 8 * 32; i++) out[i] = in->raw[i / 32 * 32 + 31 - i % 32];
        break;
    case CONFORM_TMA_LOAD:
    case CONFORM_TMA_STORE: expect_tma(c, in, out); break;
    case CONFORM_NAMED_BARRIER:
        for (int i = 0; i < 4 * 2 * 32; i++) out[i] = in->raw[i / 64 * 128 + i / 32 % 2 * 64 + 31 - i % 32];
        break;
    case CONFORM_REGISTERS:
        for (int i = 0; i < 256; i++) out[i] = in->raw[i];
        break;
    default: expect_wgmma(c, in, truncating, out);
    }
}

/* checkpoint - a folder as Hugging Face has it, in small: config.json and tensors whose values tell their name
 * and place. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_CHECKPOINT_H
#define TESTS_CHECKPOINT_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Element i of a tensor: from -1/4 to 1/4 in steps of 1/512, which every dtype holds. */
static inline float checkpoint_value(const char *name, int64_t i) {
    unsigned sum = 0;
    for (; *name; name++) sum = 31 * sum + (unsigned char)*name;
    return (float)(int)(sum % 8 * 32 + (unsigned)(i + i / 32) * 7 % 32) / 512 - 0.25f;
}

/* "a.weight:4x8" -> name, dims; returns the count, and *end behind it. */
static inline int64_t checkpoint_entry(const char *text, char name[200], int *n_dims, int64_t dims[4],
                                       const char **end) {
    int used = 0;
    cr_assert_eq(sscanf(text, "%199[^:]:%n", name, &used), 1, "%s", text);
    const char *at = text + used;
    int64_t count = 1;
    for (*n_dims = 0;;) {
        char *after;
        count *= dims[(*n_dims)++] = strtoll(at, &after, 10);
        at = after;
        if (*at != 'x') break;
        at++;
    }
    *end = at;
    return count;
}

enum checkpoint_kind { CHECKPOINT_F32, CHECKPOINT_BF16 };

/* Tensors "NAME:4x8 NAME:8", every `step`-th from `first` on, as one safetensors file. */
static inline void checkpoint_write(const char *path, enum checkpoint_kind kind, const char *tensors,
                                    int first, int step) {
    static char header[1 << 16];
    static unsigned char data[1 << 18];
    size_t used = 0, bytes = 0;
    int i = 0;
    header[used++] = '{';
    for (const char *at = tensors; *at; i++) {
        char name[200];
        int n_dims;
        int64_t dims[4];
        while (*at == ' ') at++;
        const int64_t count = checkpoint_entry(at, name, &n_dims, dims, &at);
        while (*at == ' ') at++;
        if (i % step != first) continue;
        const size_t begin = bytes;
        for (int64_t k = 0; k < count; k++) {
            const float value = checkpoint_value(name, k);
            uint32_t word;
            memcpy(&word, &value, 4);
            const uint16_t half = (uint16_t)(word >> 16);
            memcpy(data + bytes, kind == CHECKPOINT_BF16 ? (const void *)&half : &word,
                   kind == CHECKPOINT_BF16 ? 2 : 4);
            bytes += kind == CHECKPOINT_BF16 ? 2 : 4;
            cr_assert_lt(bytes, sizeof data - 8);
        }
        used += (size_t)sprintf(header + used, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", used > 1 ? "," : "",
                                name, kind == CHECKPOINT_BF16 ? "BF16" : "F32");
        for (int d = 0; d < n_dims; d++)
            used += (size_t)sprintf(header + used, "%s%lld", d ? "," : "", (long long)dims[d]);
        used += (size_t)sprintf(header + used, "],\"data_offsets\":[%zu,%zu]}", begin, bytes);
    }
    header[used++] = '}';
    while (used % 8) header[used++] = ' ';
    const uint64_t length = used;
    FILE *const file = fopen(path, "wb");
    cr_assert(file && fwrite(&length, 1, 8, file) == 8 && fwrite(header, 1, used, file) == used &&
              fwrite(data, 1, bytes, file) == bytes && !fclose(file));
}

static inline void checkpoint_text(const char *path, const char *text) {
    FILE *const file = fopen(path, "w");
    cr_assert(file && fputs(text, file) >= 0 && !fclose(file));
}

/* FOLDER/config.json, and the tensors in one file or, with an index, dealt out to two. */
static inline void checkpoint_make(const char *folder_name, const char *config, enum checkpoint_kind kind,
                                   const char *tensors, bool sharded) {
    char path[300];
    static char index[1 << 16];
    size_t used = 0;
    mkdir(folder_name, 0700);
    snprintf(path, sizeof path, "%s/config.json", folder_name);
    checkpoint_text(path, config);
    snprintf(path, sizeof path, "%s/model.safetensors", folder_name);
    if (!sharded) {
        checkpoint_write(path, kind, tensors, 0, 1);
        return;
    }
    used += (size_t)sprintf(index, "{\"metadata\":{},\"weight_map\":{");
    int i = 0;
    for (const char *at = tensors; *at; i++) {
        char name[200];
        int n_dims;
        int64_t dims[4];
        while (*at == ' ') at++;
        checkpoint_entry(at, name, &n_dims, dims, &at);
        while (*at == ' ') at++;
        used += (size_t)sprintf(index + used, "%s\"%s\":\"part-%d.safetensors\"", i ? "," : "", name, i % 2);
    }
    sprintf(index + used, "}}");
    for (int part = 0; part < 2; part++) {
        snprintf(path, sizeof path, "%s/part-%d.safetensors", folder_name, part);
        checkpoint_write(path, kind, tensors, part, 2);
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder_name);
    checkpoint_text(path, index);
}

#endif

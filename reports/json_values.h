/* json_values - values of JSON reports, written and read. Numbers that JSON has not got are the strings "inf",
 * "-inf" and "nan". */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_JSON_VALUES_H
#define REPORTS_JSON_VALUES_H

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

/* ---- writing ---- */

static inline json_t *number(double v) {
    if (isnan(v)) return json_string("nan");
    if (isinf(v)) return json_string(v > 0 ? "inf" : "-inf");
    return json_real(v);
}

static inline json_t *integer(int64_t v) { return json_integer((json_int_t)v); }

/* A path may hold any bytes; those that are not UTF-8 become '?'. */
static inline json_t *string(const char *s) {
    json_t *value = json_string(s);
    if (value) return value;
    char *clean = strdup(s);
    if (!clean) return NULL;
    for (char *at = clean; *at;) {
        const int n = report_utf8_length(at);
        if (!n) *at = '?';
        at += n ? n : 1;
    }
    value = json_string(clean);
    free(clean);
    return value;
}

/* Takes the value over; a failed allocation leaves the key out and is noticed by the writer. */
static inline void set(json_t *object, const char *key, json_t *value, bool *failed) {
    if (json_object_set_new(object, key, value)) *failed = true;
}

/* ---- reading: a key that is absent leaves *out as it is ---- */

/* Of what a key holds; false: it holds something else. */
static inline bool read_number(const json_t *object, const char *key, double *out) {
    const json_t *const v = json_object_get(object, key);
    if (!v) return true;
    if (json_is_number(v)) return *out = json_number_value(v), true;
    const char *const text = json_string_value(v);
    if (!text) return false;
    if (!strcmp(text, "nan")) return *out = NAN, true;
    if (!strcmp(text, "inf")) return *out = INFINITY, true;
    if (!strcmp(text, "-inf")) return *out = -INFINITY, true;
    return false;
}

static inline bool read_integer(const json_t *object, const char *key, int64_t *out) {
    const json_t *const v = json_object_get(object, key);
    if (v && !json_is_integer(v)) return false;
    if (v) *out = json_integer_value(v);
    return true;
}

static inline bool read_string(const json_t *object, const char *key, char *out, size_t size) {
    const json_t *const v = json_object_get(object, key);
    if (!v) return true;
    const char *const text = json_string_value(v);
    if (!text || strlen(text) >= size) return false;
    strcpy(out, text);
    return true;
}

#endif

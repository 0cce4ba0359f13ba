/* Which axes does a placement string name? A small parser by hand: the grammar is in axes.h. */
/* SPDX-License-Identifier: MIT */
#include "layer/axes.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *letter, *label;
} axis_names[AXIS_COUNT] = {
    [AXIS_NUMBER] = {"", "half"},      [AXIS_T] = {"t", "token"},         [AXIS_M] = {"m", "channel"},
    [AXIS_H] = {"h", "head"},          [AXIS_G] = {"g", "kv head"},       [AXIS_D] = {"d", "dim"},
    [AXIS_E] = {"e", "expert"},        [AXIS_K] = {"k", "choice"},        [AXIS_F] = {"f", "expert column"},
    [AXIS_S] = {"s", "shared column"}, [AXIS_N] = {"n", "row"},           [AXIS_P] = {"p", "position"},
    [AXIS_R] = {"r", "rotary dim"},    [AXIS_B] = {"b", "sequence"},      [AXIS_PAGE] = {"page", "page"},
    [AXIS_SLOT] = {"slot", "slot"},    [AXIS_ENTRY] = {"entry", "entry"},
};

static const char *const group_names[] = {
    [GROUP_NONE] = "", [GROUP_TP] = "tp", [GROUP_EP] = "ep", [GROUP_ETP] = "etp"};

const char *axis_label(enum axis_name a) { return axis_names[a].label; }

#define MAX_NUMBER (INT64_C(1) << 40) /* no tensor has more elements */

struct cursor {
    const char *at;
};

static size_t word_length(const char *s, int (*is)(int)) {
    size_t n = 0;
    while (is((unsigned char)s[n])) n++;
    return n;
}

static const char *parse_group(struct cursor *c, enum rank_group *out) {
    const size_t n = word_length(c->at, isalpha);
    for (int g = GROUP_TP; g <= GROUP_ETP; g++)
        if (strlen(group_names[g]) == n && !strncmp(group_names[g], c->at, n)) {
            *out = (enum rank_group)g;
            c->at += n;
            return NULL;
        }
    return "unknown rank group";
}

static const char *parse_number(struct cursor *c, int64_t *out) {
    if (!isdigit((unsigned char)*c->at)) return "no number";
    for (*out = 0; isdigit((unsigned char)*c->at); c->at++) {
        *out = *out * 10 + (*c->at - '0');
        if (*out > MAX_NUMBER) return "a number above 2^40";
    }
    return NULL;
}

static const char *parse_block(struct cursor *c, struct axis_block *out) {
    *out = (struct axis_block){.name = AXIS_NUMBER};
    if (isdigit((unsigned char)*c->at)) return parse_number(c, &out->number);
    const size_t n = word_length(c->at, isalpha);
    for (int a = AXIS_NUMBER + 1; a < AXIS_COUNT; a++)
        if (n && strlen(axis_names[a].letter) == n && !strncmp(axis_names[a].letter, c->at, n)) {
            out->name = (enum axis_name)a;
            c->at += n;
            if (*c->at != '/') return NULL;
            c->at++;
            return parse_group(c, &out->group);
        }
    return "unknown axis";
}

static const char *parse_blocks(struct cursor *c, struct axis *out) {
    const char *problem;
    if (*c->at != '(') {
        out->n_blocks = 1;
        return parse_block(c, &out->block[0]);
    }
    c->at++;
    for (out->n_blocks = 0; *c->at != ')'; out->n_blocks++) {
        if (out->n_blocks == 3) return "more than three blocks in one axis";
        if ((problem = parse_block(c, &out->block[out->n_blocks]))) return problem;
        while (*c->at == ' ') c->at++;
        if (!*c->at) return "missing )";
    }
    c->at++;
    return out->n_blocks ? NULL : "empty parentheses";
}

static const char *parse_axis(struct cursor *c, struct axis *out) {
    const char *const problem = parse_blocks(c, out);
    if (problem || *c->at != '+') return problem;
    c->at++;
    return parse_number(c, &out->extra);
}

const char *axes_parse(const char *text, struct axes *out) {
    struct cursor c = {text};
    const char *problem;
    *out = (struct axes){0};
    for (;;) {
        while (*c.at == ' ') c.at++;
        if (!*c.at) return out->n ? NULL : "no axis";
        if (out->partial) return "+group must come last";
        if (*c.at == '+') {
            c.at++;
            problem = parse_group(&c, &out->partial);
        } else {
            if (out->n == MAX_AXES) return "too many axes";
            problem = parse_axis(&c, &out->axis[out->n++]);
        }
        if (problem) return problem;
        if (*c.at && *c.at != ' ') return "unexpected character";
    }
}

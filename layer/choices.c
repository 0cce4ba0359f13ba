/* Which of the valid values did the user mean?  Plain edit distance; the lists are short. */
/* SPDX-License-Identifier: MIT */
#include "layer/choices.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void choices_add(struct choices *choices, const char *format, ...) {
    if (choices->n == MAX_CHOICES) return;
    va_list args;
    va_start(args, format);
    vsnprintf(choices->name[choices->n++], CHOICE_SIZE, format, args);
    va_end(args);
}

static int min3(int a, int b, int c) {
    const int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein distance of the first CHOICE_SIZE characters, one row at a time. */
static int edit_distance(const char *a, const char *b) {
    const int n_a = (int)strnlen(a, CHOICE_SIZE), n_b = (int)strnlen(b, CHOICE_SIZE);
    int row[CHOICE_SIZE + 1];
    for (int j = 0; j <= n_b; j++) row[j] = j;
    for (int i = 1; i <= n_a; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            const int above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n_b];
}

/* Insertion sort by distance; equal distances keep the order of the table. */
static void sort_by_distance(const struct choices *choices, const char *typed, int *order) {
    int distance[MAX_CHOICES];
    for (int i = 0; i < choices->n; i++) {
        const int d = typed ? edit_distance(typed, choices->name[i]) : 0;
        int at = i;
        for (; at > 0 && distance[at - 1] > d; at--) {
            distance[at] = distance[at - 1];
            order[at] = order[at - 1];
        }
        distance[at] = d;
        order[at] = i;
    }
}

void choices_text(const struct choices *choices, const char *typed, char *text, size_t size) {
    enum { ELLIPSIS = 8 }; /* room kept for ", ..." */
    int order[MAX_CHOICES];
    sort_by_distance(choices, typed, order);
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < choices->n; i++) {
        const char *name = choices->name[order[i]];
        const bool last = i == choices->n - 1;
        if (used + strlen(name) + ELLIPSIS + (last ? 0 : ELLIPSIS) > size) {
            snprintf(text + used, size - used, ", ...");
            return;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s", i == 0 ? "" : last ? " or " : ", ", name);
    }
}

/* choices - the valid values of a name as the end of an error line: "a, b or c", the nearest to
 * what was typed first. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_CHOICES_H
#define LAYER_CHOICES_H

#include <stddef.h>

enum { MAX_CHOICES = 160, CHOICE_SIZE = 48 };
struct choices {
    int n;
    char name[MAX_CHOICES][CHOICE_SIZE];
};
void choices_add(struct choices *choices, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Nearest to `typed` first; NULL keeps the order. What does not fit in `size` becomes "...". */
void choices_text(const struct choices *choices, const char *typed, char *text, size_t size);

#endif

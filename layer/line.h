/* line - texts that may hold anything (paths, arguments, keys of a file) as one line that a
 * terminal, a log and a report can take. What would break the line, command the terminal or reorder what
 * stands there is shown as '?': control characters (C0, DEL, C1), U+2028 and U+2029, the
 * directional overrides and isolates, and bytes that are not UTF-8. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_LINE_H
#define LAYER_LINE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the character that `text` starts with; 0: none that a line may show, or the end. */
size_t line_character(const char *text);
bool line_is_clean(const char *text);
void line_clean(char *text); /* in place; never longer than before */
/* After snprintf said `length`: cleans, and ends what was cut in "...", between two characters. */
void line_finish(char *text, size_t size, size_t length);

#ifdef __cplusplus
}
#endif
#endif

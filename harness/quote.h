/* quote - a word as sh reads it back, for the commands that reports print. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_QUOTE_H
#define HARNESS_QUOTE_H

#include <stddef.h>

/* In single quotes, each of its own as '\''. Returns the bytes written, the final zero left out;
 * what does not fit is cut, inside the quotes. size >= 8. */
size_t quote_for_shell(char *text, size_t size, const char *word);

#endif

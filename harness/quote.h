/* quote - a word as sh reads it back, for the commands that reports print. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_QUOTE_H
#define HARNESS_QUOTE_H

#include <stdio.h>

/* In single quotes, each of its own as '\''. A word that no line can show (layer/line.h) is printed
 * by the shell: "$(printf -- 'a\377b')". dash has no $'a\377b', POSIX printf is everywhere; only
 * newlines at the end of the word are lost. */
void quote_print(FILE *file, const char *word);

#endif

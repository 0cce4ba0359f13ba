/* html - the parts of the page; html.c puts them together. What they write is well-formed XML, too. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_HTML_H
#define REPORTS_HTML_H

#include "reports/report.h"

extern const char html_style[];
/* What a pass of this run does not say: in one line, and item by item with reasons. */
void html_gaps_line(FILE *file, const struct run_result *run);
void html_gaps(FILE *file, const struct run_result *run);
/* Every case in a row, every stage in a column. */
void html_matrix(FILE *file, const struct run_result *run);
/* Those that failed in one way under one heading, the worst first. */
void html_failures(FILE *file, const struct run_result *run);

void html_map(FILE *file, const struct heat_map *map);

/* Class of a cell: how far inside its bound, or what else is the case. */
const char *html_edge_class(const struct edge_result *result);
/* "kP-~": a letter an edge up to `last`; a capital has failed, "~" is too loose, "-" was not run. */
void html_ticks(FILE *file, const struct edge_result *edge, enum edge last);
/* <tag class="...">escaped text</tag>; no class: NULL. */
void html_element(FILE *file, const char *tag, const char *class, const char *text);

#endif

/* Where in a tensor are the wrong elements?  A cell is the darker the more of it is wrong; the lines
 * are the borders between ranks. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "reports/html.h"

enum { LEFT = 44, TOP = 14, MOST_PIXELS = 260, LARGEST_CELL = 16 };

/* Pixels of a cell. */
static int cell_size(const struct heat_map *m) {
    const int most = m->rows.cells > m->cols.cells ? m->rows.cells : m->cols.cells;
    return most * LARGEST_CELL > MOST_PIXELS ? MOST_PIXELS / most : LARGEST_CELL;
}

/* All cells of one level as one path of strokes, a cell wide. */
static void print_level(FILE *file, const struct heat_map *m, char level) {
    bool any = false;
    for (int r = 0; r < m->rows.cells; r++)
        for (int c = 0; c < m->cols.cells; c++) {
            int run = 0;
            while (m->cell[r][c + run] == level) run++;
            if (!run) continue;
            if (!any) fprintf(file, "<path class=\"h%c\" d=\"", level == '.' ? 'n' : level);
            any = true;
            fprintf(file, "M%d %d.5h%d", c, r, run);
            c += run;
        }
    if (any) fputs("\"/>\n", file);
}

static double cell_at(const struct map_axis *a, int64_t index) {
    return (double)index * a->cells / (double)a->size;
}

static void print_borders(FILE *file, const struct heat_map *m) {
    if (!m->rows.n_borders && !m->cols.n_borders) return;
    fputs("<path class=\"border\" d=\"", file);
    for (int i = 0; i < m->rows.n_borders; i++)
        fprintf(file, "M0 %.4gh%d", cell_at(&m->rows, m->rows.border[i]), m->cols.cells);
    for (int i = 0; i < m->cols.n_borders; i++)
        fprintf(file, "M%.4g 0v%d", cell_at(&m->cols, m->cols.border[i]), m->rows.cells);
    fputs("\"/>\n", file);
}

static void print_index(FILE *file, double x, double y, const char *anchor, int64_t index) {
    fprintf(file, "<text x=\"%.4g\" y=\"%.4g\" text-anchor=\"%s\">%lld</text>", x, y, anchor,
            (long long)index);
}

/* The first and the last index, where there is room for two. */
static void print_indices(FILE *file, const struct heat_map *m, int size) {
    const int width = m->cols.cells * size, height = m->rows.cells * size;
    print_index(file, LEFT - 3, TOP + 9, "end", 0);
    if (height >= 24) print_index(file, LEFT - 3, TOP + height - 1, "end", m->rows.size - 1);
    if (m->cols.size > 1) print_index(file, LEFT, TOP - 3, "start", 0);
    if (m->cols.size > 1 && width >= 60) print_index(file, LEFT + width, TOP - 3, "end", m->cols.size - 1);
    fputc('\n', file);
}

static void print_axis(FILE *file, const struct map_axis *a, const char *direction) {
    report_escape(file, a->name);
    fprintf(file, " 0-%lld %s", (long long)a->size - 1, direction);
}

static void print_caption(FILE *file, const struct heat_map *m) {
    fputs("<figcaption>", file);
    html_element(file, "b", NULL, m->tensor);
    fputs(": ", file);
    print_axis(file, &m->rows, "down");
    if (m->cols.size > 1) {
        fputs(", ", file);
        print_axis(file, &m->cols, "across");
    }
    if (m->rows.n_borders || m->cols.n_borders) fputs("; lines are borders between ranks", file);
    fputs("</figcaption>\n", file);
}

static void print_ranks(FILE *file, const struct heat_map *m) {
    if (!m->rank[0]) return;
    fputs("<ol class=\"ranks\">", file);
    for (int r = 0; m->rank[r]; r++) {
        const char level = m->rank[r];
        fprintf(file, "<li class=\"%s\">%s rank %d</li>",
                level == '.'   ? "n"
                : level == '0' ? "a0"
                               : "f",
                level == '.'   ? "-"
                : level == '0' ? "\u2713"
                               : "\u2717",
                r);
    }
    fputs("</ol>\n", file);
}

void html_map(FILE *file, const struct heat_map *m) {
    const int size = cell_size(m), width = m->cols.cells * size, height = m->rows.cells * size;
    fputs("<figure>\n", file);
    print_caption(file, m);
    fprintf(file,
            "<svg role=\"img\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<rect class=\"h0\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n"
            "<g transform=\"translate(%d %d) scale(%d)\">\n",
            LEFT + width + 2, TOP + height + 2, LEFT + width + 2, TOP + height + 2, LEFT, TOP, width, height,
            LEFT, TOP, size);
    for (const char *level = ".123456789"; *level; level++) print_level(file, m, *level);
    print_borders(file, m);
    fputs("</g>\n", file);
    print_indices(file, m, size);
    fputs("</svg>\n", file);
    print_ranks(file, m);
    fputs("</figure>\n", file);
}

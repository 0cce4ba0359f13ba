/* What is there to choose from?  `list WHAT` prints the very tables that the run uses, as aligned
 * columns. */
/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "fixtures/tensor_file.h"
#include "harness/cli/commands.h"
#include "harness/coverage.h"
#include "layer/choices.h"
#include "layer/line.h"

/* Rows are written with a tab between cells and a newline at the end; the last cell of a row is not
 * padded. */
enum { MAX_COLUMNS = 12 };

static size_t cell_length(const char *at) { return strcspn(at, "\t\n"); }

static void measure_columns(const char *rows, size_t *width) {
    int column = 0;
    for (const char *at = rows; *at; at++) {
        const size_t length = cell_length(at);
        at += length;
        if (*at == '\n') {
            column = 0;
            continue;
        }
        if (length > width[column]) width[column] = length;
        if (column < MAX_COLUMNS - 1) column++;
    }
}

static void print_columns(FILE *file, const char *rows) {
    size_t width[MAX_COLUMNS] = {0};
    measure_columns(rows, width);
    int column = 0;
    for (const char *at = rows; *at; at++) {
        const size_t length = cell_length(at);
        fwrite(at, 1, length, file);
        at += length;
        if (*at == '\n') {
            fputc('\n', file);
            column = 0;
            continue;
        }
        fprintf(file, "%*s", (int)(width[column] - length + 2), "");
        if (column < MAX_COLUMNS - 1) column++;
    }
}

static void list_models(FILE *rows) {
    fputs("NAME\tTYPE\tLAYERS\tHIDDEN\tHEADS\tKV\tEXPERTS\tTOP\tFFN\tPARAMETERS\n", rows);
    for (const char *const *name = model_preset_names(); *name; name++) {
        struct model model;
        const struct status status = model_load(*name, &model);
        if (status.code) {
            fprintf(rows, "%s\t%s\n", *name, status.message);
            continue;
        }
        const struct layer_spec *s = &model.kind[0];
        fprintf(rows, "%s\t%s\t%lld\t%lld\t%lld\t%lld\t", *name, model.model_type, (long long)model.n_layers,
                (long long)s->hidden, (long long)s->n_heads, (long long)s->n_kv_heads);
        if (s->moe)
            fprintf(rows, "%lld\t%lld\t%lld", (long long)s->n_experts, (long long)s->top_k,
                    (long long)s->expert_width);
        else
            fprintf(rows, "-\t-\t%lld", (long long)s->shared_width);
        const double n = (double)model_param_count(&model);
        fprintf(rows, n < 1e9 ? "\t%.2f million\n" : "\t%.2f billion\n", n < 1e9 ? n * 1e-6 : n * 1e-9);
    }
}

static void add_sizes(FILE *rows, const int64_t *size, int n) {
    for (int i = 0; i < n; i++) fprintf(rows, "%s%lld", i ? ", " : "", (long long)size[i]);
}

/* In a cell, whatever stands in it: names and texts are somebody else's. */
static void add_text(FILE *rows, const char *text) {
    char cell[200];
    line_finish(cell, sizeof cell, (size_t)snprintf(cell, sizeof cell, "%s", text));
    fputs(cell, rows);
}

static struct status list_tensors(FILE *rows, const char *path) {
    struct tensor_file *file;
    const char *key, *says;
    TRY(tensor_file_open(path, &file));
    fprintf(rows, "NAME\tTYPE\tSHAPE\tSTRIDES (%s)\n", tensor_file_format(file));
    for (int i = 0; i < tensor_file_count(file); i++) {
        const struct named_tensor *const t = tensor_file_at(file, i);
        add_text(rows, t->name);
        fprintf(rows, "\t%s\t[", t->type);
        add_sizes(rows, t->dim, t->n_dims);
        fputs("]\t", rows);
        add_sizes(rows, t->stride, t->n_dims);
        if (t->n_dims == 0) fputc('-', rows);
        fputc('\n', rows);
    }
    for (int i = 0; (key = tensor_file_fact_at(file, i, &says)); i++) {
        add_text(rows, key);
        fputs("\tfact\t", rows);
        add_text(rows, says);
        fputc('\n', rows);
    }
    tensor_file_close(file);
    return status_ok();
}

/* The order is the preference: a call goes to the first row of its op that runs on the device and
 * supports it. */
static void list_kernels(FILE *rows) {
    fputs("NAME\tOP\tDEVICES\tDESCRIPTION\n", rows);
    for (const struct kernel *k = kernel_table; k->name; k++) {
        const char *gap = "";
        fprintf(rows, "%s\t%s\t", k->name, op_name(k->op));
        for (int d = 0; d < DEVICE_COUNT; d++) {
            if (!k->launch[d]) continue;
            fprintf(rows, "%s%s%s", gap, device_kind_name((enum device_kind)d),
                    k->explicit_on_host && d == DEVICE_HOST ? ": by name" : "");
            if (d == DEVICE_CUDA && k->compute) fprintf(rows, " %d.%d", k->compute / 10, k->compute % 10);
            gap = ",";
        }
        fprintf(rows, "%s\t%s\n", *gap ? "" : "none in this build", k->describes);
    }
}

static void print_tensors(FILE *rows, const enum tensor_id *ids) {
    for (int i = 0; ids[i] != T_NONE; i++)
        fprintf(rows, "%s%s[%s]", i ? " " : "", tensor_table[ids[i]].name, tensor_table[ids[i]].axes);
}

static void list_stages(FILE *rows) {
    fputs("NAME\tPART\tOP\tOUT\tIN\n", rows);
    for (int s = 0; s < S_COUNT; s++) {
        const struct stage_row *stage = &stage_table[s];
        fprintf(rows, "%s\t%s\t%s\t", stage->name, part_name(stage->part), op_name(stage->op));
        print_tensors(rows, stage->out);
        fputc('\t', rows);
        print_tensors(rows, stage->in);
        fputc('\n', rows);
    }
}

/* As the command line wants it: with every key it needs to mean this one case. */
static void print_case_cell(FILE *rows, const char *text) {
    struct check_case c;
    bool has_part;
    char line[CASE_LINE] = "";
    if (!case_parse(text, &c, &has_part).code && case_line_length(&c) < sizeof line)
        case_print(&c, line, sizeof line);
    fprintf(rows, "%s\t", *line ? line : text);
}

/* A mistake of a feature that no layer here has is in the list, so that nobody counts it. */
static void list_mutants(FILE *rows) {
    const struct mutant *m;
    fputs("NAME\tEDGE\tSOURCE\tEXPOSED BY\tINVISIBLE IN\tDESCRIPTION\n", rows);
    for (int i = 0; (m = mutant_at(i)); i++) {
        fprintf(rows, "%s\t%s\t%s\t", m->name, m->missing ? "-" : edge_name(m->edge), m->source);
        if (m->missing) {
            fprintf(rows, "not made: no %s\t-\t", m->missing);
        } else {
            print_case_cell(rows, m->exposes);
            if (m->clean)
                print_case_cell(rows, m->clean);
            else
                fputs("no case\t", rows);
        }
        fprintf(rows, "%s\n", m->describes);
    }
}

static void list_fills(FILE *rows) {
    fputs("NAME\tDESCRIPTION\n", rows);
    for (int f = 0; f < FILL_COUNT; f++)
        fprintf(rows, "%s\t%s\n", fill_name((enum fill_kind)f), fill_describes((enum fill_kind)f));
}

static void list_facts(FILE *rows) {
    fputs("NAME\tOP\tDESCRIPTION\n", rows);
    for (int f = 0; f < coverage_count(); f++) {
        char name[48];
        coverage_name(f, name, sizeof name);
        fprintf(rows, "%s\t%s\t%s\n", name, op_name(coverage_op(f)), coverage_describe(f));
    }
}

static void list_devices(FILE *rows) {
    fputs("NAME\tSTATE\n", rows);
    for (int d = 0; d < DEVICE_COUNT; d++) {
        struct device *device = NULL;
        const struct status status = device_open((enum device_kind)d, &device);
        fprintf(rows, "%s\t%s\n", device_kind_name((enum device_kind)d),
                status.code ? status.message : device_label(device));
        if (!status.code) device_close(device);
    }
}

/* write NULL: the tensors of a file. */
static const struct {
    const char *name;
    void (*write)(FILE *rows);
} list_table[] = {
    {"models", list_models}, {"kernels", list_kernels}, {"stages", list_stages},   {"mutants", list_mutants},
    {"fills", list_fills},   {"facts", list_facts},     {"devices", list_devices}, {"tensors", NULL},
};
enum { N_LISTS = sizeof list_table / sizeof *list_table };

void list_values(struct choices *choices) {
    for (int i = 0; i < N_LISTS; i++) choices_add(choices, "%s", list_table[i].name);
}

static void list_choices(const char *typed, char *text, size_t size) {
    struct choices choices = {0};
    list_values(&choices);
    choices_text(&choices, typed, text, size);
}

static int list_by_name(const char *what) {
    for (int i = 0; what && i < N_LISTS; i++)
        if (!strcmp(list_table[i].name, what)) return i;
    return -1;
}

static struct status check_name(const char *what) {
    if (list_by_name(what) >= 0) return status_ok();
    char text[200];
    list_choices(what, text, sizeof text);
    return what ? status_error("list %.48s: no such list; use %s", what, text)
                : status_error("list: of what? use %s", text);
}

void list_explain(FILE *file) {
    char text[200];
    list_choices(NULL, text, sizeof text);
    fprintf(file, "WHAT is %s; tensors are those of FILE, of any format\nthat docs/fixtures.md names.\n",
            text);
}

struct status list_parse(struct parse *parse) {
    const struct request *const words = &parse->request;
    const char *const what = words->n_subjects ? words->subject[0] : NULL;
    const bool of_file = what && !strcmp(what, "tensors");
    parse->out->list_what = what;
    TRY(check_name(what));
    if (words->n_subjects > 1 + of_file)
        return status_error("list %.60s: one thing at a time", words->subject[1 + of_file]);
    if (of_file && words->n_subjects < 2)
        return status_error("list tensors: of which file? use list tensors FILE");
    parse->out->list_file = of_file ? words->subject[1] : NULL;
    return status_ok();
}

struct status list_print(const char *what, const char *path, FILE *file) {
    TRY(check_name(what));
    char *text = NULL;
    size_t size = 0;
    FILE *rows = open_memstream(&text, &size);
    if (!rows) return status_error("list %s: out of memory", what);
    const int i = list_by_name(what);
    struct status s = status_ok();
    if (list_table[i].write)
        list_table[i].write(rows);
    else
        s = list_tensors(rows, path);
    if (fclose(rows) && !s.code) s = status_error("list %s: out of memory", what);
    if (!s.code) print_columns(file, text);
    free(text);
    return s;
}

struct status list_run(const struct options *options, enum exit_code *code) {
    (void)code;
    return list_print(options->list_what, options->list_file, stdout);
}

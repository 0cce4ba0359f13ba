/* How are requests, steps and results spelled? */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/memory.h"
#include "reports/report.h"

void message_free(struct message *m) {
    free(m->text);
    *m = (struct message){0};
}

/* ---- requests ---- */

static void put_item(FILE *file, const char *key, const char *value) {
    if (value) fprintf(file, "%s=%s%c", key, value, 0);
}

static void put_number(FILE *file, const char *key, int value) { fprintf(file, "%s=%d%c", key, value, 0); }

struct message request_write(const struct run_request *o, const int64_t *index, int64_t n, int threads) {
    struct message m = {0};
    char line[CASE_LINE];
    FILE *const file = open_memstream(&m.text, &m.length);
    if (!file) return m;
    for (int64_t i = 0; i < n; i++) {
        case_print(&o->cases[index[i]], line, sizeof line);
        put_item(file, "case", line);
    }
    put_item(file, "fixture", o->fixture_path);
    for (int i = 0; i < o->judge.n_dumps; i++) put_item(file, "judge", o->judge.dump[i]);
    put_item(file, "judge_model", o->judge.model);
    put_item(file, "judge_contract", o->judge.contract);
    if (o->judge.most_work > 0) fprintf(file, "judge_work=%a%c", o->judge.most_work, 0);
    for (int s = 0; s < S_COUNT; s++)
        if (o->judge.only[s]) put_item(file, "judge_stage", stage_table[s].name);
    put_item(file, "dump", o->dump_path);
    put_item(file, "dump_name", o->dump_name);
    put_number(file, "dump_ranks", o->dump_ranks);
    put_item(file, "mutant", o->mutant ? o->mutant->name : NULL);
    put_number(file, "reference", (int)o->reference);
    put_number(file, "schedules", o->schedules);
    put_number(file, "threads", threads);
    if (fclose(file)) message_free(&m);
    return m;
}

static struct status read_case(struct asked *a, const char *line) {
    struct check_case *const all = (struct check_case *)a->run.cases;
    bool has_part;
    TRY(case_parse(line, &all[a->run.n_cases], &has_part));
    a->run.n_cases++;
    return status_ok();
}

static struct status read_mutant(struct asked *a, const char *name) {
    a->run.mutant = mutant_by_name(name);
    return a->run.mutant && !a->run.mutant->missing ? status_ok()
                                                    : status_error("mutant=%.48s: no such mutant", name);
}

static struct status read_judged(struct asked *a, const char *key, const char *value) {
    struct judge_wish *const j = &a->run.judge;
    if (!strcmp(key, "judge")) return a->judged[j->n_dumps++] = value, status_ok();
    if (!strcmp(key, "judge_model")) return j->model = value, status_ok();
    if (!strcmp(key, "judge_work")) return j->most_work = strtod(value, NULL), status_ok();
    if (!strcmp(key, "judge_contract")) return j->contract = value, status_ok();
    const int stage = stage_by_name(value);
    if (strcmp(key, "judge_stage") || stage < 0)
        return status_error("%.48s=%.48s: this worker knows no such item of a request", key, value);
    return j->only[stage] = true, status_ok();
}

static struct status read_item(struct asked *a, const char *key, const char *value) {
    if (!strcmp(key, "case")) return read_case(a, value);
    if (!strcmp(key, "mutant")) return read_mutant(a, value);
    if (!strcmp(key, "fixture")) return a->run.fixture_path = value, status_ok();
    if (!strncmp(key, "judge", strlen("judge"))) return read_judged(a, key, value);
    if (!strcmp(key, "dump_name")) return a->run.dump_name = value, status_ok();
    if (!strcmp(key, "dump_ranks")) return a->run.dump_ranks = atoi(value), status_ok();
    if (!strcmp(key, "dump")) return a->run.dump_path = value, status_ok();
    if (!strcmp(key, "reference")) return a->run.reference = (enum sums_place)atoi(value), status_ok();
    if (!strcmp(key, "schedules")) return a->run.schedules = atoi(value), status_ok();
    if (!strcmp(key, "threads")) return a->threads = atoi(value), status_ok();
    return status_error("%.48s: this worker knows no such item of a request", key);
}

struct status request_read(const char *text, size_t length, struct asked *out) {
    *out = (struct asked){0};
    if (!length || text[length - 1]) return status_error("a request has to end in a zero byte");
    int64_t items = 0;
    for (size_t i = 0; i < length; i++) items += !text[i];
    out->text = memory_zeroed(length, 1);
    out->run.cases = memory_zeroed((size_t)items, sizeof *out->run.cases);
    out->judged = memory_zeroed((size_t)items, sizeof *out->judged);
    out->run.judge.dump = out->judged;
    memcpy(out->text, text, length);
    for (char *item = out->text; item < out->text + length; item += strlen(item) + 1) {
        char *const equals = strchr(item, '=');
        if (!equals) return status_error("'%.60s': a request has items key=value", item);
        char *const value = equals + 1;
        char key[32] = "";
        snprintf(key, sizeof key, "%.*s", (int)(equals - item), item);
        TRY(read_item(out, key, value));
    }
    return status_ok();
}

void asked_free(struct asked *a) {
    free((void *)a->run.cases);
    free(a->judged);
    free(a->text);
    *a = (struct asked){0};
}

/* ---- steps ---- */

struct message step_write(const struct step *s) {
    struct message m = {0};
    FILE *const file = open_memstream(&m.text, &m.length);
    if (!file) return m;
    fprintf(file, "%d %lld %d %d %.6g %s", (int)s->doing, (long long)s->case_index, s->stage, s->rank,
            s->work, s->who);
    if (fclose(file)) message_free(&m);
    return m;
}

bool step_read(const char *text, size_t length, struct step *step, char *who, size_t size) {
    char copy[4400];
    int doing, stage, rank, used = 0;
    long long index;
    double work;
    if (length >= sizeof copy) return false;
    memcpy(copy, text, length);
    copy[length] = 0;
    if (sscanf(copy, "%d %lld %d %d %lg %n", &doing, &index, &stage, &rank, &work, &used) != 5 || !used)
        return false;
    if (doing < 0 || doing >= DOING_COUNT || stage < -1 || stage >= S_COUNT) return false;
    snprintf(who, size, "%s", copy + used);
    *step = (struct step){(enum doing)doing, index, stage, rank, work, who};
    return true;
}

/* ---- results ---- */

struct message result_write(int64_t i, const struct case_result *result) {
    struct message m = {0};
    char *const json = report_case_json(result);
    FILE *const file = json ? open_memstream(&m.text, &m.length) : NULL;
    if (file) fprintf(file, "%lld %s", (long long)i, json);
    if (file && fclose(file)) message_free(&m);
    free(json);
    return m;
}

bool result_read(const char *text, size_t length, int64_t *i, struct case_result *out) {
    const char *const gap = memchr(text, ' ', length);
    if (!gap || gap - text > 18) return false;
    *i = atoll(text);
    return report_read_case(gap + 1, length - (size_t)(gap + 1 - text), out);
}

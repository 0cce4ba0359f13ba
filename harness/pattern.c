/* What do the wrong indices of an axis have in common? */
/* SPDX-License-Identifier: MIT */
#include "harness/pattern.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_RUNS = 3, LISTED = 4, LONGEST_PERIOD = 512 };

/* ---- sets ---- */

static bool bit(const uint64_t *bits, int64_t i) { return bits[i / 64] >> (i % 64) & 1; }
static void set_bit(uint64_t *bits, int64_t i) { bits[i / 64] |= (uint64_t)1 << (i % 64); }
static bool is_judged(const struct index_set *s, int64_t i) { return bit(s->judged, i); }

void index_judge(struct index_set *s, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count && i < PATTERN_INDICES; i++) set_bit(s->judged, i);
}

void index_blame(struct index_set *s, int64_t index) {
    if (!s->any || index < s->low) s->low = index;
    if (!s->any || index > s->high) s->high = index;
    s->any = true;
    if (index >= PATTERN_INDICES) return;
    set_bit(s->judged, index);
    set_bit(s->wrong, index);
}

bool index_is_wrong(const struct index_set *s, int64_t index) {
    return index < PATTERN_INDICES && bit(s->wrong, index);
}

int64_t index_wrong_in(const struct index_set *s, int64_t first, int64_t count) {
    int64_t n = 0;
    for (int64_t i = first; i < first + count; i++) n += index_is_wrong(s, i);
    return n;
}

/* The same by other numbers; false: of indices with one number some are wrong and some are not. */
static bool renumber(const struct index_set *s, const int32_t *number, struct index_set *out) {
    *out = (struct index_set){0};
    for (int64_t i = 0; i < s->size; i++) {
        if (!is_judged(s, i)) continue;
        const int64_t n = number[i];
        if (n >= PATTERN_INDICES) return false;
        if (n >= out->size) out->size = n + 1;
        if (is_judged(out, n) && index_is_wrong(out, n) != index_is_wrong(s, i)) return false;
        index_judge(out, n, 1);
        if (index_is_wrong(s, i)) index_blame(out, n);
    }
    return true;
}

/* ---- what they have in common ---- */

struct pattern {
    enum pattern_kind kind;
    int64_t first, last; /* one, range, all but one; of a period: the remainders */
    int64_t period;      /* index % period in [first, last], or not */
    bool inverted;       /* ... not */
    bool inside;         /* of those in the extent */
    int64_t n_judged, n_wrong, n_runs;
};

static bool in_period(const struct pattern *p, int64_t i) {
    const int64_t r = i % p->period;
    return (p->first <= r && r <= p->last) != p->inverted;
}

/* The remainders of the wrong indices, where they are one range or all but one. */
static bool remainders(const struct index_set *s, struct pattern *p) {
    bool seen[PATTERN_INDICES];
    int64_t n = 0, gap = 0;
    memset(seen, 0, (size_t)p->period);
    for (int64_t i = s->low; i <= s->high; i++)
        if (index_is_wrong(s, i)) seen[i % p->period] = true;
    p->first = p->period, p->last = -1;
    for (int64_t r = 0; r < p->period; r++) {
        if (!seen[r]) gap = r;
        if (!seen[r]) continue;
        n++;
        if (r < p->first) p->first = r;
        p->last = r;
    }
    p->inverted = p->last - p->first + 1 != n && n == p->period - 1;
    if (p->inverted) p->first = p->last = gap;
    return n < p->period && (p->inverted || p->last - p->first + 1 == n);
}

/* True of all that was judged, and repeated `times` or more. */
static bool repeats(const struct index_set *s, struct pattern *p, int64_t times) {
    const int64_t from = p->inside ? s->low : 0, to = p->inside ? s->high : s->size - 1;
    int64_t n = 0, at = -1;
    if (s->size < 2 * p->period || !remainders(s, p)) return false;
    for (int64_t i = from; i <= to; i++) {
        if (!is_judged(s, i)) continue;
        if (in_period(p, i) != index_is_wrong(s, i)) return false;
        if (!index_is_wrong(s, i) || i / p->period == at) continue;
        at = i / p->period;
        n++;
    }
    return n >= times;
}

/* Two indices are periodic whatever they are: a size that means nothing has to be met three times. */
static bool find_period(const struct index_set *s, const struct pattern_view *view, struct pattern *p) {
    for (int inside = 0; inside < 2; inside++) {
        p->inside = inside;
        for (int i = 0; i < 4; i++) {
            p->period = view->period[i].size;
            if (p->period > 1 && p->period <= PATTERN_INDICES / 2 && repeats(s, p, 2 + inside)) return true;
        }
        for (p->period = 2; p->period <= LONGEST_PERIOD && 2 * p->period <= s->size; p->period++)
            if (repeats(s, p, 3)) return true;
    }
    return false;
}

static void count(const struct index_set *s, struct pattern *p) {
    bool before = false;
    for (int64_t i = 0; i < s->size; i++) {
        if (!is_judged(s, i)) continue;
        const bool wrong = index_is_wrong(s, i);
        p->n_judged++;
        p->n_wrong += wrong;
        p->n_runs += wrong && !before;
        before = wrong;
    }
}

static int64_t the_right_one(const struct index_set *s) {
    for (int64_t i = 0; i < s->size; i++)
        if (is_judged(s, i) && !index_is_wrong(s, i)) return i;
    return -1;
}

static struct pattern find(const struct index_set *s, const struct pattern_view *view) {
    struct pattern p = {.first = s->low, .last = s->high};
    count(s, &p);
    if (p.n_wrong == p.n_judged)
        p.kind = PATTERN_ALL;
    else if (p.n_wrong == 1)
        p.kind = PATTERN_ONE;
    else if (p.n_runs == 1)
        p.kind = PATTERN_RANGE;
    else if (p.n_wrong == p.n_judged - 1)
        p.kind = PATTERN_ALL_BUT_ONE, p.first = the_right_one(s);
    else if (find_period(s, view, &p))
        p.kind = PATTERN_PERIOD;
    else
        p.kind = p.n_runs <= MAX_RUNS ? PATTERN_RUNS : PATTERN_NONE;
    return p;
}

/* ---- in words ---- */

struct words {
    char *text;
    size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void say(struct words *w, const char *format, ...) {
    va_list args;
    if (w->used >= w->size) return;
    va_start(args, format);
    const int n = vsnprintf(w->text + w->used, w->size - w->used, format, args);
    va_end(args);
    if (n > 0) w->used += (size_t)n;
}

static void say_range(struct words *w, int64_t first, int64_t last) {
    say(w, first == last ? "%lld" : "%lld-%lld", (long long)first, (long long)last);
}

/* "0-3, 7, 9-12" */
static void say_runs(struct words *w, const struct index_set *s) {
    int64_t first = -1, last = -1;
    for (int64_t i = s->low, n = 0; i <= s->high + 1; i++) {
        const bool wrong = i <= s->high && index_is_wrong(s, i);
        if (i <= s->high && !is_judged(s, i)) continue;
        if (wrong && first < 0) first = i;
        if (wrong) last = i;
        if (wrong || first < 0) continue;
        if (n++) say(w, ", ");
        say_range(w, first, last);
        first = -1;
    }
}

static void say_some(struct words *w, const struct index_set *s) {
    int n = 0;
    for (int64_t i = s->low; i <= s->high && n < LISTED; i++)
        if (index_is_wrong(s, i)) say(w, n++ ? ", %lld" : "%lld", (long long)i);
    say(w, ", ...");
}

static void say_remainders(struct words *w, const struct pattern *p, const char *letter) {
    say(w, "%s %% %lld ", letter, (long long)p->period);
    if (p->first == p->last)
        say(w, "%s %lld", p->inverted ? "!=" : "=", (long long)p->first);
    else if (p->first == 0)
        say(w, "< %lld", (long long)p->last + 1);
    else if (p->last == p->period - 1)
        say(w, ">= %lld", (long long)p->first);
    else
        say(w, "in %lld-%lld", (long long)p->first, (long long)p->last);
}

/* "heads h % 8 >= 4 (16 of 32)", "odd heads", "rows 8-31 with n % 8 = 7 (3 of 64; the last of every tile)" */
static void say_period(struct words *w, const struct index_set *s, const struct pattern_view *v,
                       const struct pattern *p) {
    const char *unit = NULL;
    for (int i = 0; i < 4 && !unit; i++)
        if (v->period[i].size == p->period) unit = v->period[i].unit;
    if (p->period == 2 && !p->inside) {
        say(w, "%s %ss", p->first ? "odd" : "even", v->label);
    } else {
        say(w, "%ss ", v->label);
        if (p->inside) say(w, "%lld-%lld with ", (long long)s->low, (long long)s->high);
        say_remainders(w, p, v->letter);
    }
    say(w, " (%lld of %lld", (long long)p->n_wrong, (long long)p->n_judged);
    if (unit && p->first == p->last && !p->inverted && (p->first == 0 || p->first == p->period - 1))
        say(w, "; the %s of every %s", p->first ? "last" : "first", unit);
    else if (unit)
        say(w, "; a %s has %lld", unit, (long long)p->period);
    say(w, ")");
}

/* Numbers that count from an end of every unit. */
static void say_place(struct words *w, const struct pattern_view *v, const struct pattern *p, int64_t size) {
    const char *const end = v->from_last ? "last" : "first";
    if (p->kind == PATTERN_ONE && p->first == 0)
        say(w, "the %s %s of every %s", end, v->label, v->unit);
    else if (p->kind == PATTERN_ONE)
        say(w, "%s %lld of every %s, counted from the %s", v->label, (long long)p->first, v->unit, end);
    else if (p->first == 0)
        say(w, "the %s %lld %ss of every %s", end, (long long)p->last + 1, v->label, v->unit);
    else if (p->last == size - 1 && p->first == 1)
        say(w, "every %s but the %s of a %s", v->label, end, v->unit);
    else if (p->last == size - 1)
        say(w, "every %s but the %s %lld of a %s", v->label, end, (long long)p->first, v->unit);
    else
        say(w, "%ss %lld-%lld of every %s, counted from the %s", v->label, (long long)p->first,
            (long long)p->last, v->unit, end);
}

static void say_pattern(struct words *w, const struct index_set *s, const struct pattern_view *v,
                        const struct pattern *p) {
    if (v->before && p->kind != PATTERN_NONE) say(w, "%s", v->before);
    switch (p->kind) {
    case PATTERN_ALL: break;
    case PATTERN_ONE: say(w, "%s %lld", v->label, (long long)p->first); break;
    case PATTERN_RANGE:
        if (v->number && !v->before && p->last == s->size - 1)
            say(w, "%ss >= %lld", v->label, (long long)p->first);
        else
            say(w, "%ss %lld-%lld", v->label, (long long)p->first, (long long)p->last);
        break;
    case PATTERN_ALL_BUT_ONE: say(w, "every %s but %lld", v->label, (long long)p->first); break;
    case PATTERN_PERIOD: say_period(w, s, v, p); break;
    case PATTERN_RUNS:
        say(w, "%ss ", v->label);
        say_runs(w, s);
        break;
    case PATTERN_NONE:
        say(w, "%lld of %lld %ss (", (long long)p->n_wrong, (long long)p->n_judged, v->label);
        say_some(w, s);
        say(w, ")");
        break;
    }
}

/* A place in a unit is a description only where it is simple. */
static bool has_words(const struct pattern_view *v, const struct pattern *p) {
    return !v->unit || p->kind <= PATTERN_RANGE;
}

enum pattern_kind pattern_describe(const struct index_set *s, const struct pattern_view *view, int n_views,
                                   char *text, size_t size) {
    struct words w = {text, size, 0};
    struct index_set best_set = *s, set;
    struct pattern best = {.kind = PATTERN_ALL};
    const struct pattern_view *by = &view[0];
    text[0] = 0;
    if (s->size > PATTERN_INDICES) {
        say(&w, "%ss within %lld-%lld", by->label, (long long)s->low, (long long)s->high);
        return PATTERN_NONE;
    }
    for (int i = 0; i < n_views; i++) {
        if (view[i].number && !renumber(s, view[i].number, &set)) continue;
        if (!view[i].number) set = *s;
        const struct pattern p = find(&set, &view[i]);
        if (p.kind == PATTERN_ALL) return PATTERN_ALL;
        if (!has_words(&view[i], &p) || (i && p.kind >= best.kind)) continue;
        best = p, best_set = set, by = &view[i];
    }
    if (by->unit)
        say_place(&w, by, &best, best_set.size);
    else
        say_pattern(&w, &best_set, by, &best);
    return best.kind;
}

/* xml - a reader that accepts well-formed elements, attributes and references, and nothing else. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_XML_H
#define TESTS_XML_H

#include <ctype.h>
#include <string.h>

#include "reports/report.h"

static inline const char *xml_skip_reference(const char *at) {
    static const char *const known[] = {"&amp;",  "&lt;", "&gt;",  "&quot;",
                                        "&apos;", "&#9;", "&#10;", "&#13;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(at, known[i], strlen(known[i]))) return at + strlen(known[i]);
    return NULL;
}

/* Characters up to `end`; NULL: one that may not stand there. */
static inline const char *xml_skip_characters(const char *at, char end) {
    while (*at && *at != end) {
        const int n = report_utf8_length(at);
        if (!n || *at == '<' || (end == '<' && !strncmp(at, "]]>", 3))) return NULL;
        if ((unsigned char)*at < ' ' && *at != '\n' && *at != '\t') return NULL;
        at = *at == '&' ? xml_skip_reference(at) : at + n;
        if (!at) return NULL;
    }
    return at;
}

static inline const char *xml_skip_name(const char *at) {
    while (isalnum((unsigned char)*at) || *at == '-') at++;
    return at;
}

/* After "<name": attributes, then ">" (*empty = false) or "/>". */
static inline const char *xml_skip_attributes(const char *at, bool *empty) {
    while (*at == ' ') {
        const char *name = ++at;
        at = xml_skip_name(at);
        if (at == name || at[0] != '=' || at[1] != '"') return NULL;
        at = xml_skip_characters(at + 2, '"');
        if (!at || !*at) return NULL;
        at++;
    }
    *empty = *at == '/';
    at += *empty;
    return *at == '>' ? at + 1 : NULL;
}

/* One element with everything in it; counts those called `wanted`. */
static inline const char *xml_skip_element(const char *at, const char *wanted, int *count) {
    if (*at != '<') return NULL;
    const char *name = at + 1;
    const size_t length = (size_t)(xml_skip_name(name) - name);
    bool empty = false;
    *count += length == strlen(wanted) && !strncmp(name, wanted, length);
    at = length ? xml_skip_attributes(name + length, &empty) : NULL;
    while (at && !empty) {
        at = xml_skip_characters(at, '<');
        if (!at || !*at) return NULL;
        if (at[1] == '/')
            return !strncmp(at + 2, name, length) && at[2 + length] == '>' ? at + 3 + length : NULL;
        at = xml_skip_element(at, wanted, count);
    }
    return at;
}

#endif

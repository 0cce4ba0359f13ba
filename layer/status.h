/* status - success, or one line that says what went wrong and what to do about it.
 * The message is printed after "shardcheck: ", so it starts with the thing that is wrong
 * ("--tp 3: param2-17b has ...; use 1, 2 or 4") and carries no final full stop or newline.
 * Whatever went into it (paths, arguments, keys of a file), it is clean (layer/line.h). */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_STATUS_H
#define LAYER_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum status_code {
    STATUS_OK = 0,
    STATUS_ERROR = 1,
    STATUS_FAULT = 2,  /* the code under test did something after which this process cannot go on */
    STATUS_STOPPED = 3 /* whoever watches wants no more of it */
};

struct status {
    enum status_code code;
    char message[500];
};

struct status status_ok(void);
struct status status_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Hand an error on to the caller. Nothing may need releasing between two TRYs. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        const struct status status_try_ = (call);                                                            \
        if (status_try_.code) return status_try_;                                                            \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif

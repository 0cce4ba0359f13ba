/* seat - who fills the outputs of a stage: a kernel on a device, the world, the reference itself, a
 * file; in tests, anybody. A seat lays the operands out (prepare), then stores the outputs (fill).
 * It knows nothing of right and wrong but this: an error, a damaged guard, a written input are
 * reported with the outcome. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_SEAT_H
#define HARNESS_SEAT_H

#include "harness/crew.h"
#include "kernels/kernels.h"

struct outcome {
    /* prepare */
    struct operands operands;        /* on host memory, valid until the seat's next prepare */
    struct call call;                /* as it should be made, with these */
    struct view part[MAX_PARTS];     /* of a sum */
    const double *radius[MAX_PARTS]; /* by operand, or by part */
    bool fuzzy;                      /* some radius is there */
    /* fill */
    const char *by; /* the kernel's name, the world's, "view", ...; NULL: nobody can, see problem */
    const struct kernel *kernel; /* NULL: it was none */
    struct contract contract;    /* what the outputs are judged under */
    char problem[500];           /* empty: it ran and kept to its buffers */
    struct store got;            /* dense outputs of the rank by tensor id; caches come back whole */
    double seconds;              /* launch to completion */
    bool mistaken;               /* the seeded mistake changed the call, or the parts of the sum */
    int schedule;                /* the first schedule that stored other bits than `got`; 0: none did */
    struct store other;          /* what it stored */
};
void outcome_free(struct outcome *o);
struct tile_sizes outcome_tiles(const struct outcome *o); /* of its kernel; all 0: it names none */

struct seat {
    struct status (*prepare)(struct seat *seat, const struct placed *at, struct outcome *o);
    /* `seeded`: a mistake made in the call under test, not in o->call; NULL: none. */
    struct status (*fill)(struct seat *seat, const struct placed *at, const struct mutant *seeded,
                          struct outcome *o);
};

/* Operands on plain host memory, for seats without a device. Outputs are bound to o->got, poisoned;
 * what is written in place starts as it was. */
struct desk {
    struct mapping in[MAX_STAGE_IO];
};
struct status desk_prepare(struct desk *desk, const struct placed *at, struct outcome *o);
void desk_free(struct desk *desk);

bool seat_in_place(enum tensor_id id); /* written in place: the caches */

#endif

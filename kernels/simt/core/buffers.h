/* buffers - the host device's buffers: data between two readable guards, then pages that fault.
 *
 *   | fault | reserved, closed | guard | data | guard | fault |
 *                                                     ^ end of the reservation
 * Buffers grow downwards into their reservation and keep their pages when they shrink, so a warm
 * buffer costs no page faults. Closed pages fault like those outside. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_CORE_BUFFERS_H
#define KERNELS_SIMT_CORE_BUFFERS_H

#include <stddef.h>

namespace simt {

struct host_buffer {
    char name[64];
    unsigned char *data;
    size_t bytes, guard;
    unsigned char poison;            /* the byte that data and guards begin with */
    unsigned char *map, *end, *open; /* pages [open, end) can be read and written */
    size_t map_bytes;
    bool sealed;       /* the whole pages of its data can be read only */
    host_buffer *next; /* the list a fault handler looks through */
};

/* NULL: no memory. */
host_buffer *buffer_new(const char *name, size_t bytes, size_t guard);
/* false: does not fit into the reservation, or no memory; the buffer is unchanged. */
bool buffer_resize(host_buffer *buffer, const char *name, size_t bytes, size_t guard);
void buffer_poison(host_buffer *buffer); /* data, guards and what alignment left */
void buffer_poison_guards(host_buffer *buffer);
void buffer_seal(host_buffer *buffer, bool sealed);
size_t buffer_guard_damage(const host_buffer *buffer);
void buffer_free(host_buffer *buffer);

/* The buffer whose data is nearest to the address, NULL: there are none. */
const host_buffer *buffer_nearest(const void *address);

} // namespace simt

#endif

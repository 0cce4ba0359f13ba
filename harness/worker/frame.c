/* How do whole messages come out of a stream of bytes? */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "harness/output.h"

_Static_assert(sizeof(struct frame_head) == 32, "no padding");

bool frame_write(int fd, struct frame_head *head, enum frame_type type, const void *payload, size_t length) {
    head->magic = FRAME_MAGIC;
    head->type = (uint32_t)type;
    head->length = (uint32_t)length;
    head->pid = getpid();
    const bool ok = length <= FRAME_MOST && !write_whole(fd, (const char *)head, sizeof *head) &&
                    !write_whole(fd, payload, length);
    head->number++;
    return ok;
}

bool frame_read(struct frame_buffer *b, int fd) {
    enum { CHUNK = 1 << 16 };
    if (b->size - b->used < CHUNK) {
        char *const more = realloc(b->data, b->used + 2 * CHUNK);
        if (!more) return false;
        b->data = more;
        b->size = b->used + 2 * CHUNK;
    }
    const ssize_t n = read(fd, b->data + b->used, b->size - b->used);
    if (n > 0) b->used += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

int frame_front(struct frame_buffer *b, struct frame_head *head, const char **payload) {
    if (b->used < sizeof *head) return 0;
    memcpy(head, b->data, sizeof *head);
    if (head->magic != FRAME_MAGIC || head->type >= FRAME_TYPES || head->length > FRAME_MOST || head->zero)
        return -1;
    if (b->used - sizeof *head < head->length) return 0;
    *payload = b->data + sizeof *head;
    return 1;
}

void frame_take(struct frame_buffer *b) {
    struct frame_head head;
    memcpy(&head, b->data, sizeof head);
    const size_t whole = sizeof head + head.length;
    b->used -= whole;
    memmove(b->data, b->data + whole, b->used);
}

void frame_buffer_free(struct frame_buffer *b) {
    free(b->data);
    *b = (struct frame_buffer){0};
}

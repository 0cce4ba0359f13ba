/* fiber - a stack of its own, and the switch to another one. One fiber carries one CUDA thread. The
 * switch saves what the ABI asks a callee to save and nothing else: 3 to 4 ns. It leaves by a jump
 * through a register, because a `ret` into another stack always mispredicts. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_CORE_FIBER_H
#define KERNELS_SIMT_CORE_FIBER_H

#include <stddef.h>

namespace simt {

/* Save the running context in *from and continue `to`. */
extern "C" void simt_fiber_switch(void **from, void *to);

/* A context that starts entry() on the stack [low, low + bytes); entry must never return. */
void *fiber_prepare(unsigned char *low, size_t bytes, void (*entry)());

/* A place to save the context of an OS thread's own stack. */
void *fiber_adopt();

struct fiber_stack {
    unsigned char *low;  /* NULL: none */
    size_t bytes, guard; /* the guard lies below `low` and faults */
};
bool fiber_stack_new(fiber_stack *stack);                               /* false: no memory */
bool fiber_stack_guards(const fiber_stack *stack, const void *address); /* is it in the guard? */

size_t page_bytes();

} // namespace simt

#endif

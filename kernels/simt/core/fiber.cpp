/* fiber - context switches for x86-64 and aarch64, ucontext anywhere else (or with
 * -DSIMT_UCONTEXT), and stacks. */
/* SPDX-License-Identifier: MIT */
#include "kernels/simt/core/fiber.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/simt/core/simt.h"

#ifdef __has_include
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, high) 0
#endif

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif

namespace simt {

#if defined(SIMT_UCONTEXT)
} // namespace simt
#include <ucontext.h>
namespace simt {

/* The saved context is a ucontext_t at the top of the fiber's own stack. */
extern "C" void simt_fiber_switch(void **from, void *to) {
    swapcontext(static_cast<ucontext_t *>(*from), static_cast<ucontext_t *>(to));
}

void *fiber_prepare(unsigned char *low, size_t bytes, void (*entry)()) {
    const uintptr_t top = ((uintptr_t)(low + bytes) - sizeof(ucontext_t)) & ~(uintptr_t)63;
    ucontext_t *context = reinterpret_cast<ucontext_t *>(top);
    getcontext(context);
    context->uc_stack.ss_sp = low;
    context->uc_stack.ss_size = top - (uintptr_t)low;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}

void *fiber_adopt() { return new ucontext_t(); }

#elif defined(__x86_64__)

/* from: rdi, to: rsi. Callee-saved: rbp rbx r12-r15; the control words are never
 * changed by kernels. */
__asm__(".text\n"
        ".p2align 6\n"
        ".globl simt_fiber_switch\n"
        ".type simt_fiber_switch,@function\n"
        "simt_fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    jmp *%rcx\n"
        ".size simt_fiber_switch,.-simt_fiber_switch\n");

void *fiber_prepare(unsigned char *low, size_t bytes, void (*entry)()) {
    uintptr_t *top = reinterpret_cast<uintptr_t *>((uintptr_t)(low + bytes) & ~(uintptr_t)15);
    *--top = 0; /* entry's return address: none. It also gives entry the alignment a call would */
    *--top = (uintptr_t)entry;
    for (int i = 0; i < 6; i++) *--top = 0;
    return top;
}

void *fiber_adopt() { return nullptr; }

#else /* __aarch64__ */

/* from: x0, to: x1. Callee-saved: x19-x30 and the low halves of v8-v15. */
__asm__(".text\n"
        ".p2align 6\n"
        ".globl simt_fiber_switch\n"
        ".type simt_fiber_switch,%function\n"
        "simt_fiber_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    br x30\n"
        ".size simt_fiber_switch,.-simt_fiber_switch\n");

void *fiber_prepare(unsigned char *low, size_t bytes, void (*entry)()) {
    uintptr_t *top = reinterpret_cast<uintptr_t *>((uintptr_t)(low + bytes) & ~(uintptr_t)15) - 20;
    for (int i = 0; i < 20; i++) top[i] = 0;
    top[11] = (uintptr_t)entry; /* x30 */
    return top;
}

void *fiber_adopt() { return nullptr; }

#endif

size_t page_bytes() {
    static const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}

/* Deepest use seen in kernels: 8 KB, 16 KB on error paths; AddressSanitizer's frames are larger. */
#ifdef SIMT_ASAN
static const size_t STACK_BYTES = 256 * 1024;
#else
static const size_t STACK_BYTES = 64 * 1024;
#endif

bool fiber_stack_new(fiber_stack *stack) {
    const size_t guard = page_bytes() > 16384 ? page_bytes() : 16384;
    void *map = mmap(nullptr, guard + STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return false;
    if (mprotect(map, guard, PROT_NONE)) {
        munmap(map, guard + STACK_BYTES);
        return false;
    }
    unsigned char *low = static_cast<unsigned char *>(map) + guard;
    *stack = {low, STACK_BYTES, guard};
    (void)VALGRIND_STACK_REGISTER(low, low + STACK_BYTES);
    return true;
}

bool fiber_stack_guards(const fiber_stack *stack, const void *address) {
    const unsigned char *p = static_cast<const unsigned char *>(address);
    return stack->low && p < stack->low && p >= stack->low - stack->guard;
}

} // namespace simt

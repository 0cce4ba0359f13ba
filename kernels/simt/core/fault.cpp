/* fault - a kernel thread touched memory it may not, divided by zero or trapped: say which one and
 * where. The handler runs on a stack of its own (the thread's may be the problem), keeps the error,
 * and leaves the block by switching to the scheduler: the run goes on with the next launch. */
/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

#include "kernels/simt/core/block.h"
#include "kernels/simt/core/buffers.h"

namespace simt {

static const int fault_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
static struct sigaction previous[64];

static const char *access_name(const void *context) {
#if defined(__x86_64__) && defined(__linux__)
    const ucontext_t *u = static_cast<const ucontext_t *>(context);
    return u->uc_mcontext.gregs[REG_ERR] & 2 ? "write" : "read";
#else
    (void)context;
    return "access";
#endif
}

static void append_address(error_line *line, const block *b, const unsigned char *p, const char *access) {
    const fiber_stack *stack = &b->cold[self->linear].stack;
    const host_buffer *buffer = buffer_nearest(p);
    if (fiber_stack_guards(stack, p))
        error_append(line, "stack overflow: a thread's local variables and calls may take %zu KiB",
                     stack->bytes / 1024);
    else if ((uintptr_t)p < 65536)
        error_append(line, "%s through a null pointer (address %p)", access, p);
    else if (p >= b->shared_map && p < b->shared_map + shared_map_bytes())
        error_append(line, "%s outside dynamic shared memory: offset %td of %zu bytes", access, p - b->shared,
                     b->shared_bytes);
    else if (!buffer)
        error_append(line, "%s at address %p, which is in no buffer", access, p);
    else if (buffer->sealed && p >= buffer->data && p < buffer->data + buffer->bytes)
        error_append(line, "%s to %s, an input: offset %td of %zu bytes", access, buffer->name,
                     p - buffer->data, buffer->bytes);
    else
        error_append(line, "%s outside every buffer; nearest is %s: offset %td of %zu bytes, guard %zu",
                     access, buffer->name, p - buffer->data, buffer->bytes, buffer->guard);
}

static void keep_fault(block *b, int number, const unsigned char *address, const void *context) {
    error_line line = {};
    const fiber *f = self_fiber();
    if (number == SIGSEGV || number == SIGBUS)
        append_address(&line, b, address, access_name(context));
    else
        error_append(&line, number == SIGFPE ? "integer division by zero or overflow" : "trap");
    error_append(&line, " (");
    error_append_where(&line, b, f);
    if (f->waits_in)
        error_append(&line, ", after %s at %s:%d)", f->waits_in, f->at.file, f->at.line);
    else
        error_append(&line, ", before its first synchronisation)");
    error_keep(b, &line);
}

static void on_fault(int number, siginfo_t *info, void *context) {
    block *b = running;
    if (!b || !self) { /* not a kernel's: whoever was there before us meets it again */
        sigaction(number, &previous[number], nullptr);
        return;
    }
    keep_fault(b, number, static_cast<const unsigned char *>(info->si_addr), context);
    abandon(b);
}

static void install_alternate_stack() {
    stack_t stack = {};
    if (sigaltstack(nullptr, &stack) == 0 && !(stack.ss_flags & SS_DISABLE))
        return; /* a sanitizer's will do */
    stack.ss_flags = 0;
    stack.ss_size = 65536;
    stack.ss_sp = malloc(stack.ss_size);
    if (stack.ss_sp) sigaltstack(&stack, nullptr);
}

void fault_handler_install() {
    static __thread bool stack_installed;
    if (!stack_installed) install_alternate_stack();
    stack_installed = true;
    static const bool handler_installed = [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags =
            SA_SIGINFO | SA_ONSTACK | SA_NODEFER; /* we leave without returning: block nothing */
        sigemptyset(&action.sa_mask);
        for (const int number : fault_signals) sigaction(number, &action, &previous[number]);
        return true;
    }();
    (void)handler_installed;
}

} // namespace simt

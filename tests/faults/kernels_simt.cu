/* kernels_simt - what only C++ does: an exception, and kernels of the executor that do not end well. */
/* SPDX-License-Identifier: MIT */
#include <cstdint>
#include <cstdlib>

#include "kernels/lang/kernel.cuh"

namespace {

volatile uintptr_t nowhere = 16; // no compiler knows what it is

__global__ void bad_kernel(const int how) {
    if (threadIdx.x != 3) return;
    if (how == 0) *(volatile int *)nowhere = 1;
    if (how == 2) exit(0);
    for (volatile int i = 0; how == 1; i = 0) (void)i;
}

} // namespace

extern "C" const char *fault_throw() { throw 42; }

extern "C" const char *fault_simt(void *stream, int how) {
    return LAUNCH(bad_kernel, dim3(1), dim3(32), 0, stream, how);
}

/* conformance_record - what does a device make of every conformance case? One line a case: name,
 * words of output, hash of their bits. fixtures/golden/instructions_h200.txt is its output on an
 * H200; with a second argument all output words go to that file, for the case that lines differ.
 *
 *   conformance_record host|cuda [FILE [CASE]] */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device/device.h"
#include "tests/kernels/conformance.h"

static void must(struct status s) {
    if (s.code == STATUS_OK) return;
    fprintf(stderr, "conformance_record: %s\n", s.message);
    exit(2);
}

static void record(struct device *device, const struct conformance *c, const struct device_buffer *in,
                   FILE *all) {
    struct device_buffer out;
    conformance_launch *launch = conformance_host;
#ifdef SHARDCHECK_CUDA
    if (device_kind_of(device) == DEVICE_CUDA) launch = conformance_cuda;
#endif
    must(device_alloc(device, "out", c->words * sizeof(uint32_t), 1024, &out));
    const char *refused = launch(c, in->data, out.data, device_stream(device));
    if (refused) {
        fprintf(stderr, "conformance_record: %s: %s\n", c->name, refused);
        exit(2);
    }
    must(device_sync(device));
    must(device_pull(device, &out));
    printf("%s\t%zu\t%016llx\n", c->name, c->words, (unsigned long long)conformance_hash(out.host, c->words));
    if (all) fwrite(out.host, sizeof(uint32_t), c->words, all);
    device_free(device, &out);
}

int main(int argc, char **argv) {
    static struct conformance_input input;
    const int cuda = argc > 1 && !strcmp(argv[1], "cuda");
    struct device *device;
    struct device_buffer in;
    if (argc < 2 || (!cuda && strcmp(argv[1], "host"))) {
        fprintf(stderr, "usage: conformance_record host|cuda [FILE [CASE]]\n");
        return 2;
    }
    must(device_open(cuda ? DEVICE_CUDA : DEVICE_HOST, &device));
    must(device_alloc(device, "in", sizeof input, 1024, &in));
    conformance_fill(&input);
    memcpy(in.host, &input, sizeof input);
    must(device_push(device, &in));
    FILE *all = argc > 2 ? fopen(argv[2], "wb") : NULL;
    printf("# %s\n", device_label(device));
    for (const struct conformance *c = conformance_cases; c->name; c++)
        if (argc < 4 || !strcmp(argv[3], c->name)) record(device, c, &in, all);
    if (all) fclose(all);
    device_free(device, &in);
    device_close(device);
    return 0;
}

#!/usr/bin/env python3
"""How fast are the libraries that people use?  The shapes of bench/kernels by PyTorch: scaled_dot_product_attention
through cuDNN and FlashAttention-2, torch._grouped_mm (CUTLASS) and one cuBLAS product per expert. Lines as bench/kernels
prints them. A time is the better of two ways to measure: triton's do_bench (cold cache, median) and warm calls one after
another, as bench/kernels does it; the comparison never favours our kernels by the clock.

  bench/peers.py [attention|moe ...]     SPDX-License-Identifier: MIT
"""
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention, silu
from triton.testing import do_bench

# heads, kv heads, head dim; then (sequences, keys of each[, queries of each: 1 in decode])
HEADS = [(32, 8, 64), (64, 8, 128)]
PREFILL = [(8, 1024), (2, 4096), (1, 16384)]
DECODE = [(64, 4096), (32, 16384), (1, 131072), (32, 4096, 4)]
BACKENDS = [("torch_cudnn", SDPBackend.CUDNN_ATTENTION), ("torch_flash2", SDPBackend.FLASH_ATTENTION)]
TOKENS = [64, 512, 4096, 16384]
EXPERTS, TOP_K, HIDDEN, WIDTH = 64, 6, 2048, 2048  # Param2-17B
MEASURE_SECONDS, WARM_CALLS, MIN_CALLS, MAX_CALLS = 0.3, 3, 20, 500


def random(*shape, deviation=1.0):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * deviation


def warm_ms(call):
    def seconds(calls):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    once = seconds(WARM_CALLS)
    return 1e3 * seconds(min(max(MIN_CALLS, int(MEASURE_SECONDS / once)), MAX_CALLS))


def report(name, shape, call, work, unit):
    """work: operations in 1e12 for TFLOP/s, bytes in 1e9 for GB/s. A back end that refuses the call is a comment."""
    try:
        call()
        ms = min(do_bench(call, warmup=50, rep=300, return_mode="median"), warm_ms(call))
        print(f"bench {name} {shape}: {ms:.4g} ms {work / ms * 1e3:.4g} {unit}", flush=True)
    except (RuntimeError, AttributeError) as error:
        print(f"# {name} does not take {shape}: {str(error).splitlines()[0][:120]}", flush=True)


def attention():
    for heads, kv_heads, dim in HEADS:
        for phase, sizes in (("prefill", PREFILL), ("decode", DECODE)):
            for seqs, keys, *queries in sizes:
                prefill = phase == "prefill"
                q = random(seqs, heads, keys if prefill else (queries or [1])[0], dim)
                k, v = random(seqs, kv_heads, keys, dim), random(seqs, kv_heads, keys, dim)
                work = 2e-12 * seqs * keys * keys * heads * dim if prefill else 4e-9 * seqs * keys * kv_heads * dim
                shape = f"{phase} H{heads} G{kv_heads} D{dim} B{seqs} S{keys}" + "".join(f" Q{n}" for n in queries)
                for name, backend in BACKENDS:
                    with sdpa_kernel(backend):
                        report(name, shape,
                               lambda: scaled_dot_product_attention(q, k, v, is_causal=prefill, enable_gqa=True),
                               work, "TFLOP/s" if prefill else "GB/s")


def moe():
    w1 = random(EXPERTS, HIDDEN, 2 * WIDTH, deviation=0.02)
    w2 = random(EXPERTS, WIDTH, HIDDEN, deviation=0.02)
    for tokens in TOKENS:
        rows = tokens * TOP_K
        x = random(rows, HIDDEN)
        counts = torch.bincount(torch.randint(0, EXPERTS, (rows,)), minlength=EXPERTS)
        offsets = torch.cumsum(counts, 0).to(torch.int32).cuda()
        counts = counts.tolist()

        def grouped():
            gate, up = torch._grouped_mm(x, w1, offs=offsets).chunk(2, -1)
            return torch._grouped_mm(silu(gate) * up, w2, offs=offsets)

        def loop():
            row = 0
            for expert, count in enumerate(counts):
                if count:
                    gate, up = (x[row:row + count] @ w1[expert]).chunk(2, -1)
                    (silu(gate) * up) @ w2[expert]
                row += count

        shape = f"moe T{tokens} E{EXPERTS} K{TOP_K} M{HIDDEN} F{WIDTH}"
        for name, call in (("torch_grouped_mm", grouped), ("cublas_loop", loop)):
            report(name, shape, call, 6e-12 * rows * HIDDEN * WIDTH, "TFLOP/s")


def main():
    parts = {"attention": attention, "moe": moe}
    wanted = sys.argv[1:] or list(parts)
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        sys.exit(f"bench/peers.py: {unknown[0]}: use attention or moe")
    torch.manual_seed(0)
    print(f"# {torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name in wanted:
        parts[name]()


if __name__ == "__main__":
    main()

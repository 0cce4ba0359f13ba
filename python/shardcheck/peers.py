"""Times the libraries that people use, for `shardcheck bench`, which starts this: one JSON object a line on standard
input, one in return on standard output.

  {"hello": "cuda"}                                    {"peers": "torch 2.11.0, flashinfer 0.6"} or {"none": "why"}
  {"shape": {"family": "decode", "heads": 32, ...}}    {"peers": [{"name": "flashinfer"}, {"name": .., "refused": "why"}]}
  {"round": "flashinfer", "cache": "cold",             {"seconds": [0.001, ...]} or {"failed": "why"}
   "launches": 6, "flush_bytes": 268435456}

A round is as the other side does it: the cache emptied before every launch, or one launch that is not timed and the
others behind it, each between two marks of the device's own clock. Every call is tried as it is and captured in a graph,
and is timed in the faster of the two ways: what the interpreter costs is nobody's speed.

After some errors a CUDA device answers nothing more in the process that made them. It is then run anew, without the
peer that was at work, and goes on where it was.
"""

# SPDX-License-Identifier: MIT
import json
import os
import sys
import time

PAGE = 16
RESUME = "SHARDCHECK_PEERS_RESUME"  # in the environment of a process that is run anew: what it goes on with, as JSON
FAMILIES = {}  # name -> function that yields (name, function without arguments) of a shape


# ---- the clocks ----


class Cuda:
    """Marks are events in the stream."""

    name = "cuda"

    def __init__(self, torch):
        self.torch = torch
        self.flushed = None

    def mark(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self):
        self.torch.cuda.synchronize()

    def seconds(self, begin, end):
        return 1e-3 * begin.elapsed_time(end)

    def lost(self):
        try:
            self.wait()
            return False
        except Exception:
            return True

    def captured(self, call):
        """The call as a graph, or None."""
        try:
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph):
                call()
            graph.replay()
            self.wait()
            return graph.replay
        except Exception:  # whatever a library says to being captured
            return None


class Cpu:
    """Calls have ended when they return."""

    name = "cpu"

    def __init__(self, torch):
        self.torch = torch
        self.flushed = None

    def mark(self):
        return time.perf_counter()

    def wait(self):
        pass

    def seconds(self, begin, end):
        return end - begin

    def lost(self):
        return False

    def captured(self, call):
        return None


def one_round(clock, call, cold, launches, flush_bytes):
    if cold and (clock.flushed is None or clock.flushed.numel() != flush_bytes):
        clock.flushed = clock.torch.empty(flush_bytes, dtype=clock.torch.uint8, device=clock.name)
    marks = []
    if not cold:
        call()
    for _ in range(launches):
        if cold:
            clock.flushed.zero_()
        begin = clock.mark()
        call()
        marks.append((begin, clock.mark()))
    clock.wait()
    return [clock.seconds(begin, end) for begin, end in marks]


def faster_way(clock, call):
    ways = [call, clock.captured(call)]
    return min((way for way in ways if way), key=lambda way: min(one_round(clock, way, False, 3, 0)))


# ---- who there is ----


def random(clock, *shape, deviation=1.0):
    torch = clock.torch
    return torch.randn(*shape, device=clock.name, dtype=torch.bfloat16) * deviation


def sdpa(clock, s, causal):
    """PyTorch's attention, by back end; keys lie one after another, without pages. Of several queries all see all
    keys unless there are as many (its causal mask begins at the first key)."""
    import contextlib

    from torch.nn.functional import scaled_dot_product_attention

    q = random(clock, s["seqs"], s["heads"], s["queries"], s["dim"])
    k = random(clock, s["seqs"], s["kv"], s["keys"], s["dim"])
    v = random(clock, s["seqs"], s["kv"], s["keys"], s["dim"])

    def attend():
        return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    if clock.name == "cpu":
        return [("torch_sdpa", contextlib.nullcontext, attend)]
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return [("torch_cudnn", lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION), attend),
            ("torch_flash2", lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION), attend)]


def paged(clock, s):
    """Keys and values in pages of our size, in an order without a pattern: q, (k, v), and the tables."""
    torch = clock.torch
    pages = (s["keys"] + PAGE - 1) // PAGE
    q = random(clock, s["seqs"] * s["queries"], s["heads"], s["dim"])
    k, v = (random(clock, s["seqs"] * pages, PAGE, s["kv"], s["dim"]) for _ in range(2))
    start = torch.arange(s["seqs"] + 1, dtype=torch.int32)
    order = torch.randperm(s["seqs"] * pages).to(torch.int32).to(clock.name)
    last = torch.full((s["seqs"],), (s["keys"] - 1) % PAGE + 1, dtype=torch.int32)
    return q, (k, v), start, start * pages, order, last


def flashinfer_attention(clock, s, wrapper, plan):
    """A wrapper of FlashInfer's, planned by `plan(wrapper, tables...)` when it is first called: until then it costs
    nothing, and what it does not like is its own refusal."""
    import flashinfer

    workspace = clock.torch.empty(256 << 20, dtype=clock.torch.uint8, device=clock.name)
    q, cache, start, page_start, order, last = paged(clock, s)
    made = wrapper(flashinfer, workspace)
    dtypes = {"q_data_type": q.dtype, "kv_data_type": q.dtype}
    sizes = (s["heads"], s["kv"], s["dim"], PAGE)
    plan(made, [table.to(clock.name) for table in (start * s["queries"], page_start, order, last)], sizes, dtypes)
    return lambda: made.run(q, cache)


def flashinfer_prefill(clock, s, backend):
    return flashinfer_attention(
        clock, s, lambda library, space: library.BatchPrefillWithPagedKVCacheWrapper(space, "NHD", backend=backend),
        lambda made, tables, sizes, dtypes: made.plan(*tables, *sizes, causal=True, **dtypes))


def flashinfer_decode(clock, s):
    return flashinfer_attention(
        clock, s, lambda library, space: library.BatchDecodeWithPagedKVCacheWrapper(space, "NHD", use_tensor_cores=True),
        lambda made, tables, sizes, dtypes: made.plan(*tables[1:], *sizes, **dtypes))


def prefill(clock, s):
    for name, context, attend in sdpa(clock, s, causal=True):
        yield name, context, lambda attend=attend: attend
    if clock.name == "cuda":
        for backend in ("fa3", "fa2"):
            yield f"flashinfer_{backend}", None, lambda backend=backend: flashinfer_prefill(clock, s, backend)


def decode(clock, s):
    for name, context, attend in sdpa(clock, s, causal=False):
        yield name, context, lambda attend=attend: attend
    if clock.name == "cuda":
        if s["queries"] == 1:
            yield "flashinfer_decode", None, lambda: flashinfer_decode(clock, s)
        for backend in ("fa3", "fa2"):
            yield f"flashinfer_{backend}", None, lambda backend=backend: flashinfer_prefill(clock, s, backend)


def experts(clock, s):
    """Rows are sorted by expert; as many of each as the other side has."""
    torch = clock.torch
    from torch.nn.functional import silu

    counts = s["rows_of_expert"]
    x = random(clock, sum(counts), s["hidden"])
    w1 = random(clock, s["experts"], s["hidden"], 2 * s["width"], deviation=0.02)
    w2 = random(clock, s["experts"], s["width"], s["hidden"], deviation=0.02)
    offsets = torch.cumsum(torch.tensor(counts), 0).to(torch.int32).to(clock.name)

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

    yield "torch_grouped_mm", None, lambda: grouped
    yield "torch_loop", None, lambda: loop


def dense(clock, s):
    x, w = random(clock, s["rows"], s["inner"]), random(clock, s["cols"], s["inner"], deviation=0.02)
    yield "torch_matmul", None, lambda: lambda: x @ w.T


FAMILIES = {"prefill": prefill, "decode": decode, "experts": experts, "dense": dense}


# ---- the conversation ----


class Peers:
    def __init__(self, out):
        self.out = out
        self.clock = None
        self.shape_is = None
        self.without = {}  # of the shape: name -> why
        self.calls = {}  # of the shape: name -> function

    def hello(self, device):
        import torch

        torch.manual_seed(0)
        if device == "cuda" and not torch.cuda.is_available():
            return {"none": "torch finds no CUDA device"}
        self.clock = Cuda(torch) if device == "cuda" else Cpu(torch)
        known = [f"torch {torch.__version__}"]
        try:
            import flashinfer

            known.append(f"flashinfer {flashinfer.__version__}")
        except Exception:  # not there, or not for this torch
            pass
        return {"peers": ", ".join(known)}

    def shape(self, s, without, answered=False):
        self.shape_is, self.without = s, without
        self.calls.clear()
        if self.clock.name == "cuda":
            self.clock.torch.cuda.empty_cache()
        found = []
        for name, context, make in FAMILIES[s["family"]](self.clock, s):
            try:
                if name not in without:
                    self.calls[name] = self.tried(context, make)
            except Exception as error:  # whatever a library says to a shape that it does not take
                without[name] = one_line(error)
                self.anew_if_lost(answered)
            found.append({"name": name} | ({"refused": without[name]} if name in without else {}))
        return {"peers": found}

    def anew_if_lost(self, answered):
        """`answered`: the other side has heard of the shape."""
        if not self.clock.lost():
            return
        os.environ[RESUME] = json.dumps({"device": self.clock.name, "shape": self.shape_is, "without": self.without,
                                         "answered": answered})
        os.dup2(self.out.fileno(), 1)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def resume(self, state):
        self.hello(state["device"])
        answer = self.shape(state["shape"], state["without"], state["answered"])
        return None if state["answered"] else answer

    def tried(self, context, make):
        """In its context, the call that was tried."""
        call = make()

        def within():
            with context():
                return call()

        chosen = within if context else call
        chosen()
        self.clock.wait()
        return faster_way(self.clock, chosen)

    def round(self, request):
        name = request["round"]
        if name in self.without:
            return {"failed": self.without[name]}
        seconds = one_round(self.clock, self.calls[name], request["cache"] == "cold", request["launches"],
                            request["flush_bytes"])
        return {"seconds": seconds}

    def answer(self, request):
        if "hello" in request:
            return self.hello(request["hello"])
        return self.shape(request["shape"], {}) if "shape" in request else self.round(request)

    def say(self, answer):
        print(json.dumps(answer), file=self.out, flush=True)

    def hear(self, request):
        try:
            self.say(self.answer(request))
        except Exception as error:
            self.say({"none" if "hello" in request else "failed": one_line(error)})
            if "round" in request and self.clock:
                self.without[request["round"]] = one_line(error)
                self.anew_if_lost(True)


def one_line(error):
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def main():
    """What libraries print goes to standard error: standard output is the conversation's."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peers = Peers(out)
    state = os.environ.pop(RESUME, None)
    if state:
        answer = peers.resume(json.loads(state))
        if answer:
            peers.say(answer)
    for line in sys.stdin:
        peers.hear(json.loads(line))


if __name__ == "__main__":
    main()

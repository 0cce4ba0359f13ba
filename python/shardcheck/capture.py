"""Which tensors did every module of these layers get and give, on this rank?

One safetensors file a step and rank. A step is one pass through the layers. In the file:

    MODULE.input.0, MODULE.input.NAME   arguments by position or keyword, copied before the module
                                        ran: rope in place and fused add + norm change them
    MODULE.output.0, MODULE.output.NAME what it gave; tuples, dicts, dataclasses: one name a leaf
    batch.FIELD                         how the rows fall into sequences, where the server tells

A module called again within a step is MODULE.call1, MODULE.call2 ... Metadata: format, producer and its
version, tp_rank, tp_size (ep_, pp_, dp_ where they are more than one), step, dtype, attention and device
(what computed), config_json; stride.NAME of a tensor that was not packed, in elements (the file holds it
packed); quantised.MODULE and unstored.NAME with their reasons."""

# SPDX-License-Identifier: MIT
import atexit
import collections
import json
import os
import re
import sys

from . import producers
from .flatten import fields, is_dataclass, leaves
from .modules import choose_layers, following_norm, names_of, quantised, refuse_compiled

FORMAT = "shardcheck-capture-1"
EAGER = (
    "hooks do not run in compiled code or CUDA graphs: start vLLM with enforce_eager=True, SGLang with "
    "--disable-cuda-graph, others without torch.compile"
)
# What a safetensors file can hold, by torch's names.
STORABLE = frozenset(
    "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64 "
    "float8_e4m3fn float8_e5m2".split()
)


class capture:
    """Hooks the layers of `model` at once, and takes the hooks away when `steps` steps are stored, at
    close() or at the end of `with`.

    folder     gets rankR.safetensors, or rankR.stepS.safetensors where steps > 1
    layers     indices of decoder layers, such as [0, 1]; None: all
    overwrite  remove this rank's files of an earlier capture; without it they are an error
    prefix     the list of layers ("model.layers"), where a model has several
    root       what the model is called in its whole ("model."), where it is a part
    config     the configuration (a dict, or with to_dict), where model.config is none
    tp_rank, tp_size   where the process cannot tell them

    files: the paths written so far."""

    def __init__(
        self,
        model,
        folder,
        *,
        layers=None,
        steps=1,
        overwrite=False,
        prefix=None,
        root="",
        config=None,
        tp_rank=None,
        tp_size=None,
    ):
        if steps < 1:
            raise ValueError(f"steps={steps}: at least 1 is stored")
        refuse_compiled(model, EAGER)
        producer = producers.of(model)
        self.ranks = producers.ranks(producer, model, tp_rank, tp_size)
        self.base = f"rank{self.ranks['tp_rank']}" + "".join(
            f".{kind}{self.ranks[kind + '_rank']}" for kind in ("pp", "dp") if kind + "_rank" in self.ranks
        )
        self.batch = producer.batch
        self.folder, self.steps, self.files, self.handles = os.fspath(folder), steps, [], []
        chosen = choose_layers(model, layers, prefix)
        after = following_norm(model, chosen)
        self.names = names_of(model, chosen + after, root)
        self.layers = {root + name for name in chosen}
        self.first, self.last = root + chosen[0], root + (chosen + after)[-1]
        self.constant = self._describe(producer, model, config)
        self._claim_folder(overwrite)
        self._new_step()
        self.tensors = None  # until the first layer is entered
        for module in self.names:
            self.handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self.handles.append(module.register_forward_hook(self._after))
        atexit.register(self._at_exit)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:  # the exception of the pass is the one to see; half a step is not written
            self._unhook()

    def close(self):
        """Takes the hooks away; the files. That no layer ran is an error."""
        if self.handles:
            self._end_step()
        self._unhook()
        if not self.files:
            raise RuntimeError(f"{self.folder}: nothing was captured, no layer ran; {EAGER}")
        return self.files

    # ---- hooks ----

    def _before(self, module, args, kwargs):
        if _unseen():
            return
        name = self._name(module)
        if name == self.first:
            self._end_step()
            if not self.handles:
                return
            self._new_step()
            self._store_batch([*args, *kwargs.values()])
        if self.tensors is None or not (self.running or name in self.layers or name == self.last):
            return  # a module that is shared with layers that were not chosen
        if name in self.layers:
            self.layer = name
        calls, self.calls[name] = self.calls[name], self.calls[name] + 1
        name += f".call{calls}" if calls else ""
        self.running.append((module, name))
        given = [*enumerate(args), *kwargs.items()]
        for path, tensor in leaves({key: value for key, value in given if not is_dataclass(value)}):
            self._store(f"{name}.input.{path}", tensor)

    def _after(self, module, _, output):
        while self.running:  # what lies above raised an exception that somebody caught
            top, name = self.running.pop()
            if top is module:
                for path, tensor in leaves(output):
                    self._store(f"{name}.output.{path}", tensor)
                if name == self.last:
                    self._end_step()
                return

    def _name(self, module):
        """A shared module bears the name that it has in the layer that runs."""
        names = self.names[module]
        return next((name for name in names if self.layer and name.startswith(self.layer + ".")), names[0])

    # ---- one step ----

    def _new_step(self):
        self.tensors, self.notes, self.calls = {}, {}, collections.Counter()
        self.running, self.layer = [], None

    def _store(self, name, tensor):
        tensor = tensor.detach()
        tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # DTensor: this rank's part
        why = _unstorable(tensor)
        if why:
            self.notes[f"unstored.{name}"] = why
            return
        if not tensor.is_contiguous():
            self.notes[f"stride.{name}"] = json.dumps(tensor.stride())
        self.tensors[name] = tensor.to("cpu", copy=True).contiguous()

    def _store_batch(self, given):
        """Dataclasses that every layer gets describe the batch: stored once, tensors only."""
        found = dict(self.batch())
        for value in filter(is_dataclass, given):
            found.update(fields(value))
        for path, tensor in leaves({key: value for key, value in found.items() if not is_dataclass(value)}):
            self._store(f"batch.{path}", tensor)

    def _end_step(self):
        """Writes the step if there is one, but none that an exception ended. A file appears whole or not
        at all."""
        from safetensors.torch import save_file

        if not self.tensors or self.running:
            return
        step = len(self.files)
        name = self.base + (f".step{step}" if self.steps > 1 else "") + ".safetensors"
        path, now = os.path.join(self.folder, name), os.path.join(self.folder, f".{name}.{os.getpid()}")
        try:
            with open(now, "wb") as file:
                mode = os.fstat(
                    file.fileno()
                ).st_mode  # as the umask has it; save_file lets the owner read only
            save_file(self.tensors, now, {**self.constant, **self.notes, "step": str(step)})
            os.chmod(now, mode)
            os.replace(now, path)
        except BaseException:
            if os.path.exists(now):
                os.remove(now)
            raise
        self.files.append(path)
        self.tensors, self.running = None, []
        if len(self.files) == self.steps:
            self._unhook()

    # ---- around the steps ----

    def _describe(self, producer, model, config):
        config = config if config is not None else getattr(model, "config", None)
        known = {
            "format": FORMAT,
            "producer": producer.name,
            "producer_version": producers.version(producer),
            "torch_version": producers.version(producers.PRODUCERS[-1]),
            "attention": producer.attention(model),
            "device": _device(model),
            "dtype": next(
                (str(p.dtype).rpartition(".")[2] for p in model.parameters() if p.is_floating_point()), ""
            ),
            "config_json": _config_json(config),
            **self.ranks,
            **{
                f"quantised.{name}": quantised(module)
                for module, names in self.names.items()
                for name in names
            },
        }
        return {key: str(value) for key, value in known.items() if value or value == 0}

    def _claim_folder(self, overwrite):
        os.makedirs(self.folder, exist_ok=True)
        mine = re.compile(re.escape(self.base) + r"(\.step\d+)?\.safetensors")
        for name in sorted(filter(mine.fullmatch, os.listdir(self.folder))):
            path = os.path.join(self.folder, name)
            if not overwrite:
                raise FileExistsError(f"{path} is there already; take another folder, or overwrite=True")
            os.remove(path)

    def _unhook(self):
        for handle in self.handles:
            handle.remove()
        self.handles, self.tensors = [], None
        atexit.unregister(self._at_exit)

    def _at_exit(self):
        if not self.files:
            print(f"shardcheck: {self.folder}: nothing was captured, no layer ran; {EAGER}", file=sys.stderr)


def _unseen():
    """While code is compiled or a CUDA graph recorded a hook sees no values."""
    import torch

    return torch.compiler.is_compiling() or (
        torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    )


def _device(model):
    """What computed: kernels for a CPU round otherwise with other vector instructions."""
    import torch

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def _unstorable(tensor):
    import torch

    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        return f"{tensor.layout} on {tensor.device}"
    kind = str(tensor.dtype).rpartition(".")[2]
    return None if kind in STORABLE else kind


def _config_json(config):
    """The text of config.json, defaults included."""
    if config is None:
        return None
    if hasattr(config, "to_json_string"):
        return config.to_json_string(use_diff=False)
    return json.dumps(config if isinstance(config, dict) else config.to_dict(), indent=1)

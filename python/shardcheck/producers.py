"""Whose model is this, which rank does the process hold, and how do its rows fall into sequences?

One row a producer; a thing that differs between them is here and nowhere else."""

# SPDX-License-Identifier: MIT
import collections
import sys

Producer = collections.namedtuple("Producer", "name groups batch attention")
# name       the package
# groups     model -> {"tp": (rank, size), ...}, or {} where the process cannot tell
# batch      () -> {field: tensor} of the step that is running
# attention  model -> what computes attention, in the producer's words, or None


def of(model):
    """The row whose classes the model is made of."""
    packages = {type(module).__module__.partition(".")[0] for module in model.modules()}
    packages |= {base.__module__.partition(".")[0] for base in type(model).__mro__}
    return next((row for row in PRODUCERS if row.name in packages), PRODUCERS[-1])


def ranks(producer, model, tp_rank, tp_size):
    """{"tp_rank": 0, "tp_size": 2, ...}; groups of one rank are left out, but for tp."""
    groups = producer.groups(model)
    if (tp_rank is None) != (tp_size is None):
        raise ValueError("tp_rank and tp_size are given both or not at all")
    if tp_rank is not None:
        groups["tp"] = (tp_rank, tp_size)
    if "tp" not in groups:
        if _world_size() > 1:
            raise ValueError(
                f"{_world_size()} processes, and nothing says which rank this is; give tp_rank= and tp_size="
            )
        groups["tp"] = (0, 1)
    if not 0 <= groups["tp"][0] < groups["tp"][1]:
        raise ValueError("tp_rank={}, tp_size={}: a rank is 0 to tp_size - 1".format(*groups["tp"]))
    found = {}
    for kind, (rank, size) in groups.items():
        if size > 1 or kind == "tp":
            found[kind + "_rank"], found[kind + "_size"] = rank, size
    return found


def version(producer):
    return str(getattr(sys.modules.get(producer.name), "__version__", "unknown"))


def _world_size():
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


# ---- vLLM ----


def _vllm_groups(model):
    from vllm.distributed import parallel_state

    found = {}
    for kind in ("tp", "pp", "dp"):
        group = getattr(parallel_state, f"get_{kind}_group")()
        found[kind] = (group.rank_in_group, group.world_size)
    for module in model.modules():  # the group of all ranks exists without expert parallelism, too
        parallel = getattr(getattr(module, "moe_config", None), "moe_parallel_config", None)
        if getattr(parallel, "use_ep", False):
            found["ep"] = (parallel.ep_rank, parallel.ep_size)
    return found


def _vllm_batch():
    from vllm import forward_context

    if not forward_context.is_forward_context_available():
        return {}
    metadata = forward_context.get_forward_context().attn_metadata
    if not isinstance(metadata, dict) or not metadata:
        return {}
    metadata = next(iter(metadata.values()))
    return {
        field: getattr(metadata, field, None)
        for field in ("query_start_loc", "seq_lens", "slot_mapping", "block_table")
    }


def _vllm_attention(model):
    return next((type(module.impl).__name__ for module in model.modules() if hasattr(module, "impl")), None)


# ---- SGLang: its ForwardBatch is an argument of every layer ----


def _sglang_groups(_):
    from sglang.srt import distributed

    found = {}
    for kind, name in (
        ("tp", "tensor_model_parallel"),
        ("ep", "moe_expert_parallel"),
        ("pp", "pipeline_model_parallel"),
    ):
        rank = getattr(distributed, f"get_{name}_rank", None)
        size = getattr(distributed, f"get_{name}_world_size", None)
        if rank and size:
            found[kind] = (rank(), size())
    return found


# ---- transformers ----


def _transformers_groups(model):
    mesh = getattr(model, "_device_mesh", None) or getattr(model, "device_mesh", None)
    if mesh is None:
        return {}
    mesh = mesh["tp"] if mesh.ndim > 1 else mesh
    return {"tp": (mesh.get_local_rank(), mesh.size())}


def _transformers_attention(model):
    return getattr(model.config, "_attn_implementation", None)


def _nothing(*_):
    return {}


PRODUCERS = (
    Producer(name="vllm", groups=_vllm_groups, batch=_vllm_batch, attention=_vllm_attention),
    Producer(name="sglang", groups=_sglang_groups, batch=_nothing, attention=_nothing),
    Producer(
        name="transformers", groups=_transformers_groups, batch=_nothing, attention=_transformers_attention
    ),
    Producer(name="torch", groups=_nothing, batch=_nothing, attention=_nothing),
)

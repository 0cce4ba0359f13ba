"""Which modules of a model are looked at, and what are they called?"""

# SPDX-License-Identifier: MIT
import re


def choose_layers(model, layers, prefix):
    """Names of the decoder layers with these indices (None: all), in their order. The list of layers is
    the outermost ModuleList; with several of them `prefix` names one."""
    from torch import nn

    lists = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not re.search(r"(^|\.)\d+(\.|$)", name):
            lists[name] = module
    if prefix is None and len(lists) != 1:
        raise ValueError(
            f"{type(model).__name__} has {_listed(lists) if lists else 'no list of layers'}"
            + ("; name one with prefix=" if lists else "; is it the model itself?")
        )
    if prefix is not None and prefix not in lists:
        raise ValueError(
            f"prefix={prefix!r}: {type(model).__name__} has {_listed(lists) or 'no list of layers'}"
        )
    prefix = prefix if prefix is not None else next(iter(lists))
    # vLLM and SGLang fill the places of another pipeline stage's layers with PPMissingLayer.
    here = [i for i, layer in enumerate(lists[prefix]) if type(layer).__name__ != "PPMissingLayer"]
    missing = sorted(set(layers or []) - set(here))
    if missing or not (here if layers is None else layers):
        raise ValueError(
            f"layers={layers}: {prefix} has layers {here[0]} to {here[-1]} in this process"
            if here
            else f"{prefix} has no layers in this process"
        )
    return [f"{prefix}.{i}" for i in here if layers is None or i in layers]


def following_norm(model, chosen):
    """[name] of the norm after the last chosen layer, or []. Where add and norm are fused, the sum that
    leaves the layer exists only there."""
    prefix, last = chosen[-1].rsplit(".", 1)
    above = prefix.rpartition(".")[0]
    here = set(name for name, _ in model.named_modules())
    after = f"{prefix}.{int(last) + 1}"
    name = f"{after}.input_layernorm" if after in here else f"{above}.norm" if above else "norm"
    return [name] if name in here else []


def names_of(model, chosen, root):
    """{module: [names]} of the chosen modules and what is in them. One module may have several names:
    vLLM's rotary_emb is shared by all layers."""
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if any(name == top or name.startswith(top + ".") for top in chosen):
            names.setdefault(module, []).append(root + name)
    return names


def refuse_compiled(model, remedy):
    """Compiled modules run no hooks. vLLM says so in do_not_compile."""
    for name, module in model.named_modules():
        if (
            type(module).__name__ == "OptimizedModule"
            or getattr(module, "_compiled_call_impl", None) is not None
            or getattr(module, "do_not_compile", None) is False
        ):
            raise RuntimeError(f"{name or type(model).__name__} is compiled: {remedy}")


def quantised(module):
    """How the module's own weights are stored if not as plain floating point numbers, else None."""
    method = type(getattr(module, "quant_method", None)).__name__  # vLLM, SGLang
    if method != "NoneType" and not method.startswith("Unquantized"):
        return method
    for weight in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        kind = str(weight.dtype).rpartition(".")[2]
        if kind.startswith("float8") or (weight.dim() >= 2 and not weight.is_floating_point()):
            return kind
    return None


def _listed(lists):
    return ", ".join(f"{name} ({len(module)})" for name, module in lists.items())

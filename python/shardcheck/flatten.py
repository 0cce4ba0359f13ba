"""Which tensors are in what a module got or gave, and what are they called?"""

# SPDX-License-Identifier: MIT
import dataclasses


def leaves(value, path=""):
    """(path, tensor) of every tensor in nested tuples, lists, dicts and dataclasses: "0", "1.key". A
    tensor that stands alone is "0". Objects of other kinds (caches, contexts) are left out."""
    import torch

    if isinstance(value, torch.Tensor):
        yield path or "0", value
    elif isinstance(value, dict):  # transformers' outputs are dicts, too
        yield from _children(value.items(), path)
    elif isinstance(value, (tuple, list)):
        yield from _children(enumerate(value), path)
    elif is_dataclass(value):
        yield from _children(fields(value), path)


def is_dataclass(value):
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def fields(value):
    """(name, value) of a dataclass's own fields."""
    return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]


def _children(pairs, path):
    for key, value in pairs:
        yield from leaves(value, f"{path}.{key}" if path else str(key))

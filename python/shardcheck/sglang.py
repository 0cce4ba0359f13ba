"""Capture in an SGLang server: a hook factory for its --forward-hooks.

    --disable-cuda-graph --forward-hooks '[{"name": "shardcheck", "target_modules": ["model"],
        "hook_factory": "shardcheck.sglang:hook", "hook_type": "forward_pre",
        "config": {"folder": "dump", "layers": [0, 1]}}]'

SGLang calls the model's own forward(), which runs no hooks; `model` inside of it is called as a module."""

# SPDX-License-Identifier: MIT
from .capture import capture


def hook(config):
    """A hook that attaches when `model` is first called, and does nothing from then on. config: options of
    shardcheck.capture; "skip": calls before it attaches (absent: 0), such as those of the server's warm-up.
    Where SGLang knows no hook_type the hook runs after `model`: the first call is then not captured."""
    options = dict(config)
    folder, skip = options.pop("folder"), options.pop("skip", 0)
    options.setdefault("root", "model.")
    seen = []

    def attach(module, *_):
        seen.append(None)
        if len(seen) == skip + 1:
            capture(module, folder, **options)

    return attach

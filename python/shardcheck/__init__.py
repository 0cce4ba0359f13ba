"""Stores what the modules of a torch process got and gave, for `shardcheck judge` (docs/judge.md)."""

# SPDX-License-Identifier: MIT
from .capture import capture

__all__ = ["capture"]

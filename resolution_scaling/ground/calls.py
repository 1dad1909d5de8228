"""Calling a network with example inputs, and finding the tensors in its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch.utils._pytree import tree_map

Forward = Callable[[nn.Module, Any], Any]
"""``(model, inputs)`` -> outputs."""


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Call a model: a mapping is passed as keywords, a tuple or list as positional arguments, else as one input."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def copied(inputs: Any) -> Any:
    """The inputs with copies of their tensors."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, inputs)


def on_copies(forward: Forward) -> Forward:
    """The forward on copies of the inputs, for networks that work in place on them."""
    return lambda model, inputs: forward(model, copied(inputs))


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings, in order."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    return [tensor for branch in tree for tensor in tensors_in(branch)]


def sentence(error: Exception) -> str:
    """The type of an error and the beginning of its text, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__

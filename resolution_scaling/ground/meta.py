"""Copies of a network without its weights, and calling them: shapes go through, no arithmetic is done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

Forward = Callable[[nn.Module, Any], Any]


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Call a model: a mapping as keywords, a tuple or list as positional arguments, anything else as the one input."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def meta_copy(model: nn.Module, *others: Any, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
    """Copy a network, and what refers to it, with tensors that have shapes but no data.

    Args:
        model: the network. Shapes, strides, dtypes, ``requires_grad`` and ties are kept; nothing of it is changed.
            Indices, which are buffers of integers, keep their data too: they are structure, not weights.
        others: example inputs, or options that hold modules and parameters of the network, in any nesting: their
            copies hold those of the copy.
        dtype: of the floating-point tensors of the copies; None keeps theirs.

    Returns:
        ``(model, *others)``, copied.

    Example:
        >>> model, inputs, ignored = meta_copy(model, torch.rand(1, 3, 224, 224), [model.fc])
        >>> ignored[0] is model.fc, inputs.device.type
        (True, 'meta')
    """

    def without_data(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_like(tensor, dtype=dtype, device="meta", requires_grad=False)

    return _copy(without_data, dtype, model, *others)


def fake_copy(
    mode: FakeTensorMode, model: nn.Module, *others: Any, dtype: torch.dtype | None = None
) -> tuple[Any, ...]:
    """As `meta_copy`, with fake tensors: those have no data either, but say that they are on the model's device."""
    devices = [tensor.device for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_meta]
    home = devices[0] if devices else torch.device("cpu")

    def without_data(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        with mode:
            device = home if tensor.is_meta else tensor.device
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)

    return _copy(without_data, dtype, model, *others)


def _copy(without_data: Callable[..., Any], dtype: torch.dtype | None, *originals: Any) -> tuple[Any, ...]:
    def replacement(tensor: torch.Tensor) -> torch.Tensor:
        empty = without_data(tensor, dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(empty, tensor.requires_grad)
        return empty.requires_grad_(tensor.requires_grad)

    model, *others = originals
    held = [leaf for module in model.modules() for leaf in tree_leaves(vars(module))]
    held += [leaf for leaf in tree_leaves(others) if not isinstance(leaf, nn.Module)]
    memo = {id(tensor): replacement(tensor) for tensor in held if _has_weights(tensor)}
    return copy.deepcopy(tuple(originals), memo)


def _has_weights(value: Any) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    return (
        isinstance(value, nn.Parameter) or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in a nesting of tuples, lists and mappings."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    return [tensor for branch in tree for tensor in tensors_in(branch)]


def call_on_meta(model: nn.Module, inputs: Any, forward: Forward = call_model) -> Any:
    """Call a `meta_copy`. Tensors that its forward makes or finds elsewhere are brought to the meta device too.

    Raises:
        ValueError: the network looks at the values of tensors.
    """
    try:
        with on_meta():
            return forward(model, inputs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot run on the meta device, where costs are counted from shapes alone: {error} "
            f"({type(error).__name__}). Its forward (or a hook, or forward_fn) must not look at the values of tensors"
        ) from error


class on_meta(TorchFunctionMode):
    """A context that brings to the meta device what is made there, and what meets a tensor that is there.

    Such are indices, and constants that no module holds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = {tensor.is_meta for tensor in tensors_in((args, kwargs))}
        if len(devices) > 1:
            args, kwargs = tree_map_only(torch.Tensor, lambda t: t if t.is_meta else t.to("meta"), (args, kwargs))
        return func(*args, **kwargs)

    def __enter__(self) -> on_meta:
        self._device = torch.device("meta")
        self._device.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._device.__exit__(*error)

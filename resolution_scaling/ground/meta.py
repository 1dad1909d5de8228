"""Copies of a network without its weights. Calling such a copy computes shapes only."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from .calls import Forward, call_model, tensors_in


def meta_copy(model: nn.Module, *others: Any, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
    """Copy a network, and objects that refer to it, with tensors that have shapes but no data.

    Args:
        model: the network; it is not changed. The copy has the same shapes, strides, dtypes, ``requires_grad`` and
            shared tensors. Integer buffers keep their data, because they are indices, not weights.
        others: example inputs, or options that hold modules and parameters of the network, nested in any way. Their
            copies refer to the copied network.
        dtype: the dtype of floating-point tensors in the copies; None keeps the dtype of each tensor.

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


def with_values(model: nn.Module, *others: Any) -> tuple[Any, ...]:
    """Copy a network on the meta device, and objects that refer to it, with random values on the CPU."""

    def random(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if not tensor.is_meta:
            return tensor.detach().clone()
        values = torch.zeros(tensor.shape, dtype=dtype)
        return values.normal_() if dtype.is_floating_point else values

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _copy(random, None, model, *others)


def fake_copy(
    mode: FakeTensorMode, model: nn.Module, *others: Any, dtype: torch.dtype | None = None
) -> tuple[Any, ...]:
    """Copy like `meta_copy`, but with fake tensors, which have no data either but report the model's own device."""
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


def call_on_meta(model: nn.Module, inputs: Any, forward: Forward = call_model) -> Any:
    """Call a `meta_copy`. Tensors that its forward creates, or that are not in the model, are moved to the meta device.

    Raises:
        ValueError: the call fails, for example because the network looks at the values of tensors.
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
    """A context for the meta device: new tensors are on it, and a call with a tensor on it moves its others there.

    A forward may create indices, or use constants that no module holds. These would otherwise be on another device.
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

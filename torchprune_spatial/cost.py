"""What a network costs, counted on the meta device: without arithmetic and without a copy of the weights."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
import torch.nn as nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from .calibration import Forward, call_model


def meta_copy(model: nn.Module, *others: Any) -> tuple:
    """Copy a network, and what refers to it, with tensors that have shapes but no data.

    Args:
        model: the network. Shapes, strides, dtypes, ``requires_grad`` and ties are kept; nothing of it is changed.
            Indices, which are buffers of integers, keep their data too: they are structure, not weights.
        others: example inputs, or options that hold modules and parameters of the network, in any nesting: their
            copies hold those of the copy.

    Returns:
        ``(model, *others)``, copied.

    Example:
        >>> model, inputs, ignored = meta_copy(model, torch.rand(1, 3, 224, 224), [model.fc])
        >>> ignored[0] is model.fc, inputs.device.type
        (True, 'meta')
    """
    held = [leaf for module in model.modules() for leaf in tree_leaves(vars(module))]
    held += [leaf for leaf in tree_leaves(others) if not isinstance(leaf, nn.Module)]
    memo = {id(tensor): _without_data(tensor) for tensor in held if _has_weights(tensor)}
    return copy.deepcopy((model, *others), memo)


def _has_weights(value: Any) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    return (
        isinstance(value, nn.Parameter) or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, tensor.requires_grad)
    return empty.requires_grad_(tensor.requires_grad)


def call_on_meta(model: nn.Module, inputs: Any, forward: Forward = call_model) -> Any:
    """Call a `meta_copy`. Tensors that its forward makes or finds elsewhere are brought to the meta device too.

    Raises:
        ValueError: the network looks at the values of tensors.
    """
    try:
        with torch.device("meta"), _ToMeta():
            return forward(model, inputs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot run on the meta device, where costs are counted from shapes alone: {error} "
            f"({type(error).__name__}). Its forward (or a hook, or forward_fn) must not look at the values of tensors"
        ) from error


class _ToMeta(TorchFunctionMode):
    """Brings to the meta device what meets a tensor that is there: indices, and constants that no module holds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in tree_leaves((args, kwargs))):
            args, kwargs = tree_map_only(torch.Tensor, lambda t: t if t.is_meta else t.to("meta"), (args, kwargs))
        return func(*args, **kwargs)


def count_flops(model: nn.Module, example_inputs: Any, forward: Forward = call_model) -> Counter[str]:
    """Floating-point operations of one forward pass in evaluation mode, by the name of the module that does them.

    Convolutions and matrix products (also those of attention) count, a multiplication and an addition as two; norms,
    activations and other element-wise work do not. A module counts what its children do; ``""`` is the network.

    Args:
        model: the network; it is not run, and may be on any device.
        example_inputs: as for Torch-Pruning; the count is for this batch and size.
        forward: ``(model, inputs)`` -> outputs.

    Raises:
        ValueError: the network cannot run on the meta device.
    """
    model, example_inputs = meta_copy(model, example_inputs)
    model.eval()
    counter, flops = FlopCounterMode(display=False), Counter()
    for name, module in model.named_modules():  # not the counter's own names, which depend on who calls whom
        module.register_forward_pre_hook(lambda *_, name=name: flops.subtract({name: counter.get_total_flops()}))
        module.register_forward_hook(lambda *_, name=name: flops.update({name: counter.get_total_flops()}))
    with counter, torch.no_grad():  # nn.MultiheadAttention has no fast path, which would hide its work, on meta
        call_on_meta(model, example_inputs, forward)
    flops[""] = counter.get_total_flops()
    return flops

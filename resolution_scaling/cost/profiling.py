"""`profile`: arithmetic and memory of a network at a given input size, without running it."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
import torch.nn as nn

from ..ground.calls import Forward, call_model, tensors_in
from .cost_report import CostReport
from .gretsi2025 import Gretsi2025Report, vit_cost
from .tracing import trace


@overload
def profile(
    model: nn.Module,
    input_shape: Any,
    dtype: torch.dtype | None = ...,
    definition: Literal["standard"] = ...,
    *,
    view: Literal["eager", "fused"] = ...,
    forward: Forward = ...,
) -> CostReport: ...


@overload
def profile(
    model: nn.Module,
    input_shape: Any,
    dtype: torch.dtype | None = ...,
    *,
    definition: Literal["gretsi2025"],
    view: Literal["eager", "fused"] = ...,
    forward: Forward = ...,
) -> Gretsi2025Report: ...


def profile(
    model: nn.Module,
    input_shape: Any,
    dtype: torch.dtype | None = torch.float32,
    definition: Literal["standard", "gretsi2025"] = "standard",
    *,
    view: Literal["eager", "fused"] = "eager",
    forward: Forward = call_model,
) -> CostReport | Gretsi2025Report:
    """Count the cost of one forward pass in evaluation mode, from shapes alone.

    A copy of the network without weights runs on the meta device (on fake tensors if it cannot run there). No
    arithmetic is done, and the network's weights are not copied, moved or changed; they may be on any device.

    The count has the multiply-accumulates (MACs) of convolutions and matrix products, attention included, in modules
    and in functions; one MAC is two FLOPs. The arithmetic of norms, activations, additions and the like is separate, in
    ``elementwise_flops``. The report names operators whose arithmetic is not known. Memory is that of section 3.1 of
    the paper (weights and the largest operator), and the peak of the activations.

    Not counted are the backward pass, scratch memory of kernels, and savings that depend on the values of tensors
    (masked scores of attention count like the others).

    Args:
        model: the network.
        input_shape: shape of the input with its batch, such as ``(1, 3, 224, 224)``, or shapes of several inputs, such
            as ``[(1, 3, 224, 224), (1, 77)]``. Or example inputs, of which only shapes and integer dtypes matter: a
            tensor, a tuple of positional arguments, or a dict of keyword arguments.
        dtype: dtype of weights and floating-point inputs; a network of another dtype is counted as if it were cast to
            this. None keeps the network's own.
        definition: ``"standard"``, or ``"gretsi2025"`` for the arithmetic behind the paper's Table 1, which is for
            vision transformers and one square image; see `vit_cost`.
        view: ``"eager"`` counts each operator by itself, as PyTorch runs it. ``"fused"`` folds norms and activations
            into the operators before them. A report in eager view has the other one as ``report.fused``.
        forward: ``(model, inputs)`` -> outputs, for a network that is called in another way, or for a part of it.

    Raises:
        TypeError, ValueError: an argument is not usable, or the network runs neither on the meta device nor on fake
            tensors, for instance because it looks at the values of tensors. The network is as it was.

    Example:
        >>> report = profile(torchvision.models.resnet50(), (1, 3, 224, 224))
        >>> report.macs, report.weight_bytes, report.largest_operator_bytes, report.fused.peak_bytes
        (4089184256, 102441032, 6422528, 7827456)
        >>> print(report)  # a table; report.to_json(path), report.plot(path)
        >>> report.by_module()["layer1"].flops, report.by_operator()["convolution"].calls
        (1335885824, 53)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype is {dtype!r}; expected a floating-point dtype such as torch.float16, or None")
    if view not in ("eager", "fused"):
        raise ValueError(f"view is {view!r}; expected 'eager' or 'fused'")
    if definition not in ("standard", "gretsi2025"):
        raise ValueError(f"definition is {definition!r}; expected 'standard' or 'gretsi2025'")
    model = getattr(model, "_orig_mod", model)  # the network that torch.compile wraps: compiling is not needed to count
    inputs = _example_inputs(input_shape)
    shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(inputs))
    if definition == "gretsi2025":
        return vit_cost(model, shapes)
    traced = trace(model, inputs, forward, dtype)
    name = str(dtype).removeprefix("torch.") if dtype is not None else None
    report = CostReport(type(model).__name__, shapes, name, _weights(model, dtype), traced)
    return report.fused if view == "fused" else report


def _example_inputs(input_shape: Any) -> Any:
    """Tensors without data in place of shapes; example inputs as they are."""
    if _is_shape(input_shape):
        return _without_data(input_shape)
    if isinstance(input_shape, (tuple, list)) and input_shape and all(map(_is_shape, input_shape)):
        return tuple(map(_without_data, input_shape))
    if not tensors_in(input_shape):
        raise TypeError(
            f"input_shape is {input_shape!r}; expected a shape with the batch, such as (1, 3, 224, 224), or example "
            "inputs: a tensor, a tuple or a dict of tensors"
        )
    return input_shape


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0 and all(type(size) is int for size in value)


def _without_data(shape: Any) -> torch.Tensor:
    if min(shape) < 1:
        raise ValueError(f"input_shape is {tuple(shape)}; expected sizes above 0, the batch first: (1, 3, 224, 224)")
    return torch.empty(tuple(shape), device="meta")


def _weights(model: nn.Module, dtype: torch.dtype | None) -> dict[str, int]:
    """Bytes of the parameters and buffers in each module; tensors that are shared inside a module count once."""

    def size(tensor: torch.Tensor) -> int:
        kept = tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype
        return tensor.numel() * kept.itemsize

    return {
        name: sum(size(t) for t in {id(t): t for t in (*module.parameters(), *module.buffers())}.values())
        for name, module in model.named_modules()
    }

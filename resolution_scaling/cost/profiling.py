"""What a network costs at a given input size: arithmetic and memory, without running it."""

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
    """Count what one forward pass in evaluation mode costs, from shapes alone.

    A copy of the network without weights goes through the pass on the meta device (on fake tensors where it cannot), so
    no arithmetic is done and nothing of the network is copied, moved or changed; it may be on any device.

    Counted are multiply-accumulates of convolutions and matrix products, attention included, whether they run in
    modules or as functions; FLOPs are two a MAC. Norms, activations, additions and the like are apart, in
    ``elementwise_flops``. Operators whose arithmetic is not known are named in the report. Memory is that of section
    3.1 of the paper (weights and the largest operator), and the peak of the activations.

    Not counted: the backward pass, scratch memory of kernels, what depends on the values of tensors (masked scores of
    attention count as if they were not).

    Args:
        model: the network.
        input_shape: shape of the input, batch included, as ``(1, 3, 224, 224)``; or several, as
            ``[(1, 3, 224, 224), (1, 77)]``. Or example inputs, of which only shapes and integer dtypes matter: a
            tensor, a tuple of positional arguments, or a dict of keyword arguments.
        dtype: of weights and floating-point inputs; a network of another dtype is counted as if it were cast. None
            leaves them as they are.
        definition: ``"standard"``, or ``"gretsi2025"`` for the arithmetic behind the paper's Table 1, which holds for
            vision transformers and one image shape; see `vit_cost`.
        view: ``"eager"``: each operator by itself, as PyTorch runs it. ``"fused"``: norms and activations folded into
            the operators before them. A report in eager view has the other as ``report.fused``.
        forward: ``(model, inputs)`` -> outputs, if the network is called in another way or only a part of it is meant.

    Raises:
        TypeError, ValueError: an argument is not usable, or the network runs neither on the meta device nor on fake
            tensors, for instance because it looks at the values of tensors. It is as it was.

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
        raise TypeError(f"dtype is {dtype!r}; expected one of floating-point numbers, as torch.float16, or None")
    if view not in ("eager", "fused"):
        raise ValueError(f"view is {view!r}; expected 'eager' or 'fused'")
    if definition not in ("standard", "gretsi2025"):
        raise ValueError(f"definition is {definition!r}; expected 'standard' or 'gretsi2025'")
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps; compiling it would tell nothing more
    inputs = _example_inputs(input_shape)
    shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(inputs))
    if definition == "gretsi2025":
        return vit_cost(model, shapes)
    traced = trace(model, inputs, forward, dtype)
    name = str(dtype).removeprefix("torch.") if dtype is not None else None
    report = CostReport(type(model).__name__, shapes, name, _weights(model, dtype), traced)
    return report.fused if view == "fused" else report


def _example_inputs(input_shape: Any) -> Any:
    """Tensors without data for shapes; example inputs as they are."""
    if _is_shape(input_shape):
        return _without_data(input_shape)
    if isinstance(input_shape, (tuple, list)) and input_shape and all(map(_is_shape, input_shape)):
        return tuple(map(_without_data, input_shape))
    if not tensors_in(input_shape):
        raise TypeError(
            f"input_shape is {input_shape!r}; expected a shape with the batch, as (1, 3, 224, 224), or example inputs: "
            "a tensor, a tuple or a dict of tensors"
        )
    return input_shape


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0 and all(type(size) is int for size in value)


def _without_data(shape: Any) -> torch.Tensor:
    if min(shape) < 1:
        raise ValueError(f"input_shape is {tuple(shape)}; expected sizes above 0, the batch first: (1, 3, 224, 224)")
    return torch.empty(tuple(shape), device="meta")


def _weights(model: nn.Module, dtype: torch.dtype | None) -> dict[str, int]:
    """Bytes of the parameters and buffers in each module, those that are one and the same once."""

    def size(tensor: torch.Tensor) -> int:
        kept = tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype
        return tensor.numel() * kept.itemsize

    return {
        name: sum(size(t) for t in {id(t): t for t in (*module.parameters(), *module.buffers())}.values())
        for name, module in model.named_modules()
    }

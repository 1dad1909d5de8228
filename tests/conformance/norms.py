"""Norms, means and softmax over channels: what they would be if the removed channels were there, as zeros."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class CountedNorms(TorchDispatchMode):
    """Used first around the masked network, and then, after `compare`, around the pruned one.

    The first time it writes down over how many elements each norm runs. The second time, norms over fewer elements are
    computed as if the missing ones were zeros. ``changed`` says whether there were any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []
        self.place: int | None = None
        self.changed = False

    def compare(self) -> None:
        """From now on, count as before."""
        self.place = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in NORMS:
            return func(*args, **kwargs)
        size, counted = NORMS[func]
        count = size(*args, **kwargs)
        if self.place is None:
            self.counts.append(count)
            return func(*args, **kwargs)
        before = self.counts[self.place] if self.place < len(self.counts) else count
        self.place += 1
        if before == count:
            return func(*args, **kwargs)
        self.changed = True
        return counted(before, *args, **kwargs)


def _elements(tensor: torch.Tensor, dim: Any = None, *_: Any, **__: Any) -> int:
    dims = range(tensor.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return math.prod(tensor.shape[d] for d in dims)


def _mean(count: int, tensor: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return tensor.sum(dim, keepdim, dtype=dtype) / count if dim is not None else tensor.sum(dtype=dtype) / count


def _variance_and_mean(
    count: int, tensor: torch.Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    dims = list(range(tensor.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    mean = tensor.sum(dims, keepdim=True) / count
    squares = (tensor - mean).square().sum(dims, keepdim=True) + (count - _elements(tensor, dims)) * mean.square()
    variance = squares / (count - (1 if correction is None else correction))
    return (variance, mean) if keepdim else (variance.squeeze(dims), mean.squeeze(dims))


def _variance(*args: Any, **kwargs: Any) -> torch.Tensor:
    return _variance_and_mean(*args, **kwargs)[0]


def _deviation(*args: Any, **kwargs: Any) -> torch.Tensor:
    return _variance(*args, **kwargs).sqrt()


def _layer_norm(count: int, tensor: Any, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[torch.Tensor, ...]:
    variance, mean = _variance_and_mean(count, tensor, list(range(-len(shape), 0)), correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    normalized = (tensor - mean) * scale
    normalized = normalized if weight is None else normalized * weight
    return (normalized if bias is None else normalized + bias), mean, scale


def _rms_norm(count: int, tensor: Any, shape: Any, weight: Any, eps: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    mean = tensor.square().sum(list(range(-len(shape), 0)), keepdim=True) / count
    scale = (mean + (torch.finfo(tensor.dtype).eps if eps is None else eps)).rsqrt()
    return (tensor * scale if weight is None else tensor * scale * weight), scale


def _group_norm(
    count: int, tensor: Any, weight: Any, bias: Any, images: int, channels: int, size: int, groups: int, eps: float
) -> tuple[torch.Tensor, ...]:
    grouped = tensor.reshape(images, groups, -1)
    variance, mean = _variance_and_mean(count, grouped, [2], correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    normalized = ((grouped - mean) * scale).reshape(images, channels, -1)
    normalized = normalized if weight is None else normalized * weight.view(1, -1, 1)
    normalized = normalized if bias is None else normalized + bias.view(1, -1, 1)
    return normalized.reshape(tensor.shape), mean.view(images, groups), scale.view(images, groups)


def _softmax(count: int, tensor: torch.Tensor, dim: int, *_: Any) -> torch.Tensor:
    largest = tensor.amax(dim, keepdim=True).clamp(min=0)
    powers = (tensor - largest).exp()
    return powers / (powers.sum(dim, keepdim=True) + (count - tensor.shape[dim]) * (-largest).exp())


def _largest(count: int, tensor: torch.Tensor, dim: Any = (), keepdim: bool = False) -> torch.Tensor:
    return tensor.amax(dim, keepdim).clamp(min=0)


def _largest_and_where(count: int, tensor: torch.Tensor, dim: int, keepdim: bool = False) -> tuple[torch.Tensor, Any]:
    values, indices = tensor.max(dim, keepdim)
    return values.clamp(min=0), indices


NORMS: dict[Any, tuple[Callable[..., int], Callable[..., Any]]] = {
    aten.native_layer_norm.default: (lambda tensor, shape, *_: math.prod(shape), _layer_norm),
    aten.native_group_norm.default: (
        lambda t, w, b, n, channels, size, groups, e: channels // groups * size,
        _group_norm,
    ),
    aten.mean.default: (_elements, _mean),
    aten.mean.dim: (_elements, _mean),
    aten.var.correction: (_elements, _variance),
    aten.std.correction: (_elements, _deviation),
    aten.var_mean.correction: (_elements, _variance_and_mean),
    aten._softmax.default: (_elements, _softmax),
    aten.amax.default: (_elements, _largest),
    aten.max.dim: (_elements, _largest_and_where),
}
"""By operator: over how many elements it runs, and what it gives if there were so many of them."""
if hasattr(aten, "_fused_rms_norm"):
    NORMS[aten._fused_rms_norm.default] = (lambda tensor, shape, *_: math.prod(shape), _rms_norm)

"""Arithmetic of one operator, from the shapes that it reads and writes.

There are two counts. **MACs**, multiply-accumulates of convolutions and matrix products, are what the literature calls
the cost of a network (FLOPs = 2 x MACs). **Element-wise FLOPs** are all other arithmetic: norms, activations,
additions, softmax, pooling, interpolation. This count is rough: each function of a number counts as one operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

ATTENTION = "aten::scaled_dot_product_attention"
"""Counted as one operator, even on devices that split it into several."""

Formula = Callable[[Sequence[Any], torch.Tensor], int]
"""``(arguments, first output)`` -> operations."""


def _convolution(args: Sequence[Any], out: torch.Tensor) -> int:
    """Each output (each input if transposed) is multiplied with all weights of one filter; ``weight[filters, ...]``."""
    x, weight, transposed = args[0], args[1], args[6]
    return (x if transposed else out).numel() * (weight.numel() // len(weight))


def _deformable_convolution(args: Sequence[Any], out: torch.Tensor) -> int:
    weight = args[1]
    return out.numel() * (weight.numel() // len(weight))


def _product(args: Sequence[Any], out: torch.Tensor) -> int:
    """``[..., rows, inner] @ [..., inner, columns]``; the right one may be a vector."""
    left, right = args[:2]
    return left.numel() * (right.shape[-1] if right.ndim > 1 else 1)


def _sum_and_product(args: Sequence[Any], out: torch.Tensor) -> int:
    return _product(args[1:], out)


def _attention(args: Sequence[Any], out: torch.Tensor) -> int:
    """Scores ``[..., queries, dim] @ [..., dim, keys]``, then ``[..., queries, keys] @ [..., keys, values]``.

    Scores that a mask hides count too.
    """
    query, _, value = args[:3]
    return _attention_scores(args) * (query.shape[-1] + value.shape[-1])


MACS: dict[str, Formula] = {
    **dict.fromkeys(("aten::convolution", "aten::_convolution", "aten::convolution_overrideable"), _convolution),
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot", "aten::_int_mm"), _product),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addbmm", "aten::addmv"), _sum_and_product),
    "aten::_addmm_activation": _sum_and_product,
    ATTENTION: _attention,
    "torchvision::deform_conv2d": _deformable_convolution,
}

ACTIVATIONS = ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "gelu", "silu", "sigmoid", "leaky_relu", "elu")

NORMS = {
    "batch_norm": 2,  # scale and shift, by given statistics
    "native_layer_norm": 7,  # mean; difference, its square, their mean; division by the root; scale and shift
    "native_group_norm": 7,
    "_fused_rms_norm": 4,
}
"""FLOPs for each number that a norm writes."""

PER_OUTPUT = {
    **NORMS,
    **dict.fromkeys(("_softmax", "_log_softmax"), 3),  # exponential, sum, division
    **dict.fromkeys(("upsample_linear1d", "_upsample_linear1d_aa"), 4),  # a MAC for each of two neighbours
    **dict.fromkeys(("upsample_bilinear2d", "_upsample_bilinear2d_aa", "grid_sampler_2d", "torchvision::roi_align"), 8),
    **dict.fromkeys(("upsample_trilinear3d", "grid_sampler_3d"), 16),
    **dict.fromkeys(("upsample_bicubic2d", "_upsample_bicubic2d_aa"), 32),
    **dict.fromkeys(ACTIVATIONS, 1),
    **dict.fromkeys(("_prelu_kernel", "log_sigmoid_forward", "softplus"), 1),
    **dict.fromkeys(("glu", "native_dropout", "cumsum", "cumprod", "index_add", "scatter_add", "index_put"), 1),
}
"""FLOPs for each number that is written, roughly."""

PER_INPUT = {
    **dict.fromkeys(
        ("sum", "mean", "prod", "col2im", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d"), 1
    ),
    **dict.fromkeys(("var", "var_mean", "std", "std_mean"), 3),
    **dict.fromkeys(("linalg_vector_norm", "norm", "logsumexp"), 2),
}
"""FLOPs for each number that is read, roughly."""

MOVES = {
    *("_to_copy", "clone", "copy", "cat", "stack", "repeat", "split_with_sizes_copy", "unfold_copy", "flip", "roll"),
    *("index", "index_select", "index_copy", "gather", "scatter", "embedding", "one_hot", "im2col"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
    *("fill", "zero", "masked_fill", "masked_scatter", "where", "tril", "triu", "diag_embed"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d", "adaptive_max_pool2d", "max_unpool2d"),
    *("max", "min", "amax", "amin", "aminmax", "argmax", "argmin", "maximum", "minimum", "any", "all"),
    *("sort", "argsort", "topk", "bucketize", "clamp", "clamp_min", "clamp_max"),
    *("bitwise_not", "logical_not", "logical_and", "logical_or"),
}
"""Copies and comparisons, which are not arithmetic."""

CREATION = (
    *("empty", "zeros", "ones", "full", "arange", "linspace", "eye", "scalar_tensor", "rand"),
    *("new_", "lift_fresh"),
)
"""Operators whose name begins like this create a tensor: it takes memory, but the operator is not listed."""


def operator_cost(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> tuple[int, int | None]:
    """Count the arithmetic of one call of an operator of PyTorch's dispatcher.

    Formulas that are registered by ``torch.utils.flop_counter.register_flop_formula`` are used too.

    Args:
        func: the operator.
        args: its arguments.
        kwargs: its keyword arguments.
        out: its first output.

    Returns:
        ``(MACs, element-wise FLOPs)``; the second is None if the arithmetic is not known.
    """
    name = func._schema.name
    if name in MACS:
        softmax = 3 * _attention_scores(args) if name == ATTENTION else 0
        return MACS[name](args, out), softmax
    registered = _registered_formulas().get(func._overloadpacket)
    if registered is not None:
        return registered(*args, **kwargs, out_val=out) // 2, 0
    kind = _kind(func)
    if kind in MOVES or not (out.is_floating_point() or out.is_complex()):
        return 0, 0
    if kind in PER_OUTPUT:
        return 0, PER_OUTPUT[kind] * out.numel()
    if kind in PER_INPUT:
        return 0, PER_INPUT[kind] * args[0].numel()
    if kind in ("avg_pool2d", "avg_pool3d"):
        window, dims = args[1], int(kind[-2])
        return 0, out.numel() * (math.prod(window) if len(window) == dims else window[0] ** dims)
    return 0, out.numel() if torch.Tag.pointwise in func.tags else None


def _attention_scores(args: Sequence[Any]) -> int:
    query, key = args[:2]
    return math.prod(query.shape[:-1]) * key.shape[-2]


def _kind(func: Any) -> str:
    """The name of the operator, without the underscore of in-place forms."""
    return func._schema.name.removeprefix("aten::").removesuffix("_")


def _registered_formulas() -> dict[Any, Any]:
    """Formulas of PyTorch and of others. The import is late, because it makes PyTorch import Triton."""
    from torch.utils.flop_counter import flop_registry

    return flop_registry


def is_counted_whole(func: Any) -> bool:
    """Whether to count an operator as one. Its decomposition would hide what it is, or is not what devices run."""
    name = func._schema.name
    return (
        name in MACS
        or name in STAND_INS
        or name.startswith(("aten::upsample", "aten::_upsample", "prim::"))
        or func._overloadpacket in _registered_formulas()
    )


def is_creation(func: Any) -> bool:
    """Whether an operator creates a tensor without reading one."""
    return _kind(func).startswith(CREATION) or _kind(func).endswith("_like")


def folds(func: Any) -> bool:
    """Whether compilers fold an operator into the one before it: it is a norm, or works on each number separately."""
    kind = _kind(func)
    return kind in NORMS or kind in ACTIVATIONS or torch.Tag.pointwise in func.tags


def visible_outputs(func: Any, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs without those that are for a backward pass only: statistics of norms, indices of max pooling."""
    kind = _kind(func)
    return outputs[:1] if kind in NORMS or "_with_indices" in kind or kind == "adaptive_max_pool2d" else outputs


def _attention_output(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """An empty ``[..., queries, value dim]`` as fused kernels lay it out: the heads of a query are adjacent."""
    shape = (*query.shape[:-1], value.shape[-1])
    if len(shape) < 4:
        return query.new_empty(shape)
    return query.new_empty((*shape[:-3], shape[-2], shape[-3], shape[-1])).transpose(-2, -3)


def _same_shape(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.empty_like(x)


def _same_tensor(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return x


STAND_INS: dict[str, Callable[..., torch.Tensor]] = {
    ATTENTION: _attention_output,  # devices without a kernel decompose it and write [queries, keys] scores
    "aten::batch_norm": _same_shape,
    **{f"aten::{name}": _same_shape for name in ACTIVATIONS},
    **{f"aten::{name}_": _same_tensor for name in ACTIVATIONS},
}
"""Functions that give an operator's output in place of PyTorch's own inference of shapes, which takes longer."""

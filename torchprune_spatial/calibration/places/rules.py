"""The rules: for each operation of ATen, where the elements of its result lie."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from ...graph.labels.classes import compressed
from ...graph.labels.following import on_cpu
from ...graph.labels.moving_rules import reduced_dims
from ...graph.labels.rules import Call
from .cells import UNKNOWN, first_known
from .places import Places

Rule = Callable[[Places, Call], torch.Tensor | None]
"""The places of the result of an operation; None if they are unknown."""

RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def same(held: Places, call: Call) -> torch.Tensor | None:
    """What works element by element, or along the channels, leaves places as they are; the first that is known counts.

    Also the rule of all operations without one: where the shape of the result is another one, places are unknown.
    """
    result, shape = None, call.output.shape
    for tensor in call.inputs:
        places = held.get(tensor)
        if places is None or tensor.dim() > len(shape):
            continue
        places = places.reshape([1] * (len(shape) - places.dim()) + list(places.shape))
        if any(size not in (1, whole) for size, whole in zip(places.shape, shape, strict=True)):
            continue
        result = places if result is None else torch.where(result == UNKNOWN, places, result)
    return result


@_rule("copy")
def copy(held: Places, call: Call) -> torch.Tensor | None:
    """The target takes the places of the source."""
    target, source = call.inputs[:2]
    places = held.get(source)
    return None if places is None else places.reshape([1] * (target.dim() - places.dim()) + list(places.shape))


@_rule(
    *("roll", "flip", "repeat", "pixel_unshuffle", "rot90", "repeat_interleave", "channel_shuffle"),
    *("native_channel_shuffle", "index", "index_select", "gather", "take_along_dim", "reflection_pad1d", "im2col"),
    *("reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d"),
    *("_reshape_copy", "view_copy", "expand_copy", "permute_copy", "diagonal_copy", "unfold_copy", "_unsafe_index"),
)
def move(held: Places, call: Call) -> torch.Tensor | None:
    """Places move as the elements do."""
    x, *rest = call.args
    places = held.get(x)
    if places is None:
        return None
    whole = places.expand(x.shape).contiguous().double()  # some operations know no integers
    return compressed(call.function(whole, *on_cpu(rest), **call.kwargs).long())


@_rule("pixel_shuffle")
def pixel_shuffle(held: Places, call: Call) -> torch.Tensor | None:
    """Each cell becomes a block of cells."""
    places = move(held, call)
    return None if places is None else held.spread(places)


@_rule("cat", "stack")
def join(held: Places, call: Call) -> torch.Tensor | None:
    """Places stand beside each other; along the channels, those of the first tensor count for all."""
    dim = (call.args[1] if len(call.args) > 1 else 0) % call.output.dim()
    parts = [(tensor, held.get(tensor)) for tensor in call.args[0] if tensor.numel()]
    if call.name == "stack":
        parts = [(t.unsqueeze(dim), None if places is None else places.unsqueeze(dim)) for t, places in parts]
    known = [places for _, places in parts if places is not None]
    if not known:
        return None
    alike = len(known) == len(parts) and all(torch.equal(known[0], places) for places in known)
    if alike and known[0].shape[dim] == 1:
        return known[0]
    shape = torch.broadcast_shapes(*([1 if d == dim else size for d, size in enumerate(p.shape)] for p in known))
    sizes = [[tensor.shape[d] if d == dim else size for d, size in enumerate(shape)] for tensor, _ in parts]
    pieces = [torch.tensor(UNKNOWN) if places is None else places for _, places in parts]
    return compressed(torch.cat([piece.expand(size) for piece, size in zip(pieces, sizes, strict=True)], dim))


@_rule("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv")
def matrix_product(held: Places, call: Call) -> torch.Tensor | None:
    """``[..., m, k] @ [..., k, n]``: the rows' places, if each row has one; else the columns'."""
    one, other = call.inputs[-2:]
    rows, columns = held.get(one), held.get(other)
    if rows is not None and rows.shape[-1] == 1:
        return rows
    if columns is not None and other.dim() > 1 and columns.shape[-2] == 1:
        return columns
    return None


@_rule("sum", "mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "max", "min", "logsumexp", "norm",
       "linalg_vector_norm", "prod", "any", "all", "median", "argmax", "argmin")  # fmt: skip
def reduce(held: Places, call: Call) -> torch.Tensor | None:
    """What is reduced over channels has their place; what is reduced over several places has none."""
    places = held.get(call.inputs[0])
    if places is None or len(call.inputs) > 1:
        return same(held, call)
    dims = reduced_dims(call, call.inputs[0])
    if any(places.shape[dim] > 1 for dim in dims):
        return None
    if call.output.dim() == places.dim():
        return places
    return places.reshape([size for dim, size in enumerate(places.shape) if dim not in dims])


def _picked(places: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """The places at an index along a dimension, in half steps; outside of the map they go on as at its edge."""
    size = places.shape[dim]
    if size == 1:
        return places
    below = index.div(2, rounding_mode="floor")
    inside = below.clamp(0, size - 2)
    begin, following = places.index_select(dim, inside), places.index_select(dim, inside + 1)
    steps = following - begin
    column = (-1, *[1] * (places.dim() - 1 - dim))
    whole, half = (below - inside).view(column), (index % 2).view(column)
    nearest = torch.where(whole == 1, following, begin)
    between = torch.where(steps == steps.flatten().mode().values, half * steps // 2, 0)  # not across a seam
    is_cell, known = (whole == 0) | (whole == 1), (begin != UNKNOWN) & (following != UNKNOWN)
    exact = torch.where(is_cell, nearest, UNKNOWN)
    return torch.where(is_cell & (half == 0) | ~known, exact, begin + whole * steps + between)


def _windows(
    held: Places, call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any, transposed: bool = False
) -> torch.Tensor | None:
    """The places of what looks at windows of ``kernel`` cells: the middle of a window is the middle of its cell.

    But with strides, maps that cover the input cover it evenly, as in the paper: that windows look half a step to the
    side does not add up.
    """
    x, out = call.inputs[0], call.output
    places = held.get(x)
    if places is None or out.dim() != x.dim():
        return None
    count = len(kernel)
    channels = x.dim() - count - 1
    places = first_known(places, channels)
    settings = (_each(value, count) for value in (kernel, stride or kernel, padding, dilation))
    for dim, k, s, p, d in zip(range(channels + 1, x.dim()), *settings, strict=True):
        cells, reach = torch.arange(out.shape[dim]), d * (k - 1)
        if transposed:
            index = (2 * cells + 2 * p - reach + s - 1).div(s, rounding_mode="floor")
            index = index - index % 2
        else:
            covers = s > 1 and out.shape[dim] == -(-x.shape[dim] // s)
            index = 2 * cells * s + (0 if covers else reach + 1 - s - 2 * p)
        places = _picked(places, dim, index)
    return held.spread(places) if transposed else held.snapped(places)


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return values * count if len(values) == 1 else values


@_rule("convolution", "_convolution", "convolution_overrideable")
def convolution(held: Places, call: Call) -> torch.Tensor | None:
    """A convolution, transposed or not."""
    _, weight, _, stride, padding, dilation, transposed = call.args[:7]
    return _windows(held, call, list(weight.shape[2:]), stride, padding, dilation, transposed)


@_rule("torchvision::deform_conv2d", "deform_conv2d")
def deformable_convolution(held: Places, call: Call) -> torch.Tensor | None:
    """A convolution at positions that are moved a little."""
    args = call.args
    return _windows(held, call, list(args[1].shape[2:]), args[5:7], args[7:9], args[9:11])


@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pooling(held: Places, call: Call) -> torch.Tensor | None:
    """Average pooling."""
    _, kernel, stride, padding = call.args[:4]
    return _windows(held, call, _each(kernel, call.output.dim() - 2), stride, padding, 1)


@_rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
       "mkldnn_max_pool2d")  # fmt: skip
def max_pooling(held: Places, call: Call) -> torch.Tensor | None:
    """Maximum pooling."""
    _, kernel, stride, padding, dilation = call.args[:5]
    return _windows(held, call, _each(kernel, call.output.dim() - 2), stride, padding, dilation)


def resize(held: Places, call: Call) -> torch.Tensor | None:
    """Upsampling, and pooling to a given size."""
    x, out = call.inputs[0], call.output
    places = held.get(x)
    if places is None:
        return None
    for dim in range(2, x.dim()):
        index = torch.arange(out.shape[dim]) * x.shape[dim] // out.shape[dim]
        places = _picked(places, dim, 2 * index)
    return held.spread(places)


for _name, _dims in itertools.product(
    ("adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest", "_upsample_nearest_exact"),
    ("1d", "2d", "3d"),
):
    _rule(_name + _dims)(resize)
_rule("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
      "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")(resize)  # fmt: skip


@_rule("constant_pad_nd")
def pad(held: Places, call: Call) -> torch.Tensor | None:
    """Padding lies around the image."""
    x, padding = call.args[:2]
    places = held.get(x)
    if places is None:
        return None
    for i in range(len(padding) // 2):
        dim = x.dim() - 1 - i
        places = _picked(places, dim, 2 * torch.arange(-padding[2 * i], x.shape[dim] + padding[2 * i + 1]))
    return places


@_rule("grid_sampler_2d", "grid_sampler_3d", "_fft_r2c", "_fft_c2r", "_fft_c2c", "col2im", "nonzero", "sort", "topk",
       "scatter", "scatter_add", "index_put", "_unsafe_index_put", "_index_put_impl")  # fmt: skip
def unknown(held: Places, call: Call) -> torch.Tensor | None:
    """Where the elements of the result lie is not known."""
    return None

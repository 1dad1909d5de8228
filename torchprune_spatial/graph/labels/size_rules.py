"""What the functions of PyTorch that take or give sizes demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves

from .counts import Count, Quotient
from .notes import Labels, Terms
from .sizes import BEFORE, FILLING, LITERAL, WATCHED, Sizes, Watch


def _watch(*functions: Any) -> Callable[[Watch], Watch]:
    def register(watch: Watch) -> Watch:
        WATCHED.update(dict.fromkeys(functions, watch))
        return watch

    return register


def _flat(sizes: tuple[Any, ...], named: Any = None) -> list[Any]:
    if named is not None:
        return list(named)
    return list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else list(sizes)


@_watch(torch.Tensor.shape.__get__)  # type: ignore[attr-defined]
def _shape(sizes: Sizes, result: Any, x: torch.Tensor, /, *_: Any, **__: Any) -> Any:
    return sizes.size_of(x)


@_watch(torch.Tensor.size)
def _size(sizes: Sizes, result: Any, x: torch.Tensor, /, dim: Any = None) -> Any:
    return sizes.size_of(x) if dim is None else sizes.size_of(x)[dim]


@_watch(torch.Tensor.numel, torch.Tensor.nelement, torch.numel)
def _numel(sizes: Sizes, result: Any, x: torch.Tensor) -> Any:
    return math.prod(sizes.size_of(x))


@_watch(torch.Tensor.view, torch.Tensor.reshape, torch.reshape)
def _view(
    sizes: Sizes, result: Any, x: torch.Tensor, *given: Any, size: Any = None, shape: Any = None, **_: Any
) -> Any:
    if given and isinstance(given[0], torch.dtype):
        return result
    return sizes.reshaped(result, x, _flat(given, size if size is not None else shape))


@_watch(torch.Tensor.view_as, torch.Tensor.reshape_as)
def _view_as(sizes: Sizes, result: Any, x: torch.Tensor, /, other: torch.Tensor) -> Any:
    return sizes.reshaped(result, x, list(sizes.size_of(other)))


@_watch(torch.Tensor.flatten, torch.flatten)
def _flatten(sizes: Sizes, result: Any, x: torch.Tensor, /, *_: Any, **__: Any) -> Any:
    return sizes.reshaped(result, x, [None] * result.dim())


@_watch(torch.Tensor.unflatten, torch.unflatten)
def _unflatten(watch: Sizes, result: Any, x: torch.Tensor, /, dim: int, sizes: Any, *_: Any) -> Any:
    dim = int(dim) % x.dim()
    return watch.reshaped(result, x, [None] * dim + list(sizes) + [None] * (x.dim() - dim - 1))


@_watch(torch.Tensor.expand)
def _expand(sizes: Sizes, result: Any, x: torch.Tensor, /, *given: Any, size: Any = None, **_: Any) -> Any:
    asked = _flat(given, size)
    old = [1] * (len(asked) - x.dim()) + list(x.shape)
    for dim, (size, before) in enumerate(zip(asked, old, strict=True)):
        if before > 1 and size != -1:
            for track in sizes.following.get(result):
                if track.shape[dim] > 1:
                    sizes.demand(Sizes.row_of(track, dim), size)
    return result


@_watch(torch.Tensor.chunk, torch.chunk, torch.Tensor.tensor_split, torch.tensor_split)
def _chunk(sizes: Sizes, result: Any, x: torch.Tensor, /, chunks: Any = None, dim: int = 0, **named: Any) -> Any:
    chunks = next(iter(named.values()), None) if chunks is None else chunks
    if isinstance(chunks, int):
        sizes.split(result, x, None, int(dim), given=False)
        return result
    for track in sizes.following.get(x):
        if track.shape[dim] > 1:
            sizes.following.freeze(track, LITERAL)
    return result


@_watch(torch.Tensor.split, torch.split, torch.functional.split, torch.Tensor.split_with_sizes, torch.split_with_sizes)
def _split(sizes: Sizes, result: Any, x: torch.Tensor, /, given: Any = None, dim: int = 0, **named: Any) -> Any:
    given = next(iter(named.values())) if given is None else given
    if isinstance(given, int):  # all of this size, but for the last
        last = None if sizes.size_of(x)[int(dim)] % int(given) or len(result) == 1 else given
        given = [given] * (len(result) - 1) + [last]
    sizes.split(result, x, given, int(dim), given=True)
    return result


@_watch(torch.Tensor.unbind, torch.unbind, torch.Tensor.select, torch.select)
def _unbind(sizes: Sizes, result: Any, x: torch.Tensor, /, dim: int = 0, *_: Any, **__: Any) -> Any:
    sizes.pick(x, int(dim) % x.dim())
    return result


@_watch(torch.Tensor.narrow, torch.narrow)
def _narrow(sizes: Sizes, result: Any, x: torch.Tensor, /, dim: int, start: Any, length: Any) -> Any:
    sizes.cut(x, int(dim) % x.dim(), start, start + length)
    return result


@_watch(torch.Tensor.__getitem__)
def _getitem(sizes: Sizes, result: Any, x: torch.Tensor, /, index: Any) -> Any:
    indices = list(index) if isinstance(index, tuple) else [index]
    taken = sum(
        (i.dim() if isinstance(i, torch.Tensor) and i.dtype == torch.bool else 1)
        for i in indices
        if i is not None and i is not Ellipsis
    )
    dim = 0
    for i in indices:
        if i is Ellipsis:
            dim += x.dim() - taken
        elif i is not None:
            if isinstance(i, slice):
                if i.step not in (None, 1):
                    sizes.pick(x, dim)
                sizes.cut(x, dim, i.start, i.stop)
            elif isinstance(i, int):
                sizes.pick(x, dim)
            dim += i.dim() if isinstance(i, torch.Tensor) and i.dtype == torch.bool else 1
    return result


@_watch(torch.Tensor.__setitem__)
def _setitem(sizes: Sizes, result: Any, x: torch.Tensor, /, index: Any, value: Any) -> Any:
    return _getitem(sizes, result, x, index)


@_watch(torch.roll, torch.Tensor.roll)
def _roll(sizes: Sizes, result: Any, x: torch.Tensor, /, shifts: Any, dims: Any = ()) -> Any:
    pairs = [(shifts, dims)] if isinstance(dims, int) else zip(_flat((shifts,)), dims, strict=False)
    for shift, dim in pairs:
        sizes.cut(x, int(dim) % x.dim(), None, -shift)  # what comes from one end to the other
    return result


@_watch(torch.tensor, torch.as_tensor, torch.scalar_tensor)
def _values(sizes: Sizes, result: Any, data: Any, *_: Any, **__: Any) -> Any:
    for count in tree_leaves(data):
        if isinstance(count, (Count, Quotient)):
            float(count)  # it is used as a value
    return result


@_watch(torch.zeros, torch.ones, torch.empty, torch.full, torch.randn, torch.rand)
def _filled(sizes: Sizes, result: Any, *given: Any, size: Any = None, **_: Any) -> Any:
    return sizes.filled(
        result,
        _flat(
            given[:1]
            if isinstance(given[:1], (tuple, list)) and given and isinstance(given[0], (tuple, list))
            else given,
            size,
        ),
    )


@_watch(torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.Tensor.new_empty, torch.Tensor.new_full)
def _new(sizes: Sizes, result: Any, x: torch.Tensor, /, *given: Any, size: Any = None, **_: Any) -> Any:
    first = given[:1] if given and isinstance(given[0], (tuple, list)) else given
    return sizes.filled(result, _flat(first, size))


@_watch(torch.Tensor.repeat, torch.Tensor.tile, torch.tile)
def _repeat(sizes: Sizes, result: Any, x: torch.Tensor, /, *given: Any, **named: Any) -> Any:
    asked = _flat(given, next(iter(named.values()), None))
    for dim, times in enumerate(reversed(asked), start=1):
        if isinstance(times, Count) and times > 1:
            sizes.grown(result, result.dim() - dim, times)
    return result


@_watch(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def _convolution(sizes: Sizes, result: Any, x: torch.Tensor, /, weight: torch.Tensor, *given: Any, **named: Any) -> Any:
    """Where each channel is a group, the groups are as many as the channels; all other numbers must stay."""
    groups, dim = named.get("groups", given[4] if len(given) > 4 else 1), x.dim() - weight.dim() + 1
    for value in tree_leaves((given, named)):
        if isinstance(value, Count) and value is not groups:
            sizes.numbers.fix(value.terms)
    if isinstance(groups, Count):  # a plain number is that of a layer of PyTorch, which is fitted
        _groups(sizes, x, dim, groups)
    return result


def _groups(sizes: Sizes, x: torch.Tensor, dim: int, groups: Any) -> None:
    """Note that a number of groups must stay, or that it must be the number of channels, if that is what it is."""
    tracks = [track for track in sizes.following.get(x) if track.shape[dim] > 1 and int(groups) == x.shape[dim]]
    if isinstance(groups, Count) and not tracks:
        sizes.numbers.fix(groups.terms)
    for track in tracks:
        sizes.demand(Sizes.row_of(track, dim), groups)


@_watch(F.group_norm, torch.group_norm)
def _group_norm(sizes: Sizes, result: Any, x: torch.Tensor, /, num_groups: Any, *_: Any, **__: Any) -> Any:
    _groups(sizes, x, 1, num_groups)
    return result


@_watch(F.layer_norm, F.rms_norm)
def _layer_norm(sizes: Sizes, result: Any, x: torch.Tensor, /, normalized_shape: Any, *_: Any, **__: Any) -> Any:
    for dim, size in enumerate(reversed(tuple(normalized_shape)), start=1):
        for track in sizes.following.get(result):
            if track.shape[-dim] > 1:
                sizes.demand(Sizes.row_of(track, track.dim() - dim), size)
    return result


def _before_attention(sizes: Sizes, query: torch.Tensor, *_: Any, **named: Any) -> None:
    """The queries are divided by the root of the number of their channels, unless the code gives a scale."""
    scale = named.get("scale")
    if isinstance(scale, float):
        sizes.multiplied(query, scale)
    for track in sizes.following.get(query) if scale is None else ():
        if track.shape[-1] > 1:
            terms: Terms = {(Labels(Sizes.row_of(track, track.dim() - 1)),): Fraction(1)}
            if not sizes.factor(query, terms, -0.5):
                sizes.following.freeze(track, "attention divides by the root of its number")


def _before_product(sizes: Sizes, one: Any, other: Any, *_: Any, **__: Any) -> None:
    for tensor, value in ((one, other), (other, one)):
        if isinstance(tensor, torch.Tensor) and isinstance(value, float):
            sizes.multiplied(tensor, value)


def _before_quotient(sizes: Sizes, one: Any, other: Any, *_: Any, **__: Any) -> None:
    if isinstance(one, torch.Tensor) and isinstance(other, float) and other:
        sizes.multiplied(one, 1 / other)


FILLING.update(
    {function: watch for function, watch in WATCHED.items() if watch in (_shape, _size, _numel, _filled, _new, _repeat)}
)
BEFORE.update(
    {
        F.scaled_dot_product_attention: _before_attention,
        **dict.fromkeys((torch.Tensor.mul, torch.Tensor.mul_, torch.mul, torch.Tensor.__rmul__), _before_product),
        **dict.fromkeys((torch.Tensor.div, torch.Tensor.div_, torch.div, torch.true_divide), _before_quotient),
    }
)

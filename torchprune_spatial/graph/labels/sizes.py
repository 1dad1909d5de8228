"""Following the sizes in a network's code: where the numbers in ``view``, ``split`` and slices come from."""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .classes import varying
from .counts import AsValue, Attribute, Count, Labels, Numbers, Terms, calling_code
from .following import Following

LITERAL = "the code has a number for it"
WITH_SIZE = ("normalized_shape",)
"""Attributes of PyTorch's own layers that are followed; those of other modules are all followed."""


@dataclass(frozen=True)
class Relation:
    """The labels must lose as many as the terms that the code has for their number.

    Attributes:
        labels: ``[size]``; or ``[blocks, size]``, of which each block that is not removed as a whole is meant.
        terms: what the code computes the size from.
    """

    labels: torch.Tensor
    terms: Terms


@dataclass(eq=False)
class Factor:
    """A factor of a tensor that is a power of a count, such as the scale of attention.

    Attributes:
        makers: labels of the weights of which the tensor is a linear function, ``[n]``.
        candidates: what else may take their place: the makers of what the tensor is multiplied with.
        places: positions of the calls in which the tensor is multiplied, among all calls of functions in `BEFORE`.
        terms: the count.
        power: the power.
        module: the name of the module whose code it is.
    """

    makers: torch.Tensor
    candidates: list[torch.Tensor]
    places: list[int]
    terms: Terms
    power: float
    module: str


class Sizes(TorchFunctionMode):
    """Gives the code counts in place of integers for sizes, and notes what the numbers that it passes back demand.

    Attributes:
        relations: the demands that are equations; those that are equal numbers in blocks stand in the `Following`.
        factors: powers of counts with which tensors are multiplied.
        numbers: the uses of counts.
    """

    def __init__(self, following: Following, names: Mapping[nn.Module, str] | None = None):
        super().__init__()
        self.following, self.numbers, self._names = following, Numbers(), names or {}
        self.relations: list[Relation] = []
        self.factors: list[Factor] = []
        self._place = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function; then note what its sizes demand."""
        kwargs = kwargs or {}
        watch = WATCHED.get(function)
        if function in BEFORE:
            self._place += 1
            BEFORE[function](self, *args, **kwargs)
        result = function(*args, **kwargs)
        if watch is not None:
            return watch(self, result, *args, **kwargs)
        if function not in HARMLESS:
            for value in (*args, *kwargs.values()):
                for count in value if isinstance(value, (tuple, list)) else (value,):
                    if isinstance(count, Count):
                        self.numbers.fix(count.terms)
        return result

    # ---- counts for the code

    def size_of(self, tensor: torch.Tensor) -> torch.Size:
        """The shape of a tensor; sizes of labelled dimensions are counts."""
        tracks = [] if not tensor.numel() else self.following.get(tensor)
        if not tracks:
            return tensor.size()
        self._forget_einops()
        sizes: list[int] = list(tensor.size())
        for track in tracks:
            dim = max(varying(track))  # the innermost is the one in which the labels lose positions
            if not isinstance(sizes[dim], Count):
                row = self._row(track, dim)
                sizes[dim] = Count(sizes[dim], {(Labels(row),): Fraction(1)}, self.numbers)
        return torch.Size(sizes)

    def recognized(self, size: Any) -> Any:
        """A size as the count that the same code has made a plain integer of, if it has."""
        if isinstance(size, Count) or not isinstance(size, int) or not self.numbers.as_integers:
            return size
        code = calling_code(__file__)
        for used in reversed(self.numbers.as_integers):
            if used.code is code and used.value == size:
                return Count(size, used.terms, self.numbers)
        return size

    @staticmethod
    def _row(track: torch.Tensor, dim: int) -> torch.Tensor:
        return track.movedim(dim, -1).reshape(-1, track.shape[dim])[0]

    @staticmethod
    def _forget_einops() -> None:
        """einops caches shapes by their values; cached counts would belong to other tensors."""
        einops = sys.modules.get("einops.einops")
        for cached in ("_reconstruct_from_shape", "_prepare_transformation_recipe"):
            getattr(getattr(einops, cached, None), "cache_clear", lambda: None)()

    @contextlib.contextmanager
    def counting_attributes(self, model: nn.Module) -> Iterator[None]:
        """Inside, integers that are attributes of modules are counts; afterwards they are themselves again."""
        changed: list[tuple[dict[str, Any], str, Any, Any]] = []
        try:
            for name, module in model.named_modules():
                own = vars(module)
                builtin = type(module).__module__.startswith("torch.nn")
                for key, value in list(own.items()):
                    if (key in WITH_SIZE) if builtin else not key.startswith("_"):
                        counted = self._counted(value, name, key)
                        if counted is not None:
                            own[key] = counted
                            changed.append((own, key, value, counted))
            yield
        finally:
            self.numbers.following = False
            for own, key, value, counted in changed:
                if own.get(key) is counted:
                    own[key] = value

    def _counted(self, value: Any, module: str, name: str) -> Any:
        if type(value) is int and value > 1:
            return self._attribute(value, Attribute(module, name))
        if type(value) in (tuple, list, torch.Size) and value and all(type(item) is int for item in value):
            return type(value)([self._attribute(item, Attribute(module, name, i)) for i, item in enumerate(value)])
        return None

    def _attribute(self, value: int, attribute: Attribute) -> Count:
        self.numbers.values[attribute] = value
        return Count(value, {(attribute,): Fraction(1)}, self.numbers)

    # ---- demands of the code

    def demand(self, labels: torch.Tensor, size: Any) -> None:
        """Note that the number of some labels, as in a `Relation`, is a given size: freeze them if that is plain."""
        size = self.recognized(size)
        if isinstance(size, Count) and size.terms:
            self.relations.append(Relation(labels, size.terms))
        else:
            self.following.freeze(labels, LITERAL)

    def reshaped(self, result: torch.Tensor, x: torch.Tensor, sizes: Sequence[Any]) -> torch.Tensor:
        """Note what a view demands.

        Args:
            result: the view.
            x: the tensor that is viewed.
            sizes: for each dimension of the view, the size that the code gives; None or -1 if it gives none.
        """
        classes, sizes = self.following.classes, [self.recognized(size) for size in sizes]
        if not x.numel():
            return result
        for track in self.following.get(x):
            for dims in _merged(x.shape, result.shape):
                along = [dim for dim in dims if track.shape[dim] > 1]
                if len(along) > 1:
                    self._merge(track, along)
        for track in self.following.get(result):
            along = sorted(varying(track))
            free = next((dim for dim in reversed(along) if not self._is_rigid(sizes[dim])), None)
            if free is None:
                self.following.freeze(track, LITERAL)
                continue
            for dim in along:
                if dim > free:
                    track = classes.unite_along(track, dim)
                elif dim < free and isinstance(sizes[dim], Count):
                    self.numbers.fix(sizes[dim].terms)
            rows = track.movedim(free, -1).reshape(-1, track.shape[free])
            self.following.equal(rows)
            if isinstance(sizes[free], Count):
                self.demand(rows, sizes[free])
        return result

    def _is_rigid(self, size: Any) -> bool:
        if isinstance(size, Count):
            return all(v in self.numbers.fixed for product in size.terms for v in product)
        return size is not None and size != -1

    def _merge(self, track: torch.Tensor, dims: list[int]) -> None:
        """Dimensions become one: the order of what is left must be that of the original.

        It is if the blocks that lose equally many lie in the innermost dimension. If they lie across it, a position
        must be removed from all of them or from none.
        """
        classes = self.following.classes
        grid = track.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims), -2)
        grid = grid.reshape(-1, *grid.shape[-2:])
        for blocks in reversed(self.following.equal_counts):
            block = self.following.blocks_of(grid, blocks)
            if (block < 0).any():
                continue
            if bool((block == block[..., :1]).all()):
                return
            if bool((block == block[..., :1, :]).all()):
                classes.unite(grid, grid[..., :1])
                return

    def split(self, pieces: Sequence[torch.Tensor], x: torch.Tensor, sizes: Any, dim: int, given: bool) -> None:
        """Note what cutting a tensor into pieces demands.

        Args:
            pieces: the pieces.
            x: the tensor.
            sizes: the size of each piece, as the code gives it.
            dim: where it is cut.
            given: whether the code gives sizes; otherwise it gives the number of pieces.
        """
        dim = dim % max(1, x.dim())
        for track in self.following.get(x):
            if track.shape[dim] == 1 or dim != max(varying(track)):
                continue
            rows = track.movedim(dim, -1).reshape(-1, track.shape[dim])
            parts = rows.split([piece.shape[dim] for piece in pieces], dim=1)
            if not given:
                if len({part.shape[1] for part in parts}) > 1:
                    self.following.freeze(track, "its number is not a multiple of that of the pieces")
                else:
                    self.following.equal(torch.cat(parts))
                continue
            for part, size in zip(parts, sizes, strict=True):
                self.following.equal(part)
                if size is not None:
                    self.demand(part[0], size)
                    if not isinstance(size, Count):
                        self.following.freeze(part, LITERAL)

    def cut(self, x: torch.Tensor, dim: int, start: Any, stop: Any) -> None:
        """Note what ``x[start:stop]`` along a dimension demands."""
        size = x.shape[dim]
        for track in self.following.get(x):
            if track.shape[dim] == 1 or dim != max(varying(track)):
                continue
            rows = track.movedim(dim, -1).reshape(-1, size)
            for bound in (start, stop):
                if bound is None or int(bound) >= size or (bound is start and int(bound) == 0):
                    continue
                part, count = (rows[:, :bound], bound) if bound >= 0 else (rows[:, bound:], -bound)
                if part.shape[1]:
                    self.following.equal(part)
                    self.demand(part[0], count)
                    if not isinstance(count, Count):
                        self.following.freeze(part, LITERAL)

    def pick(self, x: torch.Tensor, dim: int) -> None:
        """Note that positions along a dimension are picked by number."""
        for track in self.following.get(x):
            if track.shape[dim] > 1 and dim == max(varying(track)):
                self.following.freeze(track, "a position in it is picked by number")

    def multiplied(self, tensor: torch.Tensor, value: float) -> None:
        """Find out whether a factor of a tensor is a power of a count that the same code has computed with."""
        code = calling_code(__file__)
        found = [
            (used, power)
            for used in (*self.numbers.as_integers, *self.numbers.as_values)
            for power in (-0.5, 0.5, -1.0)
            if used.code is code and math.isclose(value, used.value**power, rel_tol=1e-9)
        ]
        if not found:
            return
        used, power = next((pair for pair in reversed(found) if not pair[0].explained), found[-1])
        if self.factor(tensor, used.terms, power):
            used.explained = True
        else:
            self.numbers.as_values.append(AsValue(used.terms, used.value, code))

    def factor(self, tensor: torch.Tensor, terms: Terms, power: float) -> bool:
        """Note that a tensor is multiplied by a power of a count; False if no weights can make up for its change."""
        makers = self.following.storages.makers(tensor)
        if makers is None:
            return False
        for factor in self.factors:  # of a module that is called twice
            if (
                torch.equal(factor.makers, makers)
                and factor.power == power
                and self._key(factor.terms) == self._key(terms)
            ):
                factor.places.append(self._place)
                return True
        self.factors.append(
            Factor(makers, [makers], [self._place], terms, power, self._names.get(_module_running(), ""))
        )
        return True

    def _key(self, terms: Terms) -> set[tuple[tuple[Any, ...], Fraction]]:
        """Terms in a form in which equal ones are equal."""
        classes = self.following.classes
        return {
            (tuple(tuple(classes.of(v.labels).tolist()) if isinstance(v, Labels) else v for v in product), factor)
            for product, factor in terms.items()
        }

    def find_candidates(self) -> None:
        """After the forward pass: find what the tensors with factors are multiplied with."""
        classes = self.following.classes
        for factor in self.factors:
            own = set(classes.of(factor.makers).tolist())
            for pair in self.following.products:
                for one, other in (pair, pair[::-1]):
                    known = any(torch.equal(other, candidate) for candidate in factor.candidates)
                    if not known and set(classes.of(one).tolist()) == own:
                        factor.candidates.append(other)

    def filled(self, result: torch.Tensor, sizes: Sequence[Any]) -> torch.Tensor:
        """Label a new tensor whose size is a count: it has as many channels as that."""
        for dim, size in enumerate(sizes):
            if isinstance(size, Count) and result.dim() == len(sizes) and size == result.shape[dim] > 1:
                labels = self.following.classes.new(int(size))
                self.relations.append(Relation(labels, size.terms))
                self.following.set(result, [labels.reshape([-1 if d == dim else 1 for d in range(len(sizes))])])
                break
        return result


def _merged(before: Sequence[int], after: Sequence[int]) -> list[list[int]]:
    """The groups of dimensions that a view makes one dimension, or takes apart again."""
    groups, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        dims, left, right = [i], before[i], after[j]
        i, j = i + 1, j + 1
        while left != right and (i < len(before) or j < len(after)):
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
                dims.append(i - 1)
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                break
        groups.append(dims)
    return [dims for dims in groups if len(dims) > 1]


Watch = Callable[..., Any]
WATCHED: dict[Any, Watch] = {}
"""What to do after each function of PyTorch that takes or gives sizes."""

HARMLESS = {torch.Tensor.__index__, torch.Tensor.dim}
"""Functions that take counts as no more than numbers of dimensions."""


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
def _shape(sizes: Sizes, result: Any, x: torch.Tensor) -> Any:
    return sizes.size_of(x)


@_watch(torch.Tensor.size)
def _size(sizes: Sizes, result: Any, x: torch.Tensor, dim: Any = None) -> Any:
    return sizes.size_of(x) if dim is None else sizes.size_of(x)[dim]


@_watch(torch.Tensor.view, torch.Tensor.reshape, torch.reshape)
def _view(
    sizes: Sizes, result: Any, x: torch.Tensor, *given: Any, size: Any = None, shape: Any = None, **_: Any
) -> Any:
    if given and isinstance(given[0], torch.dtype):
        return result
    return sizes.reshaped(result, x, _flat(given, size if size is not None else shape))


@_watch(torch.Tensor.view_as, torch.Tensor.reshape_as)
def _view_as(sizes: Sizes, result: Any, x: torch.Tensor, other: torch.Tensor) -> Any:
    return sizes.reshaped(result, x, list(sizes.size_of(other)))


@_watch(torch.Tensor.flatten, torch.flatten)
def _flatten(sizes: Sizes, result: Any, x: torch.Tensor, *_: Any, **__: Any) -> Any:
    return sizes.reshaped(result, x, [None] * result.dim())


@_watch(torch.Tensor.unflatten, torch.unflatten)
def _unflatten(sizes: Sizes, result: Any, x: torch.Tensor, dim: int, given: Any = None, sizes_: Any = None) -> Any:
    dim = int(dim) % x.dim()
    return sizes.reshaped(result, x, [None] * dim + list(given) + [None] * (x.dim() - dim - 1))


@_watch(torch.Tensor.expand)
def _expand(sizes: Sizes, result: Any, x: torch.Tensor, *given: Any, **_: Any) -> Any:
    asked = _flat(given)
    old = [1] * (len(asked) - x.dim()) + list(x.shape)
    for dim, (size, before) in enumerate(zip(asked, old, strict=True)):
        if before > 1 and size != -1:
            for track in sizes.following.get(result):
                if track.shape[dim] > 1:
                    sizes.demand(Sizes._row(track, dim), size)
    return result


@_watch(torch.Tensor.chunk, torch.chunk, torch.Tensor.tensor_split, torch.tensor_split)
def _chunk(sizes: Sizes, result: Any, x: torch.Tensor, chunks: Any, dim: int = 0) -> Any:
    sizes.split(result, x, None, int(dim), given=not isinstance(chunks, int)) if isinstance(chunks, int) else None
    if not isinstance(chunks, int):
        for track in sizes.following.get(x):
            if track.shape[dim] > 1:
                sizes.following.freeze(track, LITERAL)
    return result


@_watch(torch.Tensor.split, torch.split, torch.functional.split, torch.Tensor.split_with_sizes, torch.split_with_sizes)
def _split(sizes: Sizes, result: Any, x: torch.Tensor, given: Any = None, dim: int = 0, **named: Any) -> Any:
    given = next(iter(named.values())) if given is None else given
    if isinstance(given, int):  # all of this size, but for the last
        last = None if sizes.size_of(x)[int(dim)] % int(given) or len(result) == 1 else given
        given = [given] * (len(result) - 1) + [last]
    sizes.split(result, x, given, int(dim), given=True)
    return result


@_watch(torch.Tensor.unbind, torch.unbind, torch.Tensor.select, torch.select)
def _unbind(sizes: Sizes, result: Any, x: torch.Tensor, dim: int = 0, *_: Any) -> Any:
    sizes.pick(x, int(dim) % x.dim())
    return result


@_watch(torch.Tensor.narrow, torch.narrow)
def _narrow(sizes: Sizes, result: Any, x: torch.Tensor, dim: int, start: Any, length: Any) -> Any:
    sizes.cut(x, int(dim) % x.dim(), start, start + length)
    return result


@_watch(torch.Tensor.__getitem__)
def _getitem(sizes: Sizes, result: Any, x: torch.Tensor, index: Any) -> Any:
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
def _setitem(sizes: Sizes, result: Any, x: torch.Tensor, index: Any, value: Any) -> Any:
    return _getitem(sizes, result, x, index)


@_watch(torch.roll, torch.Tensor.roll)
def _roll(sizes: Sizes, result: Any, x: torch.Tensor, shifts: Any, dims: Any = ()) -> Any:
    pairs = [(shifts, dims)] if isinstance(dims, int) else zip(_flat((shifts,)), dims, strict=False)
    for shift, dim in pairs:
        sizes.cut(x, int(dim) % x.dim(), None, -shift)  # what comes from one end to the other
    return result


@_watch(torch.tensor, torch.as_tensor, torch.scalar_tensor)
def _values(sizes: Sizes, result: Any, data: Any, *_: Any, **__: Any) -> Any:
    for count in tree_leaves(data):
        if isinstance(count, Count):
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
def _new(sizes: Sizes, result: Any, x: torch.Tensor, *given: Any, size: Any = None, **_: Any) -> Any:
    first = given[:1] if given and isinstance(given[0], (tuple, list)) else given
    return sizes.filled(result, _flat(first, size))


@_watch(F.layer_norm, F.rms_norm)
def _layer_norm(sizes: Sizes, result: Any, x: torch.Tensor, normalized_shape: Any, *_: Any, **__: Any) -> Any:
    for dim, size in enumerate(reversed(tuple(normalized_shape)), start=1):
        for track in sizes.following.get(result):
            if track.shape[-dim] > 1:
                sizes.demand(Sizes._row(track, track.dim() - dim), size)
    return result


def _before_attention(sizes: Sizes, query: torch.Tensor, *_: Any, **named: Any) -> None:
    """The queries are divided by the root of the number of their channels, unless the code gives a scale."""
    scale = named.get("scale")
    if isinstance(scale, float):
        sizes.multiplied(query, scale)
    for track in sizes.following.get(query) if scale is None else ():
        if track.shape[-1] > 1:
            terms: Terms = {(Labels(Sizes._row(track, track.dim() - 1)),): Fraction(1)}
            if not sizes.factor(query, terms, -0.5):
                sizes.following.freeze(track, "attention divides by the root of its number")


def _before_product(sizes: Sizes, one: Any, other: Any, *_: Any, **__: Any) -> None:
    for tensor, value in ((one, other), (other, one)):
        if isinstance(tensor, torch.Tensor) and isinstance(value, float):
            sizes.multiplied(tensor, value)


def _before_quotient(sizes: Sizes, one: Any, other: Any, *_: Any, **__: Any) -> None:
    if isinstance(one, torch.Tensor) and isinstance(other, float) and other:
        sizes.multiplied(one, 1 / other)


BEFORE: dict[Any, Watch] = {
    F.scaled_dot_product_attention: _before_attention,
    **dict.fromkeys((torch.Tensor.mul, torch.Tensor.mul_, torch.mul, torch.Tensor.__rmul__), _before_product),
    **dict.fromkeys((torch.Tensor.div, torch.Tensor.div_, torch.div, torch.true_divide), _before_quotient),
}
"""What to do before functions that multiply by values."""


def _module_running() -> Any:
    frame: Any = inspect.currentframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            return module
        frame = frame.f_back
    return None

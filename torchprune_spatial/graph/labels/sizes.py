"""Following the sizes in a network's code: where the numbers in ``view``, ``split`` and slices come from."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn as nn
from torch.overrides import TorchFunctionMode

from .classes import varying
from .counts import Count, Quotient, calling_code, calling_line
from .following import Following
from .notes import AsValue, Factor, Labels, Numbers, Relation, Terms

LITERAL = "the code has a number for it"

Watch = Callable[..., Any]
WATCHED: dict[Any, Watch] = {}
"""What to do after each function of PyTorch that takes or gives sizes: see `size_rules`."""

FILLING: dict[Any, Watch] = {}
"""Those of them that give sizes, and make new tensors of these."""

BEFORE: dict[Any, Watch] = {}
"""What to do before functions that multiply by values."""

HARMLESS = {torch.Tensor.__index__, torch.Tensor.dim}
"""Functions that take counts as no more than numbers of dimensions."""


class Sizes(TorchFunctionMode):
    """Gives the code counts in place of integers for sizes, and notes what the numbers that it passes back demand.

    Attributes:
        relations: the demands that are equations; those that are equal numbers in blocks stand in the `Following`.
        factors: powers of counts with which tensors are multiplied.
        numbers: the uses of counts.
        choices: labels of tensors in views of which more than one dimension could lose positions, ``[n]`` each.
        has_filled: whether new tensors have got labels, because their size is a count.
    """

    def __init__(
        self,
        following: Following,
        names: Mapping[nn.Module, str] | None = None,
        held: Collection[int] = (),
        watched: Mapping[Any, Watch] = WATCHED,
    ):
        super().__init__()
        self._watched, self.has_filled = watched, False
        self.choices: list[torch.Tensor] = []
        self._held = held
        self.following, self.numbers, self._names = following, Numbers(), names or {}
        self.relations: list[Relation] = []
        self.factors: list[Factor] = []
        self._place = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function; then note what its sizes demand."""
        kwargs = kwargs or {}
        watch = self._watched.get(function)
        first, named = _first_by_position(args, kwargs)
        if function in BEFORE:
            self._place += 1
            BEFORE[function](self, *first, **named)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Quotient):
                value.value()
        followed, self.numbers.following = self.numbers.following, False  # what PyTorch computes demands nothing
        try:
            result = function(*args, **kwargs)
        finally:
            self.numbers.following = followed
        if watch is not None:
            with torch.utils._python_dispatch._disable_current_modes():  # what is done to labels is no step of the code
                return watch(self, result, *first, **named)
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
                row = self.row_of(track, dim)
                sizes[dim] = Count(sizes[dim], {(Labels(row),): Fraction(1)}, self.numbers)
        return torch.Size(sizes)

    def recognized(self, size: Any) -> Any:
        """A size as the count that the same code has made a plain integer of, if it has."""
        if isinstance(size, Count) or not isinstance(size, int) or not self.numbers.as_integers:
            return size
        code = calling_code()
        for used in reversed(self.numbers.as_integers):
            if used.code is code and used.value == size:
                return Count(size, used.terms, self.numbers)
        return size

    @staticmethod
    def row_of(track: torch.Tensor, dim: int) -> torch.Tensor:
        """The first row of labels along a dimension, ``[size]``."""
        return track.movedim(dim, -1).reshape(-1, track.shape[dim])[0]

    @staticmethod
    def _forget_einops() -> None:
        """einops caches shapes by their values; cached counts would belong to other tensors."""
        einops = sys.modules.get("einops.einops")
        for cached in ("_reconstruct_from_shape", "_prepare_transformation_recipe"):
            getattr(getattr(einops, cached, None), "cache_clear", lambda: None)()

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
            labels, can = track.flatten(), [dim for dim in along if not self._is_rigid(sizes[dim])]
            if len([dim for dim in along if sizes[dim] in (None, -1) or isinstance(sizes[dim], Count)]) > 1:
                self.choices.append(labels)
                if len(can) > 1 and self._held and all(label in self._held for label in labels.tolist()):
                    can = can[:1]
            if not can:
                self.following.freeze(track, LITERAL)
                continue
            free = can[-1]
            for dim in along:
                if dim > free:
                    track = classes.unite_along(track, dim)
                if dim != free and isinstance(sizes[dim], Count):
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
        code = calling_code()
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
            self.numbers.as_values.append(AsValue(used.terms, used.value, code, calling_line()))

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
                return self.grown(result, dim, size)
        return result

    def grown(self, result: torch.Tensor, dim: int, size: Count) -> torch.Tensor:
        """Label a new tensor that has as many blocks as a count along a dimension."""
        labels, self.has_filled = self.following.classes.new(int(size)), True
        self.relations.append(Relation(labels, size.terms))
        rows = labels.repeat_interleave(result.shape[dim] // len(labels))
        track = rows.reshape([-1 if d == dim else 1 for d in range(result.dim())])
        self.following.set(result, [*self.following.get(result), track])
        return result


def _first_by_position(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments of a function of PyTorch with its first tensor, which has several names, by position."""
    name = next((name for name in ("input", "self", "tensor") if name in kwargs), None)
    if args or name is None:
        return args, kwargs
    return (kwargs[name],), {key: value for key, value in kwargs.items() if key != name}


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


def _module_running() -> Any:
    frame: Any = inspect.currentframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            return module
        frame = frame.f_back
    return None

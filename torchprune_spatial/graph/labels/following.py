"""What operations do to labels: combining element by element, contracting, reducing and moving."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from .classes import LabelClasses, compressed, varying
from .steps import Step
from .storages import LabelledStorages, storage_key

Tracks = list[torch.Tensor]

_LIBRARIES = tuple(f"{Path(path).parent}/" for path in (torch.__file__, __file__))


class Following:
    """The labels of all tensors of a forward pass, and the ways in which operations change them.

    Attributes:
        classes: the labels' classes.
        storages: the labels of each tensor.
        equal_counts: tensors of labels ``[blocks, size]``: each block must lose equally many labels.
        averages: names of operations that averaged over labels (norms, softmax, means). Removing a channel changes
            what these compute from the others.
        unknown: names of operations without a rule; the labels that they touched are frozen.
        steps: all operations, in order.
        used: keys of the storages of labelled tensors that were arguments of operations.
        made: labels of the outputs of convolutions and matrix products with weights.
        products: pairs of ``makers``, as for `LabelledStorages.set`, of tensors that are multiplied with each other.
    """

    def __init__(self, classes: LabelClasses):
        self.classes, self.storages = classes, LabelledStorages(classes)
        self.equal_counts: list[torch.Tensor] = []
        self.averages: set[str] = set()
        self.unknown: set[str] = set()
        self.steps: list[Step] = []
        self.used: set[tuple[int, int]] = set()
        self.made: list[torch.Tensor] = []
        self.products: list[tuple[torch.Tensor, torch.Tensor]] = []

    def get(self, tensor: torch.Tensor) -> Tracks:
        """The compressed tracks of a tensor."""
        return self.storages.get(tensor)

    def set(self, tensors: Any, tracks: Tracks, makers: torch.Tensor | None = None) -> None:
        """Label one or several tensors; ``makers`` as for `LabelledStorages.set`."""
        for tensor in tensors_in(tensors):
            self.storages.set(tensor, tracks, makers)

    def freeze(self, labels: torch.Tensor, why: str) -> None:
        """Freeze labels, and note the line of the network's code that runs."""
        if bool(self.classes.of(labels).any()):
            self.classes.freeze(labels, f"{why}{line_of_code()}")

    def equal(self, blocks: torch.Tensor) -> None:
        """Note that each of the blocks of labels ``[blocks, size]`` must lose equally many."""
        if min(blocks.shape) > 0 and blocks.shape[0] > 1:
            self.equal_counts.append(blocks.clone())

    def combine(
        self, one: torch.Tensor, tracks: Tracks, other: torch.Tensor, others: Tracks, shape: Sequence[int]
    ) -> Tracks:
        """Unite the labels of two tensors that are combined element by element.

        Args:
            one, other: the tensors, which broadcast to ``shape``.
            tracks, others: their tracks.
            shape: the shape of the result.

        Returns:
            The tracks of the result.
        """
        one, other = _aligned(one, len(shape)), _aligned(other, len(shape))
        tracks, others = [_aligned(t, len(shape)) for t in tracks], [_aligned(t, len(shape)) for t in others]
        here, there = varying(one), varying(other)
        result, met = [], dict[int, set[int]]()
        for track in sorted(tracks, key=lambda track: -max(varying(track), default=-1)):
            shared = [
                (len(varying(track) & varying(t)), i)
                for i, t in enumerate(others)
                if varying(track) & varying(t) and varying(track) <= there and varying(t) <= here
            ]
            i = max(shared, default=(0, -1))[1]
            if i >= 0 and met.setdefault(i, varying(track)) == varying(track):  # of several dimensions the innermost
                self.classes.unite(track, others[i], line_of_code_once())
                wider = track if len(varying(track)) >= len(varying(others[i])) else others[i]
                result.append(self.classes.of(wider))
            else:
                result += self._against_unlabelled(track, other)
        for i, track in enumerate(others):
            if i not in met:
                result += self._against_unlabelled(track, one)
        return result

    def _against_unlabelled(self, track: torch.Tensor, other: torch.Tensor) -> Tracks:
        """The result of combining labels with values that have none: these must repeat, or they cannot shrink."""
        dims = varying(track)
        if all(other.shape[dim] > 1 for dim in dims) and not any(self.adapts(other, dim) for dim in dims):
            self.freeze(track, "it is combined with values that cannot lose a channel")
            return []
        return [track]

    def adapts(self, tensor: torch.Tensor, dim: int) -> bool:
        """Whether an unlabelled tensor could be longer along a dimension: its values repeat as it was made."""
        return storage_key(tensor) not in self.storages.parameters and repeats(tensor, dim)

    def elementwise(self, tensors: Sequence[torch.Tensor], shape: Sequence[int]) -> Tracks:
        """Unite the labels of tensors that are combined element by element; the tracks of the result."""
        so_far, tracks = tensors[0], self.get(tensors[0])
        for tensor in tensors[1:]:
            tracks = self.combine(so_far, tracks, tensor, self.get(tensor), shape)
            so_far = so_far if so_far.numel() >= tensor.numel() else tensor
        return [_aligned(track, len(shape)) for track in tracks]

    def contract(self, one: torch.Tensor, other: torch.Tensor) -> Tracks:
        """Unite the labels along the contracted side of ``[..., m, k] @ [..., k, n]``; the tracks of the result."""
        left, right, size = self.get(one), self.get(other), one.shape[-1]
        along_left = [t for t in left if t.shape[-1] > 1]
        along_right = [t for t in right if t.shape[-2] > 1]
        passing, made = [t for t in left if t.shape[-1] == 1], [t for t in right if t.shape[-2] == 1]
        if storage_key(other) in self.storages.parameters:
            self.made += made
        shape = (*one.shape[:-1], other.shape[-1])
        result = self.combine(one[..., :1], passing, other[..., :1, :], made, shape)
        if size > 1:
            lines = [self.classes.unite_along(t, t.dim() - 2).squeeze(-2) for t in along_left]
            columns = [self.classes.unite_along(t, t.dim() - 1).squeeze(-1) for t in along_right]
            self.unite_sides(lines, columns)
        return result

    def unite_sides(self, ones: Tracks, others: Tracks) -> None:
        """Unite the labels of the two sides of a contraction; freeze them if one side has none."""
        if not ones or not others:
            for track in (*ones, *others):
                self.freeze(track, "it meets channels that no layer makes")
            return
        for track in ones:
            self.classes.unite(track, others[0])
        for track in others[1:]:
            self.classes.unite(track, ones[0])

    def collapse(self, track: torch.Tensor, dims: Iterable[int], why: str = "") -> torch.Tensor | None:
        """A track after an operation that mixes the elements along some dimensions; None if nothing is left of it.

        Labels that vary along other dimensions too are united along these.
        """
        dims = set(dims)
        free = self.free_dimension(track) if len(varying(track)) > 1 and varying(track) & dims else None
        if free in dims:  # each row keeps equally many positions: nothing is left of which they are
            return None
        if varying(track) <= dims:
            if why:
                self.freeze(track, why)
            return None
        for dim in varying(track) & dims:
            track = self.classes.unite_along(track, dim, line_of_code_once())
        return track

    def free_dimension(self, track: torch.Tensor) -> int | None:
        """The dimension in which rows of labels lose equally many, from any positions; None if there is none."""
        for blocks in reversed(self.equal_counts):
            block = self.blocks_of(track, blocks)
            if bool((block >= 0).all()):
                for dim in sorted(varying(track), reverse=True):
                    if bool((block == block.narrow(dim, 0, 1)).all()):
                        return dim
        return None

    def blocks_of(self, labels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """In which of some blocks labels lie; -1 for those that are in none."""
        block_of = torch.full((len(self.classes),), -1)
        block_of[self.classes.of(blocks)] = torch.arange(len(blocks)).unsqueeze(1).expand_as(blocks)
        return block_of[self.classes.of(labels)]

    def moved(self, track: torch.Tensor, tensor: torch.Tensor, move: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """Move the labels of a tensor by the operation that moves the tensor."""
        whole = track.expand(tensor.shape).contiguous()
        try:
            return compressed(move(whole))
        except (RuntimeError, NotImplementedError):  # some operations know no integers
            return compressed(move(whole.double()).long())


OF_TRACKS = torch.zeros(0, dtype=torch.long)
"""As ``makers``: the tensor is a linear function of the weights whose labels it carries."""


def on_cpu(values: Any) -> Any:
    """Arguments of an operation, with tensors of indices where the labels are."""
    return tree_map(lambda value: value.cpu() if isinstance(value, torch.Tensor) else value, values)


def tensors_in(values: Any) -> list[torch.Tensor]:
    """The tensors among arguments or results."""
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def repeats(tensor: torch.Tensor, dim: int) -> bool:
    """Whether the values of a tensor repeat along a dimension, so that it could be shorter or longer."""
    if tensor.shape[dim] == 1 or tensor.stride(dim) == 0:
        return True
    first, last = tensor.narrow(dim, 0, 1), tensor.narrow(dim, tensor.shape[dim] - 1, 1)
    return torch.equal(first, last) and bool((tensor == first).all())


def line_of_code() -> str:
    """The line of the network's own code that runs now, as `` (file.py:12: y = x + 1)``; empty if there is none."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_LIBRARIES) and frame.line and "/torch_pruning/" not in frame.filename:
            return f" ({Path(frame.filename).name}:{frame.lineno}: {frame.line.strip()[:100]})"
    return ""


def line_of_code_once() -> str:
    """The reason for a union: it is needed only when the union freezes something."""
    return "it is tied to channels that cannot be removed"


def _aligned(tensor: torch.Tensor, dims: int) -> torch.Tensor:
    return tensor.reshape([1] * (dims - tensor.dim()) + list(tensor.shape)) if tensor.dim() < dims else tensor

"""Labels and their classes: a union-find in tensors."""

from __future__ import annotations

import copy

import numpy as np
import torch

FROZEN = 0
"""The label of whatever cannot be removed; it also stands where a tensor has no label."""


class LabelClasses:
    """Labels in disjoint classes. All labels of a class are removed together; the class of label 0 is never removed.

    A class is named by the smallest of its labels. Each label points to a smaller one of its class; the smallest points
    to itself. Pointers are followed when classes are asked for, so that a union costs no more than its labels.

    Attributes:
        reasons: the texts that ``reason_of`` refers to; the first is empty.
        reason_of: for each label, the position in ``reasons`` of why it was frozen, ``[labels]`` int64.
        unions: how many times classes have been united.
        joined: while classes are ``watched``, the pairs of watched classes that were united, ``(smaller, larger)``.
    """

    def __init__(self) -> None:
        self._pointer = torch.zeros(1, dtype=torch.long)  # longer than needed: the labels to come point to themselves
        self._count, self._watched, self._flat = 1, 0, True  # flat: all labels point to their class
        self.reasons, self.reason_of = [""], torch.zeros(1, dtype=torch.long)
        self.joined: set[tuple[int, int]] = set()
        self.unions = 0

    def __len__(self) -> int:
        return self._count

    @property
    def root(self) -> torch.Tensor:
        """The class of each label, ``[labels]`` int64."""
        self._flatten()
        return self._pointer[: self._count].clone()

    def _flatten(self) -> None:
        """Let all labels point to their classes."""
        if not self._flat:
            self.of(torch.arange(self._count))
            self._flat = True

    def __deepcopy__(self, memo: object) -> LabelClasses:
        copied = LabelClasses()
        copied._pointer, copied.reason_of = self.root, self.reason_of[: len(self)].clone()
        copied.reasons, copied.joined = [*self.reasons], {*self.joined}
        copied._count, copied._watched, copied.unions = len(self), self._watched, self.unions
        return copied

    def watched(self) -> LabelClasses:
        """A copy that notes in ``joined`` when any two of the present classes are united."""
        copied = copy.deepcopy(self)
        copied.joined, copied._watched = set(), len(self)
        return copied

    @property
    def are_watched(self) -> bool:
        """Whether unions of older classes are being noted."""
        return self._watched > 0

    def new(self, count: int) -> torch.Tensor:
        """Make ``count`` labels, each a class of its own, ``[count]``."""
        labels = torch.arange(self._count, self._count + count)
        self._count += count
        room = len(self._pointer)
        if self._count > room:
            self._pointer = torch.cat([self._pointer, torch.arange(room, 2 * self._count)])
            self.reason_of = torch.cat([self.reason_of, torch.zeros(2 * self._count - room, dtype=torch.long)])
        return labels

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """The classes of labels, in the same shape."""
        if self._flat:
            return self._pointer[labels]
        found, above = labels, self._pointer[labels]
        hops = 0
        while not torch.equal(found, above):
            found, above, hops = above, self._pointer[above], hops + 1
        if hops > 1:
            self._pointer[labels] = found
        return found

    def unite(self, one: torch.Tensor, other: torch.Tensor, reason: str = "") -> None:
        """Unite the classes of two tensors of labels, element by element; they are broadcast against each other.

        Args:
            one, other: labels.
            reason: why, for those classes that are frozen by it.
        """
        a, b = torch.broadcast_tensors(self.of(one), self.of(other))
        differ = a != b
        if not differ.any():
            return
        a, b = a[differ], b[differ]
        if self._watched:
            codes = torch.unique(torch.minimum(a, b) * self._count + torch.maximum(a, b))
            larger = codes % self._count
            codes, larger = codes[larger < self._watched], larger[larger < self._watched]
            self.joined.update(zip((codes // self._count).tolist(), larger.tolist(), strict=True))
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        involved = self.distinct(torch.cat([a, b]))
        ends = [torch.searchsorted(involved, end).numpy() for end in (a, b)]
        edges = coo_array((np.ones(len(a)), tuple(ends)), shape=(len(involved),) * 2)
        count, component = connected_components(edges, directed=False)
        component = torch.from_numpy(component).long()
        smallest = torch.full((count,), self._count).scatter_reduce(0, component, involved, "amin")
        smallest = smallest[component]
        if bool((smallest == FROZEN).any()):
            self._flatten()
            freezes = torch.zeros(self._count, dtype=torch.bool)
            freezes[involved[smallest == FROZEN]] = True
            freezes[FROZEN] = False
            frozen = freezes[self._pointer[: self._count]].nonzero().flatten()
            self._pointer[frozen], self.reason_of[frozen] = FROZEN, len(self.reasons)
            self.reasons.append(reason)
        self._flat = self._flat and count == 1 and int(smallest[0]) == FROZEN
        self._pointer[involved] = smallest
        self.unions += 1

    def distinct(self, labels: torch.Tensor) -> torch.Tensor:
        """The different ones of some labels, in order; without sorting them where they are many."""
        if labels.numel() < self._count:
            return torch.unique(labels)
        found = torch.zeros(self._count, dtype=torch.bool)
        found[labels.reshape(-1)] = True
        return found.nonzero().flatten()

    def freeze(self, labels: torch.Tensor, reason: str) -> None:
        """Put the classes of labels among those that are never removed."""
        self.unite(labels.reshape(-1), torch.tensor([FROZEN]), reason)

    def unite_along(self, labels: torch.Tensor, dim: int, reason: str = "") -> torch.Tensor:
        """Unite labels that differ only by their position along a dimension; return them with size 1 there."""
        if labels.shape[dim] > 1:
            self.unite(labels, labels.narrow(dim, 0, 1), reason)
        return self.of(labels.narrow(dim, 0, 1))


def varying(labels: torch.Tensor) -> set[int]:
    """The dimensions along which a compressed tensor of labels varies."""
    return {dim for dim, size in enumerate(labels.shape) if size > 1}


def compressed(labels: torch.Tensor) -> torch.Tensor:
    """Labels with size 1 along each dimension along which they do not vary."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1:
            first = labels.narrow(dim, 0, 1)
            same = labels.stride(dim) == 0 or (
                torch.equal(first, labels.narrow(dim, labels.shape[dim] - 1, 1)) and bool((labels == first).all())
            )
            labels = first if same else labels
    return labels

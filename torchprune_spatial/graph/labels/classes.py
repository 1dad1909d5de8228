"""Labels and their classes: a union-find in tensors."""

from __future__ import annotations

import numpy as np
import torch
FROZEN = 0
"""The label of whatever cannot be removed; it also stands where a tensor has no label."""


class LabelClasses:
    """Labels in disjoint classes. All labels of a class are removed together; the class of label 0 is never removed.

    Attributes:
        root: for each label, the smallest label of its class, ``[labels]`` int64.
        reasons: the texts that ``reason_of`` refers to; the first is empty.
        reason_of: for each label, the position in ``reasons`` of why it was frozen, ``[labels]`` int64.
        joined: while classes are ``watched``, the pairs of watched classes that were united, ``(smaller, larger)``.
    """

    def __init__(self) -> None:
        self.root = torch.zeros(1, dtype=torch.long)
        self.reasons, self.reason_of = [""], torch.zeros(1, dtype=torch.long)
        self.joined: set[tuple[int, int]] = set()
        self._watched = 0

    def watched(self) -> LabelClasses:
        """A copy that notes in ``joined`` when any two of the present classes are united."""
        copied = LabelClasses()
        copied.root, copied.reason_of, copied.reasons = self.root.clone(), self.reason_of.clone(), [*self.reasons]
        copied._watched = len(self.root)
        return copied

    @property
    def are_watched(self) -> bool:
        """Whether unions of older classes are being noted."""
        return self._watched > 0

    def new(self, count: int) -> torch.Tensor:
        """Make ``count`` labels, each a class of its own, ``[count]``."""
        labels = torch.arange(len(self.root), len(self.root) + count)
        self.root = torch.cat([self.root, labels])
        self.reason_of = torch.cat([self.reason_of, torch.zeros(count, dtype=torch.long)])
        return labels

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """The classes of labels, in the same shape."""
        return self.root[labels]

    def unite(self, one: torch.Tensor, other: torch.Tensor, reason: str = "") -> None:
        """Unite the classes of two tensors of labels, element by element; they are broadcast against each other.

        Args:
            one, other: labels.
            reason: why, for those classes that are frozen by it.
        """
        a, b = torch.broadcast_tensors(self.root[one], self.root[other])
        differ = a != b
        if not differ.any():
            return
        a, b = a[differ], b[differ]
        pairs = torch.unique(torch.stack([torch.minimum(a, b), torch.maximum(a, b)]), dim=1)
        if self._watched:
            watched = pairs[:, pairs[1] < self._watched]
            self.joined.update(zip(watched[0].tolist(), watched[1].tolist(), strict=True))
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        involved, ends = torch.unique(pairs, return_inverse=True)
        edges = coo_array((np.ones(ends.shape[1]), (ends[0].numpy(), ends[1].numpy())), shape=(len(involved),) * 2)
        count, component = connected_components(edges, directed=False)
        component = torch.from_numpy(component).long()
        smallest = torch.full((count,), len(self.root)).scatter_reduce(0, component, involved, "amin")
        renamed = torch.arange(len(self.root))
        renamed[involved] = smallest[component]
        thawed = self.root != FROZEN
        self.root = renamed[self.root]
        frozen = thawed & (self.root == FROZEN)
        if frozen.any():
            self.reasons.append(reason)
            self.reason_of[frozen] = len(self.reasons) - 1

    def freeze(self, labels: torch.Tensor, reason: str) -> None:
        """Put the classes of labels among those that are never removed."""
        self.unite(labels.reshape(-1), torch.tensor([FROZEN]), reason)

    def unite_along(self, labels: torch.Tensor, dim: int, reason: str = "") -> torch.Tensor:
        """Unite labels that differ only by their position along a dimension; return them with size 1 there."""
        if labels.shape[dim] > 1:
            self.unite(labels, labels.narrow(dim, 0, 1), reason)
        return self.root[labels.narrow(dim, 0, 1)]


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

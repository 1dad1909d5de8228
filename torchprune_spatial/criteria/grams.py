"""Gram matrices of the channels of a group, one for each layer that reads them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterator

import torch
import torch.nn as nn
from torch_pruning.dependency import Group

from ..graph.groups import Member, members_that_read
from ..graph.layers import mixes_channels
from ..graph.private_names import graph_of


class Gram:
    """The Gram matrix of rows that come in parts. It is computed only when there are more rows than channels."""

    def __init__(self, rows: torch.Tensor, matrix: torch.Tensor | float = 0.0):
        self._rows, self._matrix = rows, matrix  # [rows, channels] float32, [channels, channels] float64
        if rows.shape[0] > rows.shape[1]:
            self._rows, self._matrix = rows[:0], self.matrix()

    def __add__(self, other: Gram) -> Gram:
        return Gram(torch.cat([self._rows, other._rows]), self._matrix + other._matrix)

    def matrix(self, channels: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """The matrix of all channels, or of some: ``[channels, channels]`` float64."""
        rows, known = self._rows[:, channels], torch.as_tensor(self._matrix)
        return (rows.mT @ rows).double() + (known[channels][:, channels] if known.ndim else known)

    def cpu(self) -> Gram:
        """A copy on the CPU."""
        return Gram(self._rows.cpu(), torch.as_tensor(self._matrix).cpu())

    def is_finite(self) -> bool:
        """Whether the matrix is free of NaN and infinity."""
        return bool(self._rows.sum().isfinite() and torch.as_tensor(self._matrix).sum().isfinite())


def grams_of_readers(
    group: Group, layers: Container[nn.Module], gram_of: Callable[[Member], torch.Tensor]
) -> dict[nn.Module, torch.Tensor]:
    """Collect the Gram matrices of a group's channels, one for each layer that reads them.

    If any of the layers mixes channels, those that do not are left out.

    Args:
        group: the channels.
        layers: the layers that may be used.
        gram_of: gives the matrix of a member, ``[channels, channels]``. The matrices of one layer are added.
    """
    members = members_that_read(group, layers)
    grams: dict[nn.Module, torch.Tensor] = {}
    for member in [member for member in members if mixes_channels(member.layer)] or members:
        found = gram_of(member)
        grams[member.layer] = grams[member.layer] + found if member.layer in grams else found
    return grams


class GramsOfGroups:
    """Keeps the matrices from which groups were scored, for folding."""

    def __init__(self) -> None:
        self._grams: weakref.WeakKeyDictionary[nn.Module, dict[nn.Module, torch.Tensor]] = weakref.WeakKeyDictionary()

    def keep(self, group: Group, grams: dict[nn.Module, torch.Tensor]) -> None:
        """Keep the matrices that `grams_of_readers` gave for a group."""
        self._grams[group[0].dep.target.module] = grams

    def readers(self, group: Group) -> Iterator[tuple[Member, torch.Tensor]]:
        """Yield the layers that read the group's channels, as members for all channels that were scored, with matrices.

        Args:
            group: the group, with some of its channels.

        Raises:
            ValueError: the group was not scored.
        """
        dep = group[0].dep
        grams = self._grams.get(dep.target.module)
        if grams is None:
            raise ValueError("group was not scored by this importance: call fold in the step that scores it")
        channels = len(next(iter(grams.values())))
        everything = graph_of(group).get_pruning_group(dep.target.module, dep.handler, list(range(channels)))
        for member in members_that_read(everything, grams):
            yield member, grams[member.layer]

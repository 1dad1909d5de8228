"""Channels from which the others are best interpolated, with every region of the image of the same weight."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
from torch_pruning.dependency import Group

from ..calibration.measurements import Measurement, Reading
from ..graph.groups import Member
from .grams import Gram, GramsOfGroups, grams_of_readers, mixes_channels
from .ranking import places

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, are spread evenly, however many are taken."""
PRODUCTS = 2**21
"""For each region and image; layers that read more than 181 channels are sampled more thinly for it, in four cells at
least."""
RIDGE = 1e-2
"""Of the mean energy of the kept channels; holds the factors of nearly equal channels down."""


class _RegionGrams:
    """One Gram matrix a region, of which later batches may bring more."""

    def __init__(self, grams: list[Gram]):
        self.grams = grams

    def __add__(self, other: _RegionGrams) -> _RegionGrams:
        pairs = itertools.zip_longest(self.grams, other.grams)
        return _RegionGrams([a + b if a and b else a or b for a, b in pairs])


@dataclass(frozen=True)
class RegionGrams(Measurement):
    """Products of the activations of each pair of channels, summed over sampled cells of each region.

    The values are one `Gram` for each region that is present. A cell weighs as much as the region covers of it. Samples
    follow a low-discrepancy sequence, the same in every pass.

    Attributes:
        samples: cells that are sampled in each region of an image; where a grid has no more than that, all count. Of
            layers that read many channels fewer are sampled, because the cost goes with the channels squared.
    """

    samples: int = 64
    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> _RegionGrams:
        """Gram matrices of the samples."""
        x = reading.cells
        coverage = cast(torch.Tensor, reading.weights)[:, 1]  # needs_regions
        samples = min(self.samples, max(4, PRODUCTS // x.shape[1] ** 2))
        if x.shape[2] <= samples:
            return _RegionGrams([_gram(x, region) for region in coverage.unbind(1)])
        place = torch.arange(len(x) * samples, device=x.device, dtype=torch.float64).mul(GOLDEN).frac()
        place = place.view(len(x), 1, -1) * coverage.sum(2, dtype=torch.float64, keepdim=True)
        cells = torch.searchsorted(coverage.cumsum(2, dtype=torch.float64), place, right=True).clamp_(
            max=x.shape[2] - 1
        )
        weights = (coverage.sum(2, keepdim=True) / samples).expand(-1, -1, samples)
        sampled = zip(cells.unbind(1), weights.unbind(1), strict=True)
        return _RegionGrams([_gram(x.gather(2, c.unsqueeze(1).expand(-1, x.shape[1], -1)), w) for c, w in sampled])

    def result(self, total: _RegionGrams, present: torch.Tensor, reader: str) -> tuple[Gram, ...]:
        """The matrices of the regions that are present."""
        return tuple(gram.cpu() for gram, is_present in zip(total.grams, present.tolist(), strict=False) if is_present)

    @staticmethod
    def is_finite(values: tuple[Gram, ...]) -> bool:
        """Whether the matrices are."""
        return all(gram.is_finite() for gram in values)


def _gram(x: torch.Tensor, weights: torch.Tensor) -> Gram:
    """Of ``[images, channels, cells]`` with weights ``[images, cells]``."""
    return Gram((x * weights.unsqueeze(1).sqrt()).movedim(1, 2).flatten(0, 1))


class Interpolation:
    """The interpolative decomposition of the channels of a network's groups.

    Chee, Renz, Damle, De Sa, "Model preserving compression for neural networks", NeurIPS 2022: the pivots of a QR
    decomposition with column pivoting of the activations are the channels to keep, and the others are folded as linear
    combinations of them into the next layer. Ours is that each region has the same weight, however small it is, that
    channels of several layers are decomposed together, and that all the layers are decomposed in one pass.

    Attributes:
        measurement: what `score` gets the values of.
    """

    def __init__(self) -> None:
        self.measurement = RegionGrams()
        self._grams = GramsOfGroups()

    def score(self, group: Group, values: Mapping[nn.Module, tuple[Gram, ...]]) -> torch.Tensor | None:
        """Place of each channel among the pivots, 1 for the first: ``[channels]``, or None if no layer reads them."""
        channels = len(group[0].idxs)
        grams = grams_of_readers(group, values, lambda member: _balanced(values[member.layer], member, channels))
        if not grams:
            return None
        self._grams.keep(group, grams)
        return places(pivots(cast(torch.Tensor, sum(grams.values()))))

    def fold(self, group: Group) -> None:
        """Let the next layers read what is about to go from what stays; see `SpatialMaskImportance.fold`."""
        for member, gram in self._grams.readers(group, "fold"):
            if mixes_channels(member.layer):
                goes = torch.zeros(len(gram), dtype=torch.bool)
                goes[group[0].idxs] = True
                for columns, positions in _uses(member):
                    _fold(member.layer, columns, gram[positions][:, positions], goes[positions])


def pivots(gram: torch.Tensor) -> torch.Tensor:
    """The order of the columns in QR with column pivoting, from their Gram matrix: ``[channels]``.

    Each is the one of which the most is left when those before are projected out. The rest, of which nothing is left,
    come by energy.
    """
    left, energy = gram.diag().clone(), gram.diag()
    rows, order = torch.zeros_like(gram), list[int]()
    for step in range(len(gram)):
        left[order] = -torch.inf
        best = int(left.argmax())
        if left[best] <= 1e-9 * energy[best]:
            rest = energy.clone()
            rest[order] = -torch.inf
            return torch.tensor([*order, *rest.argsort(descending=True, stable=True)[: len(gram) - step].tolist()])
        order.append(best)
        rows[step] = (gram[best] - rows[:step, best] @ rows[:step]) / left[best].sqrt()
        left -= rows[step].square()
    return torch.tensor(order)


def _uses(member: Member) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Channels of a layer and their positions in the group, a pair for each time that it reads a channel (flatten)."""
    seen: dict[int, int] = {}
    uses: dict[int, list[tuple[int, int]]] = {}
    for channel, position in zip(member.channels.tolist(), member.positions.tolist(), strict=True):
        use = seen[position] = seen.get(position, -1) + 1
        uses.setdefault(use, []).append((channel, position))
    return [cast(tuple[torch.Tensor, torch.Tensor], torch.tensor(pairs).unbind(1)) for pairs in uses.values()]


def _balanced(regions: tuple[Gram, ...], member: Member, channels: int) -> torch.Tensor:
    """Gram matrix of a group's channels, ``[channels, channels]``: the sum of the regions', each over its energy."""
    total = torch.zeros(channels, channels, dtype=torch.float64)
    for gram in regions:
        of_group = torch.zeros_like(total)
        for columns, positions in _uses(member):
            of_group[positions.unsqueeze(1), positions] += gram.matrix(columns)
        total += of_group / of_group.trace().clamp_min(1e-300)
    return total


@torch.no_grad()
def _fold(layer: Any, columns: torch.Tensor, gram: torch.Tensor, goes: torch.Tensor) -> None:
    """Add to the weights of the channels that stay those of the channels that go, times the factors of least squares.

    Args:
        layer: that reads them.
        columns: its input channels, ``[channels]``.
        gram: their Gram matrix, ``[channels, channels]``.
        goes: which of them go, ``[channels]`` bool.
    """
    groups = getattr(layer, "groups", 1)
    weight = layer.weight.detach().unflatten(0, (groups, -1))  # [groups, out / groups, in / groups, ...]
    weight = weight.transpose(1, 2) if getattr(layer, "transposed", False) else weight
    for i, filters in enumerate(weight.unbind(0)):
        here = columns // filters.shape[1] == i
        kept, gone = (here & ~goes).nonzero().flatten(), (here & goes).nonzero().flatten()
        if not len(kept) or not len(gone):
            continue
        normal = gram[kept][:, kept]
        ridge = (RIDGE * normal.diag().mean()).clamp_min(1e-30)  # of dead channels
        normal = normal + ridge * torch.eye(len(kept), dtype=torch.float64)
        factors = torch.linalg.solve(normal, gram[kept][:, gone]).to(filters)  # [kept, gone]
        from_gone = torch.tensordot(filters[:, columns[gone] % filters.shape[1]], factors, ([1], [1])).movedim(-1, 1)
        filters[:, columns[kept] % filters.shape[1]] += from_gone

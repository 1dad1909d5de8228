"""Interpolative selection: keep the channels from which the others are best interpolated, with equal region weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch_pruning.dependency import Group

from resolution_scaling.ground.arguments import real_number, whole_number

from ..calibration.batches import Forward, Masks
from ..calibration.measurements import Measurement, Reading
from ..calibration.statistics import Calibration
from ..graph.groups import Member
from ..graph.layers import mixes_channels
from ..graph.private_names import graph_of
from .base import CalibratedImportance
from .folding import columns_of, fold_by_least_squares
from .grams import Gram, GramsOfGroups, grams_of_readers
from .ranking import places
from .refitting import Refitting
from .registry import register_criterion
from .sampling import sampled

PRODUCTS = 2**21
"""The largest number of products of two channels per region and image. With the default of 64 samples, layers that read
more than 181 channels are therefore sampled in fewer cells, but in four at least."""


@register_criterion
class InterpolativeImportance(CalibratedImportance):
    """Keep the channels from which the others are best interpolated; every region has the same weight.

    Chee, Renz, Damle, De Sa, "Model preserving compression for neural networks", NeurIPS 2022: a QR decomposition with
    column pivoting of the activations selects the channels to keep, the pivots. The others are replaced by linear
    combinations of them in the next layer (`fold`). The score of a channel is its place among the pivots, from 1 down
    to 0. The nearest later methods are OSSCAR (Meng et al., ICML 2024) and GRAIL (PMLR 328, 2026), which also fold by
    ridge regression, but have no regions.

    Differences from the paper: every region of the image has the same weight, however small it is; channels that
    several layers share are decomposed together; all layers are decomposed after one pass over the data; the least
    squares have a ridge.

    We recommend this criterion, with the allocation ``"sensitivity"`` of `prune_to`, which is the default there; see
    the study in the documentation. The statistics are taken at the first call, and again if the parameters have
    changed. The network is left unchanged until `fold` is called. Channels that are outputs of the network are never
    pruned; a warning names their layers.

    Args:
        loader, threshold, masks: calibration data, and where the objects are; see `SpatialMaskImportance`.
        samples: number of cells that are sampled in each region of an image; of smaller maps, all cells are used.
            Layers that read more than 181 channels are sampled in fewer cells, because the cost grows with the square
            of the number of channels.
        ridge: the penalty of the least squares, in units of the mean energy of the kept channels. It bounds the factors
            of nearly equal channels.
        forward: see `SpatialMaskImportance`.

    Raises:
        TypeError, ValueError: at construction for arguments that cannot be used, and at the first call for what the
            data or the network do not allow (see `collect_statistics`).

    Example:
        >>> importance = tp.importance.InterpolativeImportance(loader)
        >>> record = torchprune_spatial.prune_to(model, example_inputs, importance, compression=10)
    """

    name: ClassVar[str] = "interpolative"
    recommended_allocation: ClassVar[str] = "sensitivity"

    def __init__(
        self,
        loader: Iterable[Any] | Calibration,
        threshold: float | str = 0.5,
        *,
        masks: Masks | None = None,
        samples: int = 64,
        ridge: float = 1e-2,
        forward: Forward | None = None,
    ):
        self.measurement = RegionGrams(whole_number(samples, "samples", unit="cells"))
        self.ridge = real_number(ridge, "ridge", least=0)
        self._grams = GramsOfGroups()
        super().__init__(loader, threshold, masks=masks, forward=forward)
        self._refitting = Refitting(self.calibration, samples, ridge)

    def measurements(self) -> list[Measurement]:
        """A Gram matrix for each region."""
        return [self.measurement]

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Places among the pivots."""
        values, channels = self.statistics(graph_of(group)).values[self.measurement], len(group[0].idxs)
        grams = grams_of_readers(group, values, lambda member: balanced_gram(values[member.layer], member, channels))
        if not grams:
            return None
        self._grams.keep(group, grams)
        scores = places(pivots(cast(torch.Tensor, sum(grams.values()))))
        return scores, scores

    def fold(self, group: Group) -> None:
        """Change the weights of the next layers so that they make up for channels that are about to be removed.

        The removed channels are replaced by linear combinations of the kept ones, fitted by least squares to the
        activations of the calibration data; every region has the same weight. The combinations become part of the
        weights of the layers that read them. Layers that do not mix channels (depthwise convolutions) are not changed.
        Behind group norm and layer norm, the kept channels change too when others are removed. What the layers read
        before is then fitted by what they read without these channels: the network runs twice on 32 of the images, if
        its channels are followed by a `ChannelGraph`, as in `prune_to`.
        `prune_to` folds by itself. With a pruner of your own, call this before the group is pruned, in the same step
        that scored it.

        Args:
            group: channels to be removed, as the pruner yields them.

        Raises:
            ValueError: the group was not scored by this importance.

        Example:
            >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance=importance, pruning_ratio=0.7)
            >>> for group in pruner.step(interactive=True):
            ...     importance.fold(group)
            ...     group.prune()
        """
        if self._refitting.applies_to(group):
            self._refitting.fold(group)
            return
        for member, gram in self._grams.readers(group):
            if mixes_channels(member.layer):
                removed = torch.zeros(len(gram), dtype=torch.bool)
                removed[group[0].idxs] = True
                for columns, positions in columns_of(member):
                    part = gram[positions][:, positions]
                    fold_by_least_squares(member.layer, columns, part, removed[positions], self.ridge)


class _RegionGrams:
    """One Gram matrix per region; later batches may have more regions."""

    def __init__(self, grams: list[Gram]):
        self.grams = grams

    def __add__(self, other: _RegionGrams) -> _RegionGrams:
        pairs = itertools.zip_longest(self.grams, other.grams)
        return _RegionGrams([a + b if a and b else a or b for a, b in pairs])


@dataclass(frozen=True)
class RegionGrams(Measurement):
    """Products of the activations of each pair of channels, summed over sampled cells of each region.

    The result is one `Gram` for each region that is present. The weight of a cell is the share of it that lies in the
    region. Samples follow a low-discrepancy sequence, which is the same in every pass.

    Attributes:
        samples: see `InterpolativeImportance`.
    """

    samples: int = 64
    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> _RegionGrams:
        """The Gram matrix of the sampled cells, for each region."""
        samples = min(self.samples, max(4, PRODUCTS // reading.x.shape[1] ** 2))
        return _RegionGrams([Gram(rows) for rows in sampled(reading, samples)])

    def result(self, total: _RegionGrams, present: torch.Tensor, reader: str) -> tuple[Gram, ...]:
        """The matrices of the regions that are present."""
        return tuple(gram.cpu() for gram, is_present in zip(total.grams, present.tolist(), strict=False) if is_present)

    @staticmethod
    def is_finite(values: tuple[Gram, ...]) -> bool:
        """Whether all matrices are free of NaN and infinity."""
        return all(gram.is_finite() for gram in values)


def pivots(gram: torch.Tensor) -> torch.Tensor:
    """The order of the columns in a QR decomposition with column pivoting, from their Gram matrix: ``[channels]``.

    Each pivot is the column whose residual, after projection on the pivots before it, is largest. Columns without a
    residual come last, by energy.
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


def balanced_gram(regions: tuple[Gram, ...], member: Member, channels: int) -> torch.Tensor:
    """Gram matrix of a group's channels, ``[channels, channels]``: the sum over the regions, each over its trace.

    Args:
        regions: the matrices of all channels that a layer reads, one per region.
        member: the layer.
        channels: number of channels of the group.
    """
    total = torch.zeros(channels, channels, dtype=torch.float64)
    for gram in regions:
        of_group = torch.zeros_like(total)
        for columns, positions in columns_of(member):
            of_group[positions.unsqueeze(1), positions] += gram.matrix(columns)
        total += of_group / of_group.trace().clamp_min(1e-300)
    return total

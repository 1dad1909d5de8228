"""Criteria that are functions of the first and second moments of activations in each region."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch_pruning.dependency import Group

from torchprune_spatial.calibration.measurements import Measurement, Reading
from torchprune_spatial.criteria.base import CalibratedImportance
from torchprune_spatial.criteria.ranking import places
from torchprune_spatial.criteria.thinet import gram_of_group, tpami_order
from torchprune_spatial.graph.groups import members_that_read, reduce_over_members
from torchprune_spatial.graph.private_names import graph_of

from .union import Scored, union


@dataclass(frozen=True)
class RegionMoments(Measurement):
    """Second moments of ``|activation|`` and of a constant 1 in each region: ``[regions, channels + 1, channels + 1]``.

    Cells are weighted by coverage. The last row holds the means and, at its end, the region's share of the cells.
    Memory is of the order of the square of the number of channels.
    """

    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> torch.Tensor:
        """The sums over the cells of a batch."""
        values = F.pad(reading.magnitude, (0, 0, 0, 1), value=1)
        coverage = reading.weights[:, 1]
        return torch.stack([(values * plane.unsqueeze(1) @ values.mT).sum(0) for plane in coverage.unbind(1)]).double()

    def result(self, total: torch.Tensor, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The moments, relative to the number of cells."""
        return (total / total[:, -1, -1].sum()).cpu()


@dataclass(frozen=True)
class Moments:
    """Moments of the channels of a group.

    Attributes:
        means: means of ``|activation|``, ``[regions, channels]``.
        products: mean products of pairs of activations in each region, ``[regions, channels, channels]``.
        kernels: products of the kernels that read each pair, summed over the next layers, ``[channels, channels]``.
    """

    means: torch.Tensor
    products: torch.Tensor
    kernels: torch.Tensor

    @property
    def centred(self) -> torch.Tensor:
        """Covariances, ``[regions, channels, channels]``."""
        return self.products - self.means.unsqueeze(2) * self.means.unsqueeze(1)


class MomentsImportance(CalibratedImportance):
    """Scores channels by a function of the moments of the regions.

    Args:
        loader: batches ``(inputs, targets)`` or ``(inputs, targets, masks)``.
        scoring: makes scores and their tie-break of `Moments`; see `SCORES`.
    """

    def __init__(self, loader: Iterable, scoring: Callable[[Moments], Scored]):
        self.scoring = scoring
        super().__init__(loader)

    def measurements(self) -> list[Measurement]:
        """The moments of the regions."""
        return [RegionMoments()]

    def score(self, group: Group) -> Scored | None:
        """Scores made of the moments of the group's channels."""
        moments = self.statistics(graph_of(group)).values[RegionMoments()]
        members, channels = members_that_read(group, moments), len(group[0].idxs)
        means = {layer: of_layer[:, -1, :-1] / of_layer[:, -1, -1:] for layer, of_layer in moments.items()}
        means = reduce_over_members(members, means, "mean", channels)
        if means is None:
            return None
        products = torch.zeros(len(means), channels, channels, dtype=torch.float64)
        kernels = torch.zeros(channels, channels, dtype=torch.float64)
        for member in members:
            of_layer = moments[member.layer][:, :-1, :-1] / moments[member.layer][:, -1:, -1:]
            of_kernels = _kernel_products(member.layer)
            energy = (of_layer * of_kernels).diagonal(dim1=1, dim2=2).sum().clamp_min(1e-300)
            products += torch.stack([gram_of_group(region, member, channels) for region in of_layer]) / len(members)
            kernels += gram_of_group(of_kernels, member, channels) / energy  # as in ThiNet, but relative to the energy
        return self.scoring(Moments(means, products, kernels))


def _kernel_products(layer: nn.Module) -> torch.Tensor:
    """Products of the kernels that read each pair of a layer's input channels: ``[channels, channels]`` float64."""
    weight = layer.weight.detach().double().cpu()
    kernels = weight.flatten(1) if getattr(layer, "transposed", False) else weight.transpose(0, 1).flatten(1)
    if len(kernels) == getattr(layer, "in_channels", len(kernels)):
        return kernels @ kernels.mT
    return torch.eye(layer.in_channels, dtype=torch.float64)  # grouped


def _contrast(of: Moments) -> Scored:
    """Difference between object and background."""
    return (of.means[0] - of.means[1]).abs(), of.means.sum(0)


def _balanced_means(of: Moments) -> Scored:
    """Mean activation in object and background, each relative to the sum over all channels."""
    return (of.means / of.means.sum(1, keepdim=True).clamp_min(1e-300)).sum(0), of.means.sum(0)


def _spread(of: Moments) -> Scored:
    """Standard deviation in each region."""
    return union(of.centred.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt())


def _contribution(of: Moments) -> Scored:
    """Energy in each region that reaches the next layers, as if neighbouring cells were equal."""
    return union((of.products * of.kernels).diagonal(dim1=1, dim2=2).sqrt())


def _masked_thinet(of: Moments) -> Scored:
    """ThiNet's selection with the same weight for both regions."""
    return places(tpami_order(_balanced(of.products * of.kernels))), of.means.sum(0)


def _subspace(of: Moments) -> Scored:
    """Channels from which all the others are best reconstructed."""
    return places(_explaining(_balanced(of.products), torch.eye(len(of.kernels), dtype=torch.float64))), of.means.sum(0)


def _subspace_through_kernels(of: Moments) -> Scored:
    """Channels from which the inputs of the next layers, times their kernels, are best reconstructed.

    Neighbouring cells are taken as equal, and means are subtracted because biases can make up for them.
    """
    return places(_explaining(_balanced(of.centred), of.kernels)), of.means.sum(0)


def _explaining(products: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Channels in an order in which each explains most of ``tr(kernels @ products)`` that those before it leave.

    Farahat, Ghodsi, Kamel, "Efficient greedy feature selection for unsupervised learning", KAIS 35, 2013.
    """
    left, energy, order = products, products.diagonal(), []
    for _ in range(len(products)):
        gain = ((left @ kernels) * left).sum(1) / left.diagonal().clamp_min(1e-300)
        gain[left.diagonal() <= 1e-9 * energy] = 0
        gain[order] = -torch.inf
        order.append(int(gain.argmax()))
        if gain.max() > 0:
            left = left - torch.outer(left[order[-1]], left[order[-1]]) / left[order[-1], order[-1]]
    return torch.tensor(order)


def _balanced(products: torch.Tensor) -> torch.Tensor:
    """The sum over the regions, each relative to its energy: ``[channels, channels]``."""
    energies = products.diagonal(dim1=1, dim2=2).sum(1)
    return (products / energies.clamp_min(1e-300)[:, None, None]).sum(0)


SCORES: dict[str, Callable[[Moments], Scored]] = {
    "contrast": _contrast,
    "balanced_means": _balanced_means,
    "spread": _spread,
    "contribution": _contribution,
    "masked_thinet": _masked_thinet,
    "subspace": _subspace,
    "subspace_through_kernels": _subspace_through_kernels,
}
"""The criteria by name."""

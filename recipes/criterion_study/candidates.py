"""Candidates for a better spatial criterion: the study compares them with the spatial mask and its rivals.

Many rank the channels of a group in each region by another statistic than the mean activation, and keep the union of
the best as the spatial mask does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch_pruning.dependency import DependencyGraph, Group

from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.calibration.measurements import Measurement, Reading
from torchprune_spatial.calibration.regions import RegionMasks, regions_from_mask
from torchprune_spatial.criteria.base import CalibratedImportance, ChannelImportance
from torchprune_spatial.criteria.ranking import in_order_of, places, union_scores
from torchprune_spatial.criteria.thinet import gram_of_group, tpami_order
from torchprune_spatial.graph.groups import members_that_read, reduce_over_members
from torchprune_spatial.graph.layers import CHANNEL_LAYERS
from torchprune_spatial.graph.outputs import output_layers_in

from ..experiments.criteria import Criterion

Scored = tuple[torch.Tensor, torch.Tensor]


def union(values: torch.Tensor) -> Scored:
    """Scores that keep the best of each region, and their tie-break: ``[regions, channels]`` -> ``[channels]`` each."""
    ranks = union_scores(values, values.sum(0))
    best = (values / values.amax(1, keepdim=True).clamp_min(1e-300)).amax(0)
    return in_order_of(ranks, best), ranks


@dataclass(frozen=True)
class RegionMoments(Measurement):
    """Second moments of ``|activation|`` and 1, what each region adds: ``[regions, channels + 1, channels + 1]``.

    By coverage. The last row holds the means, and last the region's share of the cells. Memory is of the order of the
    square of the number of channels.
    """

    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> torch.Tensor:
        """Sums over the cells."""
        values = F.pad(reading.magnitude, (0, 0, 0, 1), value=1)
        coverage = reading.weights[:, 1]
        return torch.stack([(values * plane.unsqueeze(1) @ values.mT).sum(0) for plane in coverage.unbind(1)]).double()

    def result(self, total: torch.Tensor, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The moments."""
        return (total / total[:, -1, -1].sum()).cpu()


@dataclass(frozen=True)
class ImageRanks(Measurement):
    """Rank of each channel by its mean in each region of an image, mean over the images: ``[regions, channels]``."""

    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> torch.Tensor:
        """Sum over the images; the number of images cancels where ranks are compared."""
        means = reading.weights[:, 1] @ reading.magnitude.mT  # of each region, but for its area
        return means.argsort(2).argsort(2).sum(0, dtype=torch.float64)

    def result(self, total: torch.Tensor, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The sums."""
        return total.cpu()


class ImageRanksImportance(CalibratedImportance):
    """Ranks image by image, so that a few bright images do not decide."""

    def _measurements(self) -> list[Measurement]:
        return [ImageRanks()]

    def _score(self, group: Group) -> Scored | None:
        values = self._values(group, ImageRanks())
        return None if values is None else union(values)


class MomentsImportance(CalibratedImportance):
    """Scores made of the moments of the regions.

    Args:
        loader: batches ``(inputs, targets)`` or ``(inputs, targets, masks)``.
        score: `Moments` -> scores and their tie-break.
    """

    def __init__(self, loader: Iterable, score: Callable[[Moments], Scored]):
        self.score = score
        super().__init__(loader)

    def _measurements(self) -> list[Measurement]:
        return [RegionMoments()]

    def _score(self, group: Group) -> Scored | None:
        moments = self.statistics(group._DG).values[RegionMoments()]
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
            kernels += gram_of_group(of_kernels, member, channels) / energy  # as in ThiNet, relative to its energy
        return self.score(Moments(means, products, kernels))


@dataclass(frozen=True)
class Moments:
    """Of the channels of a group.

    Attributes:
        means: of ``|activation|``, ``[regions, channels]``.
        products: of pairs of activations, mean over the cells of each region, ``[regions, channels, channels]``.
        kernels: products of the kernels that read each pair, sum over the next layers, ``[channels, channels]``.
    """

    means: torch.Tensor
    products: torch.Tensor
    kernels: torch.Tensor

    @property
    def centred(self) -> torch.Tensor:
        """Covariances."""
        return self.products - self.means.unsqueeze(2) * self.means.unsqueeze(1)


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
    """Mean activation in the object and in the background, each relative to that of all the channels."""
    return (of.means / of.means.sum(1, keepdim=True).clamp_min(1e-300)).sum(0), of.means.sum(0)


def _spread(of: Moments) -> Scored:
    """Standard deviation in each region."""
    return union(of.centred.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt())


def _contribution(of: Moments) -> Scored:
    """Energy in each region that reaches the next layers, as if neighbouring cells were alike."""
    return union((of.products * of.kernels).diagonal(dim1=1, dim2=2).sqrt())


def _masked_thinet(of: Moments) -> Scored:
    """ThiNet's selection, where both regions count alike."""
    return places(tpami_order(_balanced(of.products * of.kernels))), of.means.sum(0)


def _subspace(of: Moments) -> Scored:
    """Channels from which all the others are best reconstructed."""
    return places(_explaining(_balanced(of.products), torch.eye(len(of.kernels), dtype=torch.float64))), of.means.sum(0)


def _subspace_through_kernels(of: Moments) -> Scored:
    """Channels from which what the next layers make of all is best reconstructed, as if neighbouring cells were alike.

    With channels less their means, which biases can make up for.
    """
    return places(_explaining(_balanced(of.centred), of.kernels)), of.means.sum(0)


def _explaining(products: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Channels in the order in which each explains the most of ``tr(kernels @ products)`` beyond those before.

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
    """Sum over the regions, each relative to its energy."""
    energies = products.diagonal(dim1=1, dim2=2).sum(1)
    return (products / energies.clamp_min(1e-300)[:, None, None]).sum(0)


class RegionTaylorImportance(ChannelImportance):
    """First-order Taylor expansion of the loss by region, mean over images of ``|sum_cells activation x gradient|``.

    After Molchanov et al., "Pruning convolutional neural networks for resource efficient inference", ICLR 2017,
    equation 8, with a sum a region in place of one over all the cells.

    Args:
        network: to be pruned.
        batches: ``(inputs, targets, masks)``.
        split_loss: whether a region is that of the loss, whose gradient is then multiplied with all the cells.
    """

    def __init__(self, network: nn.Module, batches: Iterable, split_loss: bool = False):
        super().__init__(group_reduction="sum")
        self.split_loss = split_loss
        self.values: dict[nn.Module, torch.Tensor] = {}
        device = next(network.parameters()).device
        for inputs, targets, masks in batches:
            regions = RegionMasks(regions_from_mask(masks).to(device))
            with _inputs_of_layers(network) as read:
                outputs = network(inputs.to(device))
            read = {layer: x for layer, x in read.items() if x.requires_grad}
            losses = F.binary_cross_entropy_with_logits(outputs, targets.to(device), reduction="none")
            for region in range(2):
                loss = self._loss(losses, regions.planes[:, region : region + 1])
                gradients = torch.autograd.grad(loss, [*read.values()], retain_graph=True)
                for (layer, x), gradient in zip(read.items(), gradients, strict=True):
                    terms = (x.detach() * gradient).flatten(2)
                    if not self.split_loss:
                        terms = terms * regions.weights(len(x), tuple(x.shape[2:]))[:, 1, region : region + 1]
                    sums = terms.sum(2).abs().sum(0, dtype=torch.float64).cpu()
                    self.values.setdefault(layer, sums.new_zeros(2, len(sums)))[region] += sums

    def _loss(self, losses: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        if not self.split_loss:
            return losses.mean((1, 2, 3)).sum()
        return ((losses * pixels).sum((1, 2, 3)) / pixels.sum((1, 2, 3)).clamp_min(1)).sum()

    def _output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        return output_layers_in(graph)

    def _score(self, group: Group) -> Scored | None:
        members = members_that_read(group, self.values)
        values = reduce_over_members(members, self.values, self.group_reduction, len(group[0].idxs))
        return None if values is None else union(values)


@contextmanager
def _inputs_of_layers(network: nn.Module) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """What convolutions and linear layers read inside, by layer."""
    inputs: dict[nn.Module, torch.Tensor] = {}
    layers = [layer for layer in network.modules() if isinstance(layer, CHANNEL_LAYERS)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: inputs.update({layer: args[0]})) for layer in layers]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def probabilities(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Outputs of a network that gives logits; differences of these would hardly tell what can be seen."""
    return network(inputs).sigmoid()


interpolative = partial(SpatialMaskImportance, selection="interpolative", forward=probabilities)


def _halves_of_every_cell(batches: Iterable) -> list[tuple[torch.Tensor, ...]]:
    """The batches with two regions that share every cell, so that all cells count alike."""
    return [
        (inputs, targets, masks.new_full((len(masks), 2, *masks.shape[2:]), 0.5)) for inputs, targets, masks in batches
    ]


_OF_MOMENTS: dict[str, Callable[[Moments], Scored]] = {
    "contrast": _contrast,
    "balanced_means": _balanced_means,
    "spread": _spread,
    "contribution": _contribution,
    "masked_thinet": _masked_thinet,
    "subspace": _subspace,
    "subspace_through_kernels": _subspace_through_kernels,
}
CANDIDATES: dict[str, Criterion] = {
    name: lambda network, loader, score=score: MomentsImportance(loader, score) for name, score in _OF_MOMENTS.items()
} | {
    "image_ranks": lambda network, loader: ImageRanksImportance(loader),
    "region_taylor": RegionTaylorImportance,
    "split_taylor": partial(RegionTaylorImportance, split_loss=True),
    "interpolative_without_regions": lambda network, loader: interpolative(_halves_of_every_cell(loader)),
    "interpolative": lambda network, loader: interpolative(loader),
}
"""By name. The last is in the product."""

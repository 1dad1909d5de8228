"""How the filters of a layer respond in each region, and which of them are kept: the numbers behind the pictures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn

from ..criteria.ranking import top_count, union_of_tops
from ..criteria.spatial_mask import SpatialMaskImportance
from .kept import Kept, fraction_of, kept_mask
from .read_network import ReadNetwork


@dataclass(frozen=True)
class RegionResponses:
    """Mean activations of the filters of one layer, and which filters are kept.

    Attributes:
        layer: name of the layer.
        means: mean activation of each filter in each region, where the next layers read it, ``[regions, filters]``.
            Regions are those that occur in the calibration data, in ascending order.
        overall: mean over all the regions, ``[filters]``.
        kept: which filters are kept, ``[filters]`` bool.
        top: size of the top sets of Algorithm 1 whose union is kept. Because a pruner's number of filters can lie
            between two unions, a part of the next larger union may be kept too. None if what is kept is no such union
            (another criterion, several steps, an output of the network), or if nothing is removed.
        thresholds: threshold of Algorithm 1 in each region, ``[regions]``; None if ``top`` is. The top set of a region
            holds the filters whose means in it reach its threshold; if several means equal the threshold,
            `union_of_tops` takes only as many of them as ``top`` allows. If ``kept`` is a fraction, the threshold is
            ``quantile(means, 1 - fract)``; otherwise it lies midway between the lowest mean in the top set and the
            highest mean outside.
    """

    layer: str
    means: torch.Tensor
    overall: torch.Tensor
    kept: torch.Tensor
    top: int | None = None
    thresholds: torch.Tensor | None = None


def region_responses(
    importance: SpatialMaskImportance,
    model: nn.Module,
    example_inputs: Any,
    layers: str | Iterable[str],
    kept: Kept,
    **options: Any,
) -> dict[str, RegionResponses]:
    """Mean activation of each filter of some layers in each region, and which filters are kept.

    The statistics are taken as the pruner takes them, in one pass over the calibration data, unless the importance has
    those of this network already. The network is left as it was, also after an error.

    Args:
        importance: with its calibration data.
        model: the network as it was before pruning: if it has been pruned since, a ``copy.deepcopy`` made before.
        example_inputs: as for the pruner.
        layers: names of layers whose filters can be pruned: convolutions, linear and customized layers.
        kept: what is kept: the record of a pruning; indices by layer, as `PruningRecord.kept_out`; or the fraction of
            Algorithm 1, in 0..1.
        options: of Torch-Pruning's ``DependencyGraph.build_dependency``: ``unwrapped_parameters``, ``forward_fn``, ...

    Returns:
        By layer, in the order of ``layers``.

    Raises:
        TypeError, ValueError: an argument is not usable; the calibration data are not usable; a layer does not exist,
            or no layer reads its channels (the text names those that can be drawn); the network is pruned already.
    """
    network = ReadNetwork(importance, model, example_inputs, options)
    return {layer: responses_of(network, layer, kept) for layer in ([layers] if isinstance(layers, str) else layers)}


def responses_of(network: ReadNetwork, layer: str, kept: Kept) -> RegionResponses:
    """The responses of one layer, see `region_responses`."""
    groups, filters, fraction = network.groups_of(layer), network.filters(layer), fraction_of(kept)
    everything = torch.ones(filters, dtype=torch.bool)
    mask = kept_mask(kept, layer, filters, network.model) if fraction is None else everything
    means = of_group = torch.empty(0)
    is_output = any(network.produces_output(group) for group in groups)
    for group in groups:
        of_group = network.means_in(group, layer)
        positions, own = torch.tensor(network.filters_in(group, layer)).T
        means = means if means.numel() else of_group.new_empty(len(of_group), filters)
        means[:, own] = of_group[:, positions]
        if fraction is not None and not is_output:
            top = top_count(fraction, of_group.shape[1])
            mask[own] = union_of_tops(of_group[:-1], of_group[-1], top)[positions]
    responses = RegionResponses(layer, means[:-1], means[-1], mask)
    if len(groups) > 1 or is_output or mask.all():
        return responses
    channels = of_group.shape[1]
    if fraction is not None:
        thresholds = of_group[:-1].quantile(1 - fraction, 1)
        return replace(responses, top=top_count(fraction, channels), thresholds=thresholds)
    implied = _implied_top(mask, means) if channels == filters else None
    if implied is None:
        return responses
    position = (filters - implied - 0.5) / (filters - 1)
    return replace(responses, top=implied, thresholds=means[:-1].quantile(position, 1))


def _implied_top(kept: torch.Tensor, means: torch.Tensor) -> int | None:
    """Size of the top sets whose union is kept, perhaps with a part of the next larger union; None if there is none."""

    def union(top: int) -> torch.Tensor:
        return union_of_tops(means[:-1], means[-1], top)

    tops = range(1, len(kept) + 1)
    top = bisect_left(tops, True, key=lambda top: bool((union(top) & ~kept).any()))
    if top in (0, len(kept)) or (kept & ~union(top + 1)).any():
        return None
    return top

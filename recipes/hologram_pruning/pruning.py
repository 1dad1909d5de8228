"""How a base network is pruned, and what the pruned network costs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch_pruning as tp
from accelerate.utils import set_seed
from torch import nn

import resolution_scaling as rs
from torchprune_spatial import CUSTOMIZED_PRUNERS, decouple_residuals, remove_dead_channels

from ..experiments.criteria import all_criteria


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How a network is pruned.

    Attributes:
        criterion: the name of a criterion.
        keep_fraction: the paper's ``fract``; 1 for the unpruned network.
        literal: whether each layer keeps the whole union of the top sets of object and background, as Algorithm 1 says.
            The union usually has more than ``int(fract * channels)`` filters, which each layer keeps if this is False.
            Only the spatial mask can be literal.
        mixed: whether the branches of an addition may keep different filters (mixed connectivity).
    """

    criterion: str
    keep_fraction: float
    literal: bool = False
    mixed: bool = False

    def __str__(self):
        literal, mixed = " literal" * self.literal, " mixed" * self.mixed
        return f"{self.criterion}{literal}{mixed} {self.keep_fraction:g}"


UNPRUNED = Pruning("unpruned", 1.0)


def prunings(criteria: Iterable[str], keep_fractions: Iterable[float], mixed: bool) -> Iterator[Pruning]:
    """Every criterion at every fraction, and the literal form of the spatial mask."""
    for keep_fraction in keep_fractions:
        for criterion in criteria:
            yield Pruning(criterion, keep_fraction, mixed=mixed)
            if criterion == "spatial_mask":
                yield Pruning(criterion, keep_fraction, literal=True, mixed=mixed)


def prune(base: nn.Module, pruning: Pruning, calibration: Iterable, seed: int) -> nn.Module:
    """A copy of the base network from which a part of the filters of each layer is removed.

    Args:
        base: a `ResUNet`.
        pruning: what to keep.
        calibration: batches ``(hologram, target)`` for the criteria that need data.
        seed: for the random criterion.
    """
    set_seed(seed)
    device = next(base.parameters()).device
    example = (next(iter(calibration))[0][:1].to(device),)
    network = decouple_residuals(base, example) if pruning.mixed else copy.deepcopy(base)
    importance, ignored = all_criteria()[pruning.criterion](network, calibration), [network.output]
    options = {"customized_pruners": CUSTOMIZED_PRUNERS, "ignored_layers": ignored}
    ratios = {}
    if pruning.literal:
        ratios = importance.pruning_ratio_dict(network, example, pruning.keep_fraction, **options)
    ratio = 1 - pruning.keep_fraction - 1e-9  # Torch-Pruning rounds down, and 1 - 0.8 is a little less than 0.2
    pruner = tp.pruner.BasePruner(
        network, example, importance, pruning_ratio=ratio, pruning_ratio_dict=ratios, **options
    )
    pruner.step()
    if pruning.mixed:
        remove_dead_channels(pruner.DG)
    network.zero_grad(set_to_none=True)
    return network


def pruning_of(row: Any) -> Pruning:
    """The pruning that a row of results, as a named tuple, is about."""
    return Pruning(row.criterion, row.keep_fraction, bool(row.literal), bool(row.mixed))


def count_cost(network: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Parameters, and FLOPs of one image by `resolution_scaling.profile`."""
    return {"parameters": sum(p.numel() for p in network.parameters()), "flops": rs.profile(network, example).flops}

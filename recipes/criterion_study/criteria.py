"""The criteria of the study: those of all recipes, and candidates that were tried."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from torchprune_spatial import InterpolativeImportance

from ..experiments.criteria import Criterion, all_criteria
from .candidates.image_ranks import ImageRanksImportance
from .candidates.moments import SCORES, MomentsImportance
from .candidates.region_taylor import RegionTaylorImportance


def probabilities(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The outputs of a network that gives logits, whose differences would hardly say what can be seen."""
    return network(inputs).sigmoid()


interpolative = partial(InterpolativeImportance, forward=probabilities)
"""The recommended criterion."""


def _halves_of_every_cell(batches: Iterable) -> list[tuple[torch.Tensor, ...]]:
    """The batches with two regions that share every cell, so that all cells have the same weight."""
    return [
        (inputs, targets, masks.new_full((len(masks), 2, *masks.shape[2:]), 0.5)) for inputs, targets, masks in batches
    ]


CANDIDATES: dict[str, Criterion] = {
    name: lambda network, batches, score=score: MomentsImportance(batches, score) for name, score in SCORES.items()
} | {
    "image_ranks": lambda network, batches: ImageRanksImportance(batches),
    "region_taylor": RegionTaylorImportance,
    "split_taylor": partial(RegionTaylorImportance, split_loss=True),
    "interpolative_without_regions": lambda network, batches: interpolative(_halves_of_every_cell(batches)),
    "interpolative": lambda network, batches: interpolative(batches),
}
"""Candidates by name; the last one is the recommended criterion."""


def studied() -> dict[str, Criterion]:
    """All criteria by name; those of the library's registry as it is now."""
    return all_criteria() | CANDIDATES

"""The union of the best channels of each region, for any statistic."""

from __future__ import annotations

import torch

from torchprune_spatial.criteria.ranking import in_order_of, union_scores

Scored = tuple[torch.Tensor, torch.Tensor]
"""Scores, and what breaks their ties."""


def union(values: torch.Tensor) -> Scored:
    """Scores that keep the best channels of each region, as the spatial mask does with means.

    Args:
        values: a statistic of each channel in each region, ``[regions, channels]``.

    Returns:
        Scores, and values that break their ties, ``[channels]`` each.
    """
    ranks = union_scores(values, values.sum(0))
    best = (values / values.amax(1, keepdim=True).clamp_min(1e-300)).amax(0)
    return in_order_of(ranks, best), ranks

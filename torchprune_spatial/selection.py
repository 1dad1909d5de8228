"""Algorithm 1 of the paper: ranking filters in each region and keeping the union of the best."""

from __future__ import annotations

import torch


def union_scores(region_means: torch.Tensor, overall_means: torch.Tensor) -> torch.Tensor:
    """Scores whose top-k is Algorithm 1's union of the top sets of each region, for every k that a union can have.

    A channel's score is the larger of its within-layer ranks (Scherrer et al., Algorithm 1: keep what is in the top
    ``fract`` of the object OR of the background). Ranks are exact where the paper's ``>= quantile`` keeps every tied
    filter: equal region means (dead filters) are ordered by the overall mean, then by index, the lower index first.
    Channels with the same best rank are ordered by the sum of their ranks, then by the rank in region 0, the object.

    Args:
        region_means: mean activation of each channel in each region, ``[regions, channels]``.
        overall_means: mean activation over all the regions, ``[channels]``.

    Returns:
        ``[channels]`` float64 in [0, 1), all different for two regions. ``score >= 1 - k / channels`` is the union of
        the top k of each region.
    """
    regions, channels = region_means.shape
    ranks = torch.stack([_ranks(means, overall_means) for means in region_means])
    tie_break = (ranks.sum(0) + ranks[0] / channels) / (regions * channels)  # in [0, 1)
    return (ranks.amax(0) + tie_break) / channels


def _ranks(means: torch.Tensor, overall_means: torch.Tensor) -> torch.Tensor:
    """Rank of each channel, 0 for the lowest: by mean, then overall mean, then the lower index is the better."""
    order = torch.arange(len(means) - 1, -1, -1, device=means.device)
    order = order[overall_means[order].argsort(stable=True)]
    order = order[means[order].argsort(stable=True)]
    ranks = torch.empty_like(means, dtype=torch.float64)
    ranks[order] = torch.arange(len(means), dtype=torch.float64, device=means.device)
    return ranks

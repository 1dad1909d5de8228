"""Algorithm 1 of the spatial-mask paper: ranking filters in each region and keeping the union of the best."""

from __future__ import annotations

import math

import torch


def top_count(keep_fraction: float, channels: int) -> int:
    """The number of filters that ``>= quantile(importance, 1 - fract)`` keeps if no two are equal (Algorithm 1).

    The quantile with linear interpolation lies at position ``(channels - 1) * (1 - fract)`` of the sorted importances.
    At least one filter is kept, even if ``fract`` is 0.

    Raises:
        ValueError: the fraction is not in 0..1.
    """
    if not 0 <= keep_fraction <= 1:
        raise ValueError(f"keep_fraction is {keep_fraction!r}; expected a fraction of the filters, in 0..1")
    return channels - math.ceil((channels - 1) * (1 - keep_fraction) - 1e-9)


def union_of_tops(region_means: torch.Tensor, overall_means: torch.Tensor, count: int) -> torch.Tensor:
    """Which channels are in the top ``count`` of any region: ``[channels]`` bool.

    Args:
        region_means: mean activation of each channel in each region, ``[regions, channels]``.
        overall_means: mean activation over all the regions, ``[channels]``; it breaks ties, see `union_scores`.
        count: the size of each top set.
    """
    ranks = torch.stack([_ranks(means, overall_means) for means in region_means])
    return (ranks >= ranks.shape[1] - count).any(0)


def union_scores(region_means: torch.Tensor, overall_means: torch.Tensor) -> torch.Tensor:
    """Scores whose top-k is Algorithm 1's union of the top sets of each region, for every k that a union can have.

    A channel's score is the largest of its ranks in the regions (Scherrer et al., Algorithm 1: keep the filters in the
    top ``fract`` of the object OR of the background). The paper's ``>= quantile`` keeps all tied filters; here no two
    ranks are equal: filters with equal region means (dead filters) are ordered by the overall mean, then by index, of
    which the lower is the better. Channels with the same best rank are ordered by the sum of their ranks, then by the
    rank in region 0, the object.

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


def places(order: torch.Tensor) -> torch.Tensor:
    """Scores of channels that are listed from best to worst: ``[channels]``, from 1 down to ``1 / channels``."""
    scores = torch.empty(len(order), dtype=torch.float64)
    scores[order] = torch.arange(len(order), 0, -1, dtype=torch.float64) / len(order)
    return scores


def in_order_of(order: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Permute values so that they rank the channels as ``order`` does: ``[channels]`` each."""
    dealt = torch.empty_like(values)
    dealt[order.argsort(stable=True)] = values.sort().values
    return dealt


def distinct(scores: torch.Tensor, tie_break: torch.Tensor) -> torch.Tensor:
    """Make all scores different, by steps of 1e-9 of the largest score between neighbours.

    Among tied channels, Torch-Pruning removes arbitrary ones, and under global pruning all of them or none.

    Args:
        scores: ``[channels]`` float64.
        tie_break: orders equal scores, ``[channels]``. If it is equal too, the lower index is the better.
    """
    order = _ranks(scores, tie_break).argsort()
    steps = torch.arange(len(scores), dtype=scores.dtype) * scores.abs().max().clamp_min(1e-30) * 1e-9
    result = torch.empty_like(scores)
    result[order] = (scores[order] - steps).cummax(0).values + steps
    return result


def _ranks(means: torch.Tensor, overall_means: torch.Tensor) -> torch.Tensor:
    """Rank of each channel, 0 for the lowest: by mean, then by overall mean, then by index, lower ones being better."""
    order = torch.arange(len(means) - 1, -1, -1, device=means.device)
    order = order[overall_means[order].argsort(stable=True)]
    order = order[means[order].argsort(stable=True)]
    ranks = torch.empty_like(means, dtype=torch.float64)
    ranks[order] = torch.arange(len(means), dtype=torch.float64, device=means.device)
    return ranks

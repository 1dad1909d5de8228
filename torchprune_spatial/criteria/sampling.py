"""Sampled cells of feature maps, by region."""

from __future__ import annotations

from typing import cast

import torch

from ..calibration.measurements import Reading

GOLDEN = (5**0.5 - 1) / 2
"""The first N multiples of this number, modulo 1, are spread evenly over 0..1 for every N."""


def sampled(reading: Reading, samples: int) -> list[torch.Tensor]:
    """Sample the cells of each region, in proportion to the share of them that lies in it.

    Samples follow a low-discrepancy sequence, which is the same in every pass.

    Args:
        reading: the input of a layer, with weights.
        samples: number of cells of each region of an image; of smaller maps, all cells are used.

    Returns:
        For each region ``[cells, channels]``, multiplied with the roots of the cells' weights.
    """
    x = reading.cells
    coverage = cast(torch.Tensor, reading.weights)[:, 1]
    if x.shape[2] <= samples:
        return [_rows(x, region) for region in coverage.unbind(1)]
    place = torch.arange(len(x) * samples, device=x.device, dtype=torch.float64).mul(GOLDEN).frac()
    place = place.view(len(x), 1, -1) * coverage.sum(2, dtype=torch.float64, keepdim=True)
    cells = torch.searchsorted(coverage.cumsum(2, dtype=torch.float64), place, right=True).clamp_(max=x.shape[2] - 1)
    weights = (coverage.sum(2, keepdim=True) / samples).expand(-1, -1, samples)
    chosen = zip(cells.unbind(1), weights.unbind(1), strict=True)
    return [_rows(x.gather(2, cell.unsqueeze(1).expand(-1, x.shape[1], -1)), weight) for cell, weight in chosen]


def _rows(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cells ``[images, channels, cells]`` with weights ``[images, cells]`` as rows."""
    return (x * weights.unsqueeze(1).sqrt()).movedim(1, 2).flatten(0, 1)

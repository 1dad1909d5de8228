"""Ranks of channels image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch_pruning.dependency import Group

from torchprune_spatial.calibration.measurements import Measurement, Reading
from torchprune_spatial.criteria.base import CalibratedImportance

from .union import Scored, union


@dataclass(frozen=True)
class ImageRanks(Measurement):
    """Rank of each channel by its mean in each region of an image, summed over the images: ``[regions, channels]``."""

    needs_regions: ClassVar[bool] = True

    def measure(self, reading: Reading) -> torch.Tensor:
        """The sum over the images of a batch; comparing ranks needs no mean."""
        means = reading.weights[:, 1] @ reading.magnitude.mT  # of each region, times its area
        return means.argsort(2).argsort(2).sum(0, dtype=torch.float64)

    def result(self, total: torch.Tensor, present: torch.Tensor, reader: str) -> torch.Tensor:
        """The sums over all images."""
        return total.cpu()


class ImageRanksImportance(CalibratedImportance):
    """Ranks channels image by image, so that a few bright images do not decide."""

    def measurements(self) -> list[Measurement]:
        """The ranks in each region."""
        return [ImageRanks()]

    def score(self, group: Group) -> Scored | None:
        """Scores that keep the channels of the best ranks in each region."""
        values = self.values(group, ImageRanks())
        return None if values is None else union(values)

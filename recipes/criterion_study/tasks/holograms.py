"""The task of the spatial-mask paper: reconstruction of in-line holograms."""

from __future__ import annotations

from typing import ClassVar

import torch

from ...datasets.digits import load_digits
from ...datasets.holography import SMALL_HOLOGRAMS, HologramSimulation
from .task import DIGIT_PX, Images, Task, register_task


@register_task
class Holograms(Task):
    """In-line holograms of a digit in the middle; the seed is that of the noise.

    Attributes:
        simulation: the optics; digits must keep their 28 px.
    """

    name = "hologram"
    simulation: ClassVar[HologramSimulation] = SMALL_HOLOGRAMS

    def images(self, count: int, seed: int) -> Images:
        """Holograms, and the digits as targets."""
        digits, labels = (part[:count] for part in load_digits())
        inputs = self.simulation.holograms(digits, torch.Generator().manual_seed(seed))
        targets = self.simulation.targets(digits)
        corners = torch.full((count, 2), (self.simulation.image_px - DIGIT_PX) // 2)
        return Images(inputs, targets, targets > 0.5, corners, labels)

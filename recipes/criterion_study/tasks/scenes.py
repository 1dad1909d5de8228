"""Scenes that several tasks share: digits at random places over smooth random textures."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...datasets.digits import load_digits
from .task import DIGIT_PX, Images

IMAGE_PX = 64
NOISE = 0.25
"""Standard deviation of the noise; images are in 0..1."""


def scenes(count: int) -> Images:
    """Scenes whose inputs are the targets; the masks are where a digit is above 0.5."""
    digits, labels = (part[:count] for part in load_digits())
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, IMAGE_PX - DIGIT_PX + 1, (count, 2), generator=generator)
    coarse = torch.rand(count, 1, IMAGE_PX // 4, IMAGE_PX // 4, generator=generator)
    targets = 0.6 * F.interpolate(coarse, (IMAGE_PX, IMAGE_PX), mode="bicubic").clamp(0, 1)
    masks = torch.zeros_like(targets, dtype=torch.bool)
    for i, (y, x) in enumerate(corners.tolist()):
        square = targets[i, 0, y : y + DIGIT_PX, x : x + DIGIT_PX]
        square.copy_(torch.maximum(square, digits[i]))
        masks[i, 0, y : y + DIGIT_PX, x : x + DIGIT_PX] = digits[i] > 0.5
    return Images(targets, targets, masks, corners, labels)


def noisy(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Images with Gaussian noise."""
    return images + NOISE * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))

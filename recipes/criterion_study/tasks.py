"""Tasks in which position matters: small digits in 64 px images, as holograms or on a textured background."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..datasets.digits import load_digits
from ..datasets.holography import SMALL_HOLOGRAMS

IMAGE_PX, DIGIT_PX = SMALL_HOLOGRAMS.image_px, 28
NOISE = 0.25
"""Standard deviation of the noise in denoising and segmentation; images are in 0..1."""
HOLES, HOLE_PX = 12, 8


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of a task, all of the same length.

    Attributes:
        inputs, targets: ``[n, 1, 64, 64]``; targets in 0..1.
        masks: of the objects, ``[n, 1, 64, 64]`` bool.
        corners: upper left of each digit's 28 px square, ``[n, 2]``.
        labels: of the digits, ``[n]``.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    masks: torch.Tensor
    corners: torch.Tensor
    labels: torch.Tensor

    def split(self, *sizes: int) -> list[Images]:
        """Consecutive parts."""
        columns = [getattr(self, field.name)[: sum(sizes)].split(sizes) for field in dataclasses.fields(self)]
        return [Images(*parts) for parts in zip(*columns, strict=True)]

    def crops(self, images: torch.Tensor) -> torch.Tensor:
        """The squares of the digits, ``[n, 1, 28, 28]``, out of images like the targets."""
        places = zip(images, self.corners.tolist(), strict=True)
        return torch.stack([image[:, y : y + DIGIT_PX, x : x + DIGIT_PX] for image, (y, x) in places])


def hologram(count: int, seed: int) -> Images:
    """In-line holograms of a digit in the middle, as in the spatial-mask paper; the seed is that of the noise."""
    digits, labels = (part[:count] for part in load_digits())
    inputs = SMALL_HOLOGRAMS.holograms(digits, torch.Generator().manual_seed(seed))
    targets = SMALL_HOLOGRAMS.targets(digits)
    corners = torch.full((count, 2), (IMAGE_PX - DIGIT_PX) // 2)
    return Images(inputs, targets, targets > 0.5, corners, labels)


def denoising(count: int, seed: int) -> Images:
    """A digit at a random place on a textured background, under Gaussian noise."""
    scenes = _scenes(count)
    return dataclasses.replace(scenes, inputs=_noisy(scenes.targets, seed))


def inpainting(count: int, seed: int) -> Images:
    """The same scene, with squares of grey in it, anywhere."""
    scenes, generator = _scenes(count), torch.Generator().manual_seed(seed)
    inputs = scenes.targets.clone()
    corners = torch.randint(0, IMAGE_PX - HOLE_PX + 1, (count, HOLES, 2), generator=generator)
    for image, holes in zip(inputs, corners.tolist(), strict=True):
        for y, x in holes:
            image[:, y : y + HOLE_PX, x : x + HOLE_PX] = 0.5
    return dataclasses.replace(scenes, inputs=inputs)


def segmentation(count: int, seed: int) -> Images:
    """The mask of the digit in the noisy scene."""
    scenes = _scenes(count)
    return dataclasses.replace(scenes, inputs=_noisy(scenes.targets, seed), targets=scenes.masks.float())


TASKS: dict[str, Callable[[int, int], Images]] = {
    "hologram": hologram,
    "denoising": denoising,
    "inpainting": inpainting,
    "segmentation": segmentation,
}
"""By name: how many images, seed -> images. The digits and their places are the same for every seed."""


def _scenes(count: int) -> Images:
    """Targets of denoising, without inputs: digits over smooth random textures."""
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


def _noisy(images: torch.Tensor, seed: int) -> torch.Tensor:
    return images + NOISE * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))

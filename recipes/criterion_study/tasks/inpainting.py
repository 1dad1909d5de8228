"""Inpainting of small digits on a texture."""

from __future__ import annotations

import dataclasses

import torch

from .scenes import IMAGE_PX, scenes
from .task import Images, Task, register_task

HOLES, HOLE_PX = 12, 8
"""Number of holes in an image, and their side."""


@register_task
class Inpainting(Task):
    """A digit at a random place on a textured background, under grey squares at random places."""

    name = "inpainting"

    def images(self, count: int, seed: int) -> Images:
        """Scenes with holes, and the scenes as targets."""
        made, generator = scenes(count), torch.Generator().manual_seed(seed)
        inputs = made.targets.clone()
        corners = torch.randint(0, IMAGE_PX - HOLE_PX + 1, (count, HOLES, 2), generator=generator)
        for image, holes in zip(inputs, corners.tolist(), strict=True):
            for y, x in holes:
                image[:, y : y + HOLE_PX, x : x + HOLE_PX] = 0.5
        return dataclasses.replace(made, inputs=inputs)

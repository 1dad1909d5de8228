"""Denoising of small digits on a texture."""

from __future__ import annotations

import dataclasses

from .scenes import noisy, scenes
from .task import Images, Task, register_task


@register_task
class Denoising(Task):
    """A digit at a random place on a textured background, under Gaussian noise."""

    name = "denoising"

    def images(self, count: int, seed: int) -> Images:
        """Noisy scenes, and the scenes as targets."""
        made = scenes(count)
        return dataclasses.replace(made, inputs=noisy(made.targets, seed))

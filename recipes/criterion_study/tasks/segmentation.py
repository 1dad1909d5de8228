"""Segmentation of small digits on a texture."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .scenes import noisy, scenes
from .task import Images, Task, register_task


@register_task
class Segmentation(Task):
    """The mask of a digit at a random place on a textured background, under Gaussian noise."""

    name = "segmentation"
    accuracy = "intersection over union"

    def images(self, count: int, seed: int) -> Images:
        """Noisy scenes, and the masks of the digits as targets."""
        made = scenes(count)
        return dataclasses.replace(made, inputs=noisy(made.targets, seed), targets=made.masks.float())

    def classifier(self) -> None:
        """No network is needed."""

    def accuracies(self, outputs: torch.Tensor, images: Images, classifier: nn.Module | None) -> tuple[float, float]:
        """Intersection over union of the outputs above 0.5 and the masks; the best is 1."""
        found = outputs > 0.5
        return float((found & images.masks).sum() / (found | images.masks).sum()), 1.0

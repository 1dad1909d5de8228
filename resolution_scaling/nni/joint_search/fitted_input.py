"""A vision transformer that was scaled reads smaller images: resize those that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn

from ...cnn.resized_conv import resize_maps
from ...ground.sizes import Size
from ...vit.registry import is_vit, token_sizes


class ResizedImages:
    """A forward pre-hook that brings images ``[batch, channels, height, width]`` to the size that a network takes.

    Attributes:
        size: height and width, px.
    """

    def __init__(self, size: Size):
        self.size = size

    def __call__(self, model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the network reads in place of ``inputs``."""
        return tuple(self._resized(value) for value in inputs)

    def _resized(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim == 4 and tuple(value.shape[-2:]) != self.size:
            return resize_maps(value, self.size, "bilinear")
        return value


def fit_images(model: nn.Module, sizes: Mapping[str, int]) -> nn.Module:
    """Let a ViT that was scaled go on taking the images that its trainer and evaluator give, in place.

    They are resized, bilinear with antialiasing, before the network reads them; a CNN, which FCR reduces inside, reads
    full images anyway. A hook does it: names of parameters, and what `undo_scaling` finds, stay.

    Args:
        model: the network.
        sizes: what `scale_resolution` was given; tells the size of the image where the network takes any.
    """
    if is_vit(model):
        tokens = token_sizes(model)
        side = sizes.get("size") or sizes.get("grid", 0) * tokens.patch_size[0]
        size = tokens.image_size or ((side, side) if side else None)
        if size is not None:
            model.register_forward_pre_hook(ResizedImages(size))
    return model

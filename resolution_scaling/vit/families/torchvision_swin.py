"""Swin of torchvision."""

from __future__ import annotations

from typing import Any

import torch.nn as nn

from ..family import ViTFamily
from ..resampling import resize_patch_convolution
from ..sizes import TokenSizes


class TorchvisionSwin(ViTFamily):
    """``torchvision.models.SwinTransformer``: it takes images of any size; only its patch size is resampled.

    ``image_size`` and ``grid`` are checked against the patch size, and change nothing. Windows stay 7 or 8 tokens wide,
    and maps are padded to whole windows: where these do not fit, the cost falls less than the number of pixels.
    """

    name = "torchvision Swin"

    def recognizes(self, model: nn.Module) -> bool:
        """By the name of the class, because torchvision may not be installed."""
        full_name = ("torchvision.models.swin_transformer", "SwinTransformer")
        return any((kind.__module__, kind.__qualname__) == full_name for kind in type(model).__mro__)

    def token_sizes(self, model: Any) -> TokenSizes:
        """The patch size; image and grid are not fixed."""
        height, width = model.features[0][0].kernel_size
        return TokenSizes(None, None, (height, width))

    def resize(self, model: Any, sizes: TokenSizes) -> None:
        """Resample the patch embedding."""
        resize_patch_convolution(model.features[0][0], sizes.patch_size)

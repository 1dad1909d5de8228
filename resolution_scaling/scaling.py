"""One call for both kinds of network: let a trained CNN or vision transformer work at a lower resolution."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch.nn as nn

from .cnn.reduction import reduce_after_first_conv, undo_first_conv_reduction
from .ground.sizes import Size
from .vit.registry import is_vit
from .vit.scaling import scale_vit, undo_vit_scaling

METHODS = ("auto", "fcr", "tokens")


def scale_resolution(
    model: nn.Module,
    size: int | tuple[int, int] | None = None,
    *,
    method: str = "auto",
    grid: int | None = None,
    patch_size: int | None = None,
    inplace: bool = False,
    **options: Any,
) -> nn.Module:
    """Let a network work at a lower resolution, with the weights that it has.

    Morlier, Leonardon, Gripon, GRETSI 2025, section 3.3. A CNN goes on reading full images, and is reduced after its
    first convolution (FCR, see `reduce_after_first_conv`). A vision transformer reads smaller images, or larger
    patches, and has its embeddings resampled (see `scale_vit`). The third way, reduced crop (RC), changes no network:
    it is a pair of transforms, see `resolution_scaling.adapting.transforms`.

    Args:
        model: the network.
        size: the lower size, px. For a CNN a number or (height, width); for a ViT the side of the image.
        method: ``"fcr"``, ``"tokens"``, or ``"auto"`` for what fits the network.
        grid: for a ViT, tokens a side.
        patch_size: for a ViT, side of a patch, px.
        inplace: change ``model`` itself instead of a copy.
        options: of `reduce_after_first_conv`: ``input_size``, ``in_channels``, ``interpolation``, ``restore_outputs``.

    Returns:
        The scaled network; `undo_scaling` takes it back.

    Raises:
        TypeError, ValueError: an argument is not usable, does not go with the method, or the network cannot work at
            this resolution. The network is as it was.

    Example:
        >>> small = scale_resolution(torchvision.models.resnet50(), 160)
        >>> small = scale_resolution(timm.create_model("vit_small_patch16_224"), grid=11)
    """
    if method not in METHODS:
        hint = ": it changes the data, see resolution_scaling.adapting.transforms" if method == "rc" else ""
        raise ValueError(f"method is {method!r}{hint}; expected one of {', '.join(map(repr, METHODS))}")
    tokens = is_vit(model) if method == "auto" else method == "tokens"
    if tokens and options:
        raise TypeError(f"{', '.join(options)} cannot be used with a vision transformer, only with FCR")
    if not tokens and (size is None or grid is not None or patch_size is not None):
        raise TypeError(f"{type(model).__name__} is reduced by FCR, which takes size, and neither grid nor patch_size")
    network = model if inplace else copy.deepcopy(model)
    if tokens:
        return scale_vit(network, image_size=cast(int | None, size), grid=grid, patch_size=patch_size)
    return reduce_after_first_conv(network, cast(int | Size, size), **options)


def undo_scaling(model: nn.Module) -> nn.Module:
    """Take `scale_resolution` back, in place; a network that was not scaled is left alone. Returns ``model``.

    Raises:
        ValueError: a ViT was trained since, see `undo_vit_scaling`.
    """
    return undo_vit_scaling(undo_first_conv_reduction(model))

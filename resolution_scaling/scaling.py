"""One call that lets a trained CNN or vision transformer work at a lower resolution."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch.nn as nn

from .cnn.reduction import reduce_after_first_conv, undo_first_conv_reduction
from .ground.sizes import Size
from .vit.registry import is_vit
from .vit.scaling import scale_vit, undo_vit_scaling

METHODS = ("auto", "fcr", "tokens")
"""What `scale_resolution` takes as ``method``."""


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

    Morlier, Leonardon, Gripon, GRETSI 2025, section 3.3. A CNN still reads full images, and is reduced after its first
    convolution (FCR, see `reduce_after_first_conv`). A vision transformer reads smaller images, or larger patches, and
    its embeddings are resampled (see `scale_vit`). The paper's third method, reduced crop (RC), does not change the
    network but its images: see `resolution_scaling.adapting.transforms`.

    Args:
        model: the network.
        size: the lower size, px. For a CNN a number or (height, width); for a ViT the side of the image.
        method: ``"fcr"``, ``"tokens"``, or ``"auto"``: tokens for a vision transformer, FCR for other networks.
        grid: for a ViT, tokens a side.
        patch_size: for a ViT, side of a patch, px.
        inplace: change ``model`` itself instead of a copy.
        options: arguments of `reduce_after_first_conv`: ``input_size``, ``in_channels``, ``interpolation``,
            ``restore_outputs``.

    Returns:
        The scaled network; `undo_scaling` undoes the scaling.

    Raises:
        TypeError, ValueError: an argument is not usable, the method does not take it, or the network cannot work at
            this resolution. The network is as it was.

    Example:
        >>> small = scale_resolution(torchvision.models.resnet50(), 160)
        >>> small = scale_resolution(timm.create_model("vit_small_patch16_224"), grid=11)
    """
    if method not in METHODS:
        hint = " (it changes the images: use resolution_scaling.adapting.transforms)" if method == "rc" else ""
        raise ValueError(f"method is {method!r}{hint}; expected one of {', '.join(map(repr, METHODS))}")
    tokens = is_vit(model) if method == "auto" else method == "tokens"
    if tokens and options:
        raise TypeError(f"{', '.join(options)} cannot be used for a vision transformer; only method='fcr' takes it")
    if not tokens and (size is None or grid is not None or patch_size is not None):
        raise TypeError(
            f"{type(model).__name__} is reduced by FCR: size is {size!r}, grid {grid!r} and patch_size {patch_size!r}; "
            "expected a size in px, and neither grid nor patch_size, which are for vision transformers"
        )
    network = model if inplace else copy.deepcopy(model)
    if tokens:
        return scale_vit(network, image_size=cast(int | None, size), grid=grid, patch_size=patch_size)
    return reduce_after_first_conv(network, cast(int | Size, size), **options)


def undo_scaling(model: nn.Module) -> nn.Module:
    """Undo `scale_resolution` in place. A network that was not scaled is left alone. Returns ``model``.

    Raises:
        ValueError: the resampled weights of a ViT were trained since, see `undo_vit_scaling`.
    """
    return undo_vit_scaling(undo_first_conv_reduction(model))

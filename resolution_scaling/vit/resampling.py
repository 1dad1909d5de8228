"""Resampling position embeddings to another grid, and patch embeddings to another patch size.

The arithmetic is that of timm's ``resample_abs_pos_embed`` and ``resample_patch_embed``: bicubic, antialiased, grids
aligned at the outer edges of their cells. torchvision's own ``interpolate_embeddings`` aligns the centres of the corner
cells instead, which moves every token away from its part of the image; it does not filter when a grid becomes coarser,
and it does not change the patch embedding.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..ground.sizes import Grid, Size


def resample_position_embedding(embedding: torch.Tensor, old: Grid, new: Grid, prefix_tokens: int = 1) -> torch.Tensor:
    """Resample position embeddings to another grid of tokens.

    Args:
        embedding: ``[1, prefix_tokens + rows * columns, channels]``; patch tokens follow the prefix tokens row by row.
        old: the grid of ``embedding``, tokens.
        new: the grid that is wanted, tokens.
        prefix_tokens: number of tokens without a place in the image (class, distillation, register); they stay.

    Returns:
        ``[1, prefix_tokens + new rows * new columns, channels]``, in the dtype of ``embedding``; ``embedding`` itself
        if the grids are equal.
    """
    if tuple(old) == tuple(new):
        return embedding
    prefix, patches = embedding[:, :prefix_tokens], embedding[:, prefix_tokens:]
    image = patches.to(torch.promote_types(patches.dtype, torch.float32)).reshape(1, *old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=tuple(new), mode="bicubic", antialias=True)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


def resample_patch_embedding(weight: torch.Tensor, new: Size) -> torch.Tensor:
    """Resize the filters of a patch embedding to another patch size by pseudo-inverse (FlexiViT, equation 4).

    Let ``B`` be the matrix that resizes a patch from the old to the new size. The new filter ``w'`` is the
    least-squares solution of ``<x, w> = <B x, w'>`` over all patches ``x``: ``w' = pinv(B^T) w``. A larger size loses
    nothing: an enlarged patch gives the same token as before. We resize bicubically with antialiasing, as timm does;
    the paper (Beyer et al. 2023) resizes bilinearly. Resizing is separable, and so is its pseudo-inverse: it is
    computed in float64, one axis at a time.

    Args:
        weight: ``[channels, image channels, height, width]``.
        new: the patch size that is wanted, px.

    Returns:
        ``[channels, image channels, *new]``, in the dtype of ``weight``. If the sizes are equal, ``weight`` itself.
    """
    if tuple(weight.shape[-2:]) == tuple(new):
        return weight
    rows, columns = (
        _pinv_resize(before, after).to(weight.device) for before, after in zip(weight.shape[-2:], new, strict=True)
    )
    return (rows @ weight.double() @ columns.T).to(weight.dtype)


def resize_patch_convolution(convolution: nn.Conv2d, patch: Size) -> None:
    """Resize a patch embedding that is a convolution, in place, so that its hooks stay."""
    convolution.weight = nn.Parameter(resample_patch_embedding(convolution.weight.detach(), patch))
    convolution.kernel_size = convolution.stride = patch


def _pinv_resize(old: int, new: int) -> torch.Tensor:
    """Compute ``pinv(B^T)`` for one axis: ``[new, old]``."""
    identity = torch.eye(old, dtype=torch.float64)[None, None]
    resize = F.interpolate(identity, size=(new, old), mode="bicubic", antialias=True)[0, 0]  # B: [new, old]
    return torch.linalg.pinv(resize.T)

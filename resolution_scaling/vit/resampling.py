"""Weights that live on a grid of pixels or tokens, brought to another grid.

The arithmetic of timm's ``resample_abs_pos_embed`` and ``resample_patch_embed`` (bicubic, antialiased, grids aligned at
the outer edges of their cells) for models of torchvision. Its own ``interpolate_embeddings`` aligns the centres of the
corner cells instead, which moves every token away from the part of the image that it stands for, does not filter when a
grid gets coarser, and leaves the patch embedding alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

Grid = tuple[int, int]
"""Height and width, in tokens or in pixels of a patch."""


def resample_position_embedding(embedding: torch.Tensor, old: Grid, new: Grid, prefix_tokens: int = 1) -> torch.Tensor:
    """Position embeddings for another grid of tokens.

    Args:
        embedding: ``[1, prefix_tokens + height * width, channels]``; patch tokens row by row behind the prefix tokens.
        old: the grid of ``embedding``, tokens.
        new: the grid that is asked for, tokens.
        prefix_tokens: tokens that have no place in the image (class, distillation, register), passed through.

    Returns:
        ``[1, prefix_tokens + new height * new width, channels]``, in the dtype of ``embedding``, which itself is
        returned where the grids are equal.
    """
    if tuple(old) == tuple(new):
        return embedding
    prefix, patches = embedding[:, :prefix_tokens], embedding[:, prefix_tokens:]
    image = patches.to(torch.promote_types(patches.dtype, torch.float32)).reshape(1, *old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=tuple(new), mode="bicubic", antialias=True)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


def resample_patch_embedding(weight: torch.Tensor, new: Grid) -> torch.Tensor:
    """The filters of a patch embedding for another patch size: pseudo-inverse resize (FlexiViT, equation 4).

    With ``B`` the matrix that resizes a patch from the old to the new size, the new filter ``w'`` is the least-squares
    solution of ``<x, w> = <B x, w'>`` over all patches ``x``: ``w' = pinv(B^T) w``. A larger size loses nothing: a
    patch that was enlarged gives the token that it gave before. Resizing is bicubic and antialiased, as in timm; the
    paper (Beyer et al. 2023) has bilinear. It is separable, so its pseudo-inverse is too: one axis at a time, float64.

    Args:
        weight: ``[channels, image channels, height, width]``.
        new: the patch size that is asked for, px.

    Returns:
        ``[channels, image channels, *new]``, in the dtype of ``weight``, which itself is returned where the sizes are
        equal.
    """
    if tuple(weight.shape[-2:]) == tuple(new):
        return weight
    rows, columns = (
        _pinv_resize(before, after).to(weight.device) for before, after in zip(weight.shape[-2:], new, strict=True)
    )
    return (rows @ weight.double() @ columns.T).to(weight.dtype)


def _pinv_resize(old: int, new: int) -> torch.Tensor:
    """``pinv(B^T)`` of one axis: ``[new, old]``."""
    identity = torch.eye(old, dtype=torch.float64)[None, None]
    resize = F.interpolate(identity, size=(new, old), mode="bicubic", antialias=True)[0, 0]  # B: [new, old]
    return torch.linalg.pinv(resize.T)

"""Lowering the resolution of vision transformers: fewer tokens, other patches (section 3.3 of the paper).

A ViT reads ``grid x grid`` tokens. Each token is a patch of ``patch_size x patch_size`` px, so the image has ``grid *
patch_size`` px a side. The cost follows the grid; the patch size only sets the number of pixels for each token. The
paper trains a new network for each grid and patch size. Here the weights of a trained network are kept: position
embeddings are resampled to the new grid, and the patch embedding is resized by pseudo-inverse (FlexiViT).
"""

from __future__ import annotations

import torch.nn as nn

from ..ground.originals import Originals, recording
from .registry import vit_family
from .sizes import solve

KEPT = "_before_scaling"
"""The attribute of a scaled model that holds its `Originals`."""


def scale_vit(
    model: nn.Module, *, image_size: int | None = None, grid: int | None = None, patch_size: int | None = None
) -> nn.Module:
    """Change the token grid or the patch size of a trained ViT, in place.

    ``image_size = grid * patch_size``. Give one or two of the three:

    - ``grid``: the patch size stays, the image shrinks.
    - ``patch_size``: the grid stays, the image shrinks, the cost stays (the paper's Table 1 at one resolution).
    - ``image_size``: the patch size stays, the grid shrinks.
    - ``image_size`` and ``patch_size``: the grid follows, as in FlexiViT.

    Weights are always resampled from those that the model had before it was first scaled. Scaling twice therefore gives
    the same as scaling once, and returning to the original sizes gives the original weights, bit for bit. For this the
    model keeps the few tensors that were replaced, and copies of their replacements: 1 to 5 % of its weights. If the
    replacements are trained, or loaded from a file, the next scaling starts from these. `undo_vit_scaling` undoes the
    scaling. Make the optimizer after scaling, because the replaced parameters are new objects.

    What is resampled depends on the family: see the classes in `resolution_scaling.vit.families`.

    Args:
        model: the ViT itself, not a module around it.
        image_size: side of the image, px.
        grid: tokens a side (for Swin: of the first stage).
        patch_size: side of a patch, px.

    Returns:
        The model.

    Raises:
        TypeError: a size is not a whole number, or the model is not a vision transformer of a known family.
        ValueError: the sizes do not fit each other (the text names the nearest that do), or the model cannot change its
            patch size. The model is as it was.
    """
    family = vit_family(model)
    sizes = solve(
        family.token_sizes(model),
        image_size=image_size,
        grid=grid,
        patch_size=patch_size,
        patch_can_change=family.patch_can_change(model),
    )
    with recording(model):  # an error leaves the model as it was
        originals = vars(model).get(KEPT)
        if originals is not None and originals.untouched(model):
            originals.put_back(model)
            delattr(model, KEPT)
        with recording(model) as originals_so_far:
            if family.token_sizes(model) != sizes:
                family.resize(model, sizes)
            originals = originals_so_far()
        if originals.replaced:
            _keep_frozen(model, originals)
            setattr(model, KEPT, originals)
    return model


def undo_vit_scaling(model: nn.Module) -> nn.Module:
    """Undo `scale_vit`: the original weights return, bit for bit (rounded, if the model was cast since).

    A model that was not scaled is left alone.

    Returns:
        The model.

    Raises:
        ValueError: the resampled weights were trained or loaded since. The model is as it was; `scale_vit` to the
            original sizes resamples its new weights.
    """
    originals: Originals | None = vars(model).get(KEPT)
    if originals is None:
        return model
    if not originals.untouched(model):
        raise ValueError(
            "the resampled weights of model were trained, or loaded from a file, since it was scaled: undoing would "
            "lose them. To resample them to the original sizes, call scale_vit with these sizes"
        )
    with recording(model):
        originals.put_back(model)
        delattr(model, KEPT)
    return model


def _keep_frozen(model: nn.Module, originals: Originals) -> None:
    """Freeze the replacements of frozen parameters: older versions of timm do not."""
    for path, _, name, original in originals.replaced:
        replacement: object = getattr(model.get_submodule(path), name, None)
        if isinstance(original, nn.Parameter) and isinstance(replacement, nn.Parameter):
            replacement.requires_grad_(original.requires_grad)
        elif isinstance(original, nn.Module) and isinstance(replacement, nn.Module):
            for inner, parameter in original.named_parameters():
                replacement.get_parameter(inner).requires_grad_(parameter.requires_grad)

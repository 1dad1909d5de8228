"""Lowering the resolution of vision transformers: fewer tokens, smaller patches (section 3.3 of the paper).

A ViT sees ``grid x grid`` tokens, each made from a patch of ``patch_size x patch_size`` px of an image of
``grid * patch_size`` px. Its cost follows the grid; the patch size only says how many pixels stand behind a token. The
paper trains a network anew for each grid and patch size. Here the weights of a trained one are kept: position
embeddings are resampled to the new grid, and the patch embedding is resized by pseudo-inverse (FlexiViT).
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, Protocol, cast

import torch.nn as nn

from ..ground.originals import Originals, recording
from .resampling import Grid, resample_patch_embedding, resample_position_embedding
from .sizes import TokenSizes, solve

KEPT = "_before_scaling"
"""The attribute of a scaled model that holds its `Originals`."""


def scale_vit(
    model: nn.Module, *, image_size: int | None = None, grid: int | None = None, patch_size: int | None = None
) -> nn.Module:
    """Let a trained ViT work on fewer tokens, or on smaller patches, in place.

    ``image_size = grid * patch_size``. Give one of the three, or two; the third follows:

    - ``grid``: the patch size stays, the image shrinks.
    - ``patch_size``: the grid stays, the image shrinks, the cost stays (the paper's Table 1 at one resolution).
    - ``image_size``: the patch size stays, the grid shrinks.
    - ``image_size`` and ``patch_size``: the grid follows, as in FlexiViT.

    The weights are always resampled from those that the model had before it was first scaled, so scaling twice equals
    scaling once, and going back to the original sizes gives the original weights, bit for bit. To that end the model
    keeps the few tensors that were replaced, and copies of what replaced them: 1 to 5 % of its weights. Once the new
    ones are trained, or loaded from a file, it is from them that the next scaling goes on. `unscale_vit` undoes. Make
    the optimizer afterwards: the parameters that are replaced are new ones.

    What is resampled:

    - torchvision's ViT: position and patch embedding.
    - timm's models with ``set_input_size`` and ``patch_embed``, by that method: ViT, DeiT (also distilled), register
      tokens, no class token, rotary embeddings (EVA), relative position biases (BEiT, ``vit_relpos``). In Swin the
      windows shrink with the grid, and their position biases with them. Hybrids (a CNN makes the patches) and
      ``swinv2_cr`` cannot change the patch size.
    - torchvision's Swin takes any image as it is: ``image_size`` and ``grid`` are only checked against the patch size,
      ``patch_size`` is resampled. Its windows stay 7 or 8 tokens wide, and maps are padded to whole windows: where they
      do not fit, the cost falls less than the number of pixels.

    Args:
        model: the ViT itself, not a module around it.
        image_size: side of the image, px.
        grid: tokens a side (for Swin: of the first stage).
        patch_size: side of a patch, px.

    Returns:
        The model.

    Raises:
        TypeError: a size is not a whole number, or the model is not one of the above.
        ValueError: the sizes do not fit each other (the text names the nearest that do), or the model cannot change its
            patch size. The model is as it was.
    """
    family = _family(model)
    sizes = solve(
        family.sizes(),
        image_size=image_size,
        grid=grid,
        patch_size=patch_size,
        patch_can_change=family.patch_can_change,
    )
    with recording(model):  # an error leaves the model as it was
        originals = vars(model).get(KEPT)
        if originals is not None and originals.untouched(model):
            originals.put_back(model)
            delattr(model, KEPT)
        with recording(model) as originals_so_far:
            if family.sizes() != sizes:
                family.resize(sizes)
            originals = originals_so_far()
        if originals.replaced:
            _keep_frozen(model, originals)
            setattr(model, KEPT, originals)
    return model


def unscale_vit(model: nn.Module) -> nn.Module:
    """Undo `scale_vit`: the weights that the model had before, bit for bit (rounded, where it was cast since).

    Raises:
        ValueError: the weights that scaling made were trained or loaded since; the model is as it was. `scale_vit` to
            the old sizes resamples them.
    """
    originals: Originals | None = vars(model).get(KEPT)
    if originals is None:
        return model
    if not originals.untouched(model):
        raise ValueError(
            "the resampled weights were trained, or loaded from a file, since the model was scaled: there is no going "
            "back to the original ones. To bring the new ones to the old sizes, call scale_vit with these sizes"
        )
    with recording(model):
        originals.put_back(model)
        delattr(model, KEPT)
    return model


def token_sizes(model: nn.Module) -> TokenSizes:
    """The image size, the grid and the patch size at which a ViT works now."""
    return _family(model).sizes()


def is_vit(model: nn.Module) -> bool:
    """Whether `scale_vit` knows the model."""
    return _find_family(model) is not None


def _keep_frozen(model: nn.Module, originals: Originals) -> None:
    """What was frozen stays frozen: older timm forgets it."""
    for path, _, name, original in originals.replaced:
        replacement: Any = getattr(model.get_submodule(path), name, None)
        if isinstance(original, nn.Parameter):
            replacement.requires_grad_(original.requires_grad)
        elif isinstance(original, nn.Module):
            for inner, parameter in original.named_parameters():
                replacement.get_parameter(inner).requires_grad_(parameter.requires_grad)


# The families of models


class _Family(Protocol):
    """How the models of a library tell and change their sizes."""

    model: Any  # its library has no types for what is read here
    patch_can_change: bool

    def sizes(self) -> TokenSizes: ...

    def resize(self, sizes: TokenSizes) -> None: ...


class _TorchvisionViT:
    def __init__(self, model: Any):
        self.model = model
        self.patch_can_change = isinstance(model.conv_proj, nn.Conv2d)  # not with a stem of convolutions

    def sizes(self) -> TokenSizes:
        image, patch = self.model.image_size, self.model.patch_size
        return TokenSizes((image, image), (image // patch, image // patch), (patch, patch))

    def resize(self, sizes: TokenSizes) -> None:
        model, old = self.model, self.sizes()
        image, old_grid, grid = cast(tuple[Grid, Grid, Grid], (sizes.image_size, old.grid, sizes.grid))  # it has them
        embedding = resample_position_embedding(model.encoder.pos_embedding.detach(), old_grid, grid)
        model.encoder.pos_embedding = nn.Parameter(embedding)
        if sizes.patch_size != old.patch_size:
            _resize_patches(model.conv_proj, sizes.patch_size)
        model.image_size, model.patch_size = image[0], sizes.patch_size[0]
        model.seq_length = embedding.shape[1]


class _TorchvisionSwin:
    patch_can_change = True

    def __init__(self, model: Any):
        self.model = model
        self.patches: nn.Conv2d = model.features[0][0]

    def sizes(self) -> TokenSizes:
        height, width = self.patches.kernel_size
        return TokenSizes(None, None, (height, width))

    def resize(self, sizes: TokenSizes) -> None:
        if sizes.patch_size != self.patches.kernel_size:
            _resize_patches(self.patches, sizes.patch_size)


class _Timm:
    def __init__(self, model: Any):
        self.model = model
        self.embed = model.patch_embed
        self.patch_can_change = (
            not hasattr(self.embed, "backbone") and "patch_size" in inspect.signature(model.set_input_size).parameters
        )

    def sizes(self) -> TokenSizes:
        ratio = getattr(self.embed, "feat_ratio", None)  # of a hybrid: px between the tokens, not patches of its maps
        patch = tuple(ratio(as_scalar=False) if ratio else self.embed.patch_size)
        if self.embed.img_size is None:
            return TokenSizes(None, None, patch)
        return TokenSizes(tuple(self.embed.img_size), tuple(self.embed.grid_size), patch)

    def resize(self, sizes: TokenSizes) -> None:
        if isinstance(getattr(self.model, "feature_info", None), list):
            self.model.feature_info = copy.deepcopy(self.model.feature_info)  # timm changes what it holds
        patch = {"patch_size": sizes.patch_size} if sizes.patch_size != self.sizes().patch_size else {}
        self.model.set_input_size(img_size=sizes.image_size, **patch)


def _find_family(model: nn.Module) -> _Family | None:
    """Told by names: neither library need be installed."""
    lineage = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    if "torchvision.models.vision_transformer.VisionTransformer" in lineage:
        return _TorchvisionViT(model)
    if "torchvision.models.swin_transformer.SwinTransformer" in lineage:
        return _TorchvisionSwin(model)
    if hasattr(model, "set_input_size") and hasattr(getattr(model, "patch_embed", None), "grid_size"):
        return _Timm(model)
    return None


def _family(model: nn.Module) -> _Family:
    family = _find_family(model)
    if family is None:
        raise TypeError(
            f"{type(model).__name__} is not a vision transformer that can be scaled: torchvision's ViT and Swin, "
            "and those of timm that have set_input_size and patch_embed. Pass the transformer itself, not a module "
            "around it; other models of timm are built at another size by timm.create_model(..., img_size=...)"
        )
    return family


def _resize_patches(convolution: nn.Conv2d, patch: Grid) -> None:
    """In place, so that hooks stay."""
    convolution.weight = nn.Parameter(resample_patch_embedding(convolution.weight.detach(), patch))
    convolution.kernel_size = convolution.stride = patch

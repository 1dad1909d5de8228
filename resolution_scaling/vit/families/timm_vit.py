"""Vision transformers of timm, Swin included."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch.nn as nn

from ..family import Dimensions, ViTFamily
from ..sizes import TokenSizes


class TimmViT(ViTFamily):
    """Models of timm that have ``set_input_size`` and ``patch_embed``; that method of timm resizes them.

    These are ViT, DeiT (also distilled), models with register tokens or without a class token, with rotary embeddings
    (EVA) or relative position biases (BEiT, ``vit_relpos``), and Swin, whose windows and position biases shrink with
    the grid. Hybrids (a CNN makes the patches) and ``swinv2_cr`` cannot change their patch size.
    """

    name = "timm"

    def recognizes(self, model: nn.Module) -> bool:
        """By its methods, because they belong to many classes."""
        return hasattr(model, "set_input_size") and hasattr(getattr(model, "patch_embed", None), "grid_size")

    def token_sizes(self, model: Any) -> TokenSizes:
        """As the patch embedding records them. The patch of a hybrid is the distance of its tokens in the image."""
        embed = model.patch_embed
        ratio = getattr(embed, "feat_ratio", None)
        patch = tuple(ratio(as_scalar=False) if ratio else embed.patch_size)
        if embed.img_size is None:
            return TokenSizes(None, None, patch)
        return TokenSizes(tuple(embed.img_size), tuple(embed.grid_size), patch)

    def patch_can_change(self, model: Any) -> bool:
        """If no CNN makes the patches, and timm has an argument for it."""
        takes_patch_size = "patch_size" in inspect.signature(model.set_input_size).parameters
        return takes_patch_size and not hasattr(model.patch_embed, "backbone")

    def resize(self, model: Any, sizes: TokenSizes) -> None:
        """By timm's ``set_input_size``."""
        if isinstance(getattr(model, "feature_info", None), list):
            model.feature_info = copy.deepcopy(model.feature_info)  # timm writes into it, which cannot be undone
        patch = {} if sizes.patch_size == self.token_sizes(model).patch_size else {"patch_size": sizes.patch_size}
        model.set_input_size(img_size=sizes.image_size, **patch)

    def dimensions(self, model: Any) -> Dimensions:
        """As the first block has them."""
        block = model.blocks[0]
        return Dimensions(model.embed_dim, block.mlp.fc1.out_features, len(model.blocks), block.attn.num_heads)

    def rebuild(self, model: Any, dimensions: Dimensions) -> nn.Module:
        """By timm's ``create_model``, with the arguments that the model records."""
        import timm

        sizes = self.token_sizes(model)
        options = {
            "num_classes": model.num_classes,
            "in_chans": next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)),
            "img_size": sizes.image_size,
            "patch_size": sizes.patch_size,
            "embed_dim": dimensions.hidden,
            "depth": dimensions.depth,
            "num_heads": dimensions.heads,
            "mlp_ratio": (dimensions.mlp + 0.5) / dimensions.hidden,  # timm rounds the product down
        }
        recorded = getattr(model, "_model_args", {})
        return timm.create_model(model.pretrained_cfg["architecture"], **(recorded | options))

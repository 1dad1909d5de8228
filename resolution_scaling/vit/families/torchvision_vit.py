"""ViT of torchvision."""

from __future__ import annotations

from typing import Any, cast

import torch.nn as nn

from ...ground.sizes import Grid, Size
from ..family import Dimensions, ViTFamily
from ..resampling import resample_position_embedding, resize_patch_convolution
from ..sizes import TokenSizes


class TorchvisionViT(ViTFamily):
    """``torchvision.models.VisionTransformer``: position and patch embeddings are resampled.

    The patch size cannot change if convolutions (``conv_stem_configs``) make the patches.
    """

    name = "torchvision ViT"

    def recognizes(self, model: nn.Module) -> bool:
        """By the name of the class, because torchvision may not be installed."""
        full_name = ("torchvision.models.vision_transformer", "VisionTransformer")
        return any((kind.__module__, kind.__qualname__) == full_name for kind in type(model).__mro__)

    def token_sizes(self, model: Any) -> TokenSizes:
        """Image and grid are square."""
        image, patch = model.image_size, model.patch_size
        return TokenSizes((image, image), (image // patch, image // patch), (patch, patch))

    def patch_can_change(self, model: Any) -> bool:
        """If one convolution makes the patches."""
        return isinstance(model.conv_proj, nn.Conv2d)

    def resize(self, model: Any, sizes: TokenSizes) -> None:
        """Resample both embeddings and set the sizes that ``forward`` checks."""
        old = self.token_sizes(model)
        image, old_grid, grid = cast(tuple[Size, Grid, Grid], (sizes.image_size, old.grid, sizes.grid))  # never None
        embedding = resample_position_embedding(model.encoder.pos_embedding.detach(), old_grid, grid)
        model.encoder.pos_embedding = nn.Parameter(embedding)
        if sizes.patch_size != old.patch_size:
            resize_patch_convolution(model.conv_proj, sizes.patch_size)
        model.image_size, model.patch_size = image[0], sizes.patch_size[0]
        model.seq_length = embedding.shape[1]

    def dimensions(self, model: Any) -> Dimensions:
        """As the model and its first block record them."""
        blocks = model.encoder.layers
        return Dimensions(model.hidden_dim, model.mlp_dim, len(blocks), blocks[0].num_heads)

    def rebuild(self, model: Any, dimensions: Dimensions) -> nn.Module:
        """The class has no argument for channels of the image: a patch embedding for others than 3 is exchanged."""
        rebuilt = type(model)(
            image_size=model.image_size,
            patch_size=model.patch_size,
            num_layers=dimensions.depth,
            num_heads=dimensions.heads,
            hidden_dim=dimensions.hidden,
            mlp_dim=dimensions.mlp,
            dropout=model.dropout,
            attention_dropout=model.attention_dropout,
            num_classes=model.num_classes,
            representation_size=model.representation_size,
            norm_layer=model.norm_layer,
        )
        patches = model.conv_proj
        if isinstance(patches, nn.Conv2d) and patches.in_channels != rebuilt.conv_proj.in_channels:
            size = model.patch_size
            rebuilt.conv_proj = nn.Conv2d(patches.in_channels, dimensions.hidden, size, size)
            fan_in = patches.in_channels * size**2
            nn.init.trunc_normal_(rebuilt.conv_proj.weight, std=fan_in**-0.5)  # as torchvision does
            nn.init.zeros_(rebuilt.conv_proj.bias)
        return rebuilt

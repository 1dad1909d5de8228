"""The networks of the experiment, and its presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from torchvision.models import VisionTransformer

import resolution_scaling as rs
from resolution_scaling.rivals.model_scaling import ScaledModel, flops_at

from ..experiments.classification import Augmentation, ClassificationPreset, Variant
from ..experiments.training import Training
from ..vit_table1.table import VIT_S

FULL_GRID, REDUCED_GRID = 14, 12
"""Tokens along a side of ViT-S, and of the grid that saves the paper's 28 % of its FLOPs."""
LOW_GRID, HIGH_GRID = 8, 11
"""The grids of the halves of Table 1."""
AS_PRINTED = "mlp as printed"
"""MLP scaling to equal FLOPs by the paper's count, which counts the MLPs twice; so it has more FLOPs than the grid."""
GRIDS = (8, 11, 12, 13, 14, 15)
RIVALS = {LOW_GRID: ("hidden", "mlp", AS_PRINTED, "depth", "hybrid"), HIGH_GRID: ("hidden", "mlp", AS_PRINTED, "depth")}
"""Methods of model scaling, by the grid whose FLOPs they reach: those of Table 1, and MLP scaling by both counts."""


def grid_network(grid: int, patch_px: int) -> tuple[str, str]:
    """Method and setting of a grid in ``results.csv``."""
    return "grid", f"{grid} patch {patch_px}"


def count_as_printed(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """FLOPs of one image by the paper's convention; see `resolution_scaling.cost.gretsi2025`."""
    return rs.profile(model, tuple(input_shape), definition="gretsi2025").flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset(ClassificationPreset):
    """Sizes of the experiment, beside those of `ClassificationPreset`.

    Validation images choose between patches, and between rivals.

    Attributes:
        network: arguments of torchvision's `VisionTransformer` at the full grid, such as `VIT_S`.
        patches: sides of a patch on the grids in `RIVALS`, px.
        grids: numbers of tokens along a side.
    """

    network: dict[str, int]
    patches: tuple[int, ...]
    grids: tuple[int, ...] = GRIDS

    @property
    def patch_px(self) -> int:
        """Side of a patch of the reference, px."""
        return self.network["patch_size"]

    def build(self, grid: int, patch_px: int, classes: int, **sizes: int) -> VisionTransformer:
        """The network on a grid, with patches of a side, and with other ``sizes`` as torchvision names them."""
        sizes |= {"image_size": grid * patch_px, "patch_size": patch_px, "num_classes": classes}
        return VisionTransformer(**(self.network | sizes))

    def rival(self, method: str, grid: int, classes: int) -> ScaledModel:
        """A smaller network on the full grid, with the FLOPs of a lower one; it is on the meta device.

        Raises:
            ValueError: no network of its kind is that cheap.
        """
        name, count = ("mlp", count_as_printed) if method == AS_PRINTED else (method, flops_at)
        with torch.device("meta"):
            low, full = (self.build(tokens, self.patch_px, classes) for tokens in (grid, FULL_GRID))
        target = count(low, (1, 3, low.image_size, low.image_size))
        return rs.scale_model(full, name, flops=target, count=count)

    def rivals(self, classes: int) -> tuple[dict[tuple[str, int], ScaledModel], dict[tuple[str, int], str]]:
        """The rivals by method and grid; and by method and grid too, why others do not exist."""
        found, missing = {}, {}
        for grid in self.grids:
            for method in RIVALS.get(grid, ()):
                try:
                    found[method, grid] = self.rival(method, grid, classes)
                except ValueError as error:
                    missing[method, grid] = str(error)
        return found, missing

    def variants(self, rivals: Mapping[tuple[str, int], ScaledModel]) -> list[Variant]:
        """The networks to train. The setting of a rival is the grid whose FLOPs it has."""
        pairs = [(grid, self.patch_px) for grid in self.grids]
        pairs += [(grid, patch) for grid in self.grids if grid in RIVALS for patch in self.patches]
        variants = []
        for grid, patch in dict.fromkeys(pairs):
            build = partial(self.build, grid, patch)
            variants.append(Variant(*grid_network(grid, patch), build, grid * patch, (grid * patch,)))
        for (method, grid), rival in rivals.items():
            hidden, mlp, depth, _ = rival.configuration.values()
            sizes = {"hidden_dim": hidden, "mlp_dim": mlp, "num_layers": depth}
            build = partial(self.build, FULL_GRID, self.patch_px, **sizes)
            full_px = FULL_GRID * self.patch_px
            variants.append(Variant(method, str(grid), build, full_px, (full_px,)))
        return variants


# As in ViT-S, the MLPs have three fifths of the FLOPs, and there are 14 x 14 tokens: 28 px in patches of 2.
_SMALL_VIT = {"image_size": 28, "patch_size": 2, "num_layers": 4, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 384}
_SMALL_TRAINING = Training(3, 3e-3, 16, "one_cycle", "adamw", weight_decay=0.05, keep="last")
# Flips alone: in a training as short as this, crops reduce the accuracy on every grid.
_FLIPS = Augmentation((1.0, 1.0), trivial_augment=False, random_erasing=0, mixup=0, cutmix=0, label_smoothing=0)
PRESETS = {
    "smoke": Preset(
        network=_SMALL_VIT,
        patches=(1, 2, 3, 4),
        train_images=160,
        validation_images=100,
        test_images=100,
        training=_SMALL_TRAINING,
        augmentation=_FLIPS,
        seeds=2,
    ),
    "small": Preset(
        network=_SMALL_VIT,
        patches=(1, 2, 3, 4),
        train_images=7000,
        validation_images=1000,
        test_images=2000,
        training=_SMALL_TRAINING,
        augmentation=_FLIPS,
        seeds=5,
    ),
    "paper": Preset(
        network=VIT_S,
        patches=(8, 12, 16, 24, 32),
        train_images=None,
        validation_images=10_000,
        test_images=None,
        # torchvision's settings for ViT-B/16 on 8 processes of 512 images, without RandAugment, repeated sampling and
        # clipping of gradients. The decay is its 0.99998 every 32 steps, adapted to 300 epochs of such batches.
        training=Training(
            300, 3e-3, 512, "cosine", "adamw", weight_decay=0.3, warmup_epochs=30, ema_decay=0.9997, keep="last"
        ),
        augmentation=Augmentation(random_erasing=0, label_smoothing=0.11),
        seeds=1,
    ),
}

"""Fewer tokens against smaller networks, by training (sections 3.3 and 4.2 of the resolution-scaling paper).

A vision transformer is trained anew on each grid of tokens, on two of them also with other patches, and on the full
grid with the FLOPs of those two by a smaller hidden size, smaller MLPs, fewer blocks, or smaller hidden size and MLPs
(hybrid). Everything is written to the output folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from functools import partial

import torch
from filelock import FileLock
from torch import nn
from torchvision.models import VisionTransformer

import resolution_scaling as rs
from resolution_scaling.rivals.model_scaling import ScaledModel, count_flops

from ..datasets.images import load_images
from ..experiments.classification import Augmentation, Classification, Variant
from ..experiments.command_line import classification_arguments, ending_in_words, hardware_of, refusing
from ..experiments.training import Training
from ..vit_table1.table import VIT_S
from .report import AS_PRINTED, FULL_GRID, HIGH_GRID, LOW_GRID, grid_network, write_report

GRIDS = (8, 11, 12, 13, 14, 15)
RIVALS = {LOW_GRID: ("hidden", "mlp", AS_PRINTED, "depth", "hybrid"), HIGH_GRID: ("hidden", "mlp", AS_PRINTED, "depth")}
"""By the grid whose FLOPs they get; those of Table 1, and MLP scaling by both counts."""


def count_as_printed(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """FLOPs of one image by the paper's convention, see `resolution_scaling.cost.gretsi2025`."""
    return rs.profile(model, tuple(input_shape), definition="gretsi2025").flops


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the experiment.

    Attributes:
        network: of torchvision's `VisionTransformer`, such as `VIT_S`: its sizes at the full grid.
        patches: sides of a patch, px, of the grids in `RIVALS`.
        train_images: None for all that are not validation.
        validation_images: set aside from the training images; they choose between patches, and between rivals.
        test_images: at most so many; None for all.
        training, augmentation: of every network.
        seeds: how many times all is repeated, if the command does not say.
        grids: tokens a side.
    """

    network: dict[str, int]
    patches: tuple[int, ...]
    train_images: int | None
    validation_images: int
    test_images: int | None
    training: Training
    augmentation: Augmentation
    seeds: int
    grids: tuple[int, ...] = GRIDS

    @property
    def patch_px(self) -> int:
        """Of the reference."""
        return self.network["patch_size"]

    def build(self, grid: int, patch_px: int, classes: int, **sizes: int) -> VisionTransformer:
        """The network on another grid, with other patches, or with other ``sizes`` of torchvision's."""
        sizes |= {"image_size": grid * patch_px, "patch_size": patch_px, "num_classes": classes}
        return VisionTransformer(**(self.network | sizes))

    def rival(self, method: str, grid: int, classes: int) -> ScaledModel:
        """A smaller network on the full grid, with the FLOPs of a lower one; on the meta device.

        Raises:
            ValueError: none of its kind is so cheap.
        """
        name, count = ("mlp", count_as_printed) if method == AS_PRINTED else (method, count_flops)
        with torch.device("meta"):
            low, full = (self.build(tokens, self.patch_px, classes) for tokens in (grid, FULL_GRID))
        target = count(low, (1, 3, low.image_size, low.image_size))
        return rs.scale_model(full, name, flops=target, count=count)

    def rivals(self, classes: int) -> tuple[dict[tuple[str, int], ScaledModel], dict[tuple[str, int], str]]:
        """Those of the grids, by method and grid; and of those that there are not, why."""
        found, missing = {}, {}
        for grid in self.grids:
            for method in RIVALS.get(grid, ()):
                try:
                    found[method, grid] = self.rival(method, grid, classes)
                except ValueError as error:
                    missing[method, grid] = str(error)
        return found, missing

    def variants(self, rivals: Mapping[tuple[str, int], ScaledModel]) -> list[Variant]:
        """The networks to train; the setting of a rival is the grid whose FLOPs it has."""
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

    def settings(self) -> dict[str, object]:
        """What distinguishes a run from others, such as JSON can hold; more seeds may be added to it."""
        elsewhere = ("training", "augmentation", "seeds")
        return {key: value for key, value in vars(self).items() if key not in elsewhere}


# As in ViT-S, MLPs have three fifths of the FLOPs; 28 px in patches of 2 are its 14 x 14 tokens.
_SMALL_VIT = {"image_size": 28, "patch_size": 2, "num_layers": 4, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 384}
_SMALL_TRAINING = Training(3, 3e-3, 16, "one_cycle", "adamw", weight_decay=0.05, keep="last")
# Flips alone: in a training this short, crops cost accuracy on every grid.
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
        # torchvision's for ViT-B/16, 8 processes of 512 images, but for RandAugment and its repeated sampling, and the
        # clipping of gradients. The averaging is its 0.99998 every 32 steps, adapted to 300 epochs of such batches.
        training=Training(
            300, 3e-3, 512, "cosine", "adamw", weight_decay=0.3, warmup_epochs=30, ema_decay=0.9997, keep="last"
        ),
        augmentation=Augmentation(random_erasing=0, label_smoothing=0.11),
        seeds=1,
    ),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return classification_arguments("vit_resolution", "vit", __doc__, PRESETS, arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments(arguments)
    with ending_in_words(options.output), FileLock(options.output / ".lock", timeout=0):
        _run(options)


def _run(options: argparse.Namespace) -> None:
    preset, hardware = PRESETS[options.preset], hardware_of(options)
    settings = {"preset": options.preset, "folder": options.data and str(options.data.resolve())} | preset.settings()
    with refusing():
        data = load_images(options.data, preset.train_images, preset.validation_images, preset.test_images)
        parts = (data, preset.training, preset.augmentation, hardware, options.output, settings)
        experiment = Classification(*parts, whole_images=True)
    rivals, missing = preset.rivals(data.classes)
    seeds = range(options.seed, options.seed + (options.seeds or preset.seeds))
    results = experiment.run(preset.variants(rivals), seeds)
    results = results[results["seed"].isin(seeds)]  # the folder may hold more
    table, files = write_report(experiment, results, preset.network, rivals, missing, options.command)
    print(table)
    print("\nwritten:", *files, sep="\n  ")


if __name__ == "__main__":
    main()

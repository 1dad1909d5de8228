"""Lower resolution against fewer filters, by training (sections 3.3 and 4.1 of the resolution-scaling paper).

A ResNet is trained on random crops of each size K_train (RC); at full size with its maps reduced after the first
convolution to what K_train would give (FCR), so at a comparable training cost; and at full size with fewer filters
(width). Each is evaluated at many sizes K_eval, of which validation images choose the one whose test accuracy counts.
Everything is written to the output folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial

from filelock import FileLock
from torch import nn
from torchvision.models import resnet50

import resolution_scaling as rs

from ..datasets.images import load_images
from ..experiments.classification import Augmentation, Classification, Variant
from ..experiments.command_line import classification_arguments, ending_in_words, hardware_of, refusing
from ..experiments.training import Training
from ..networks.resnet import SmallResNet
from .report import write_report


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the experiment.

    Attributes:
        network: number of classes -> new network, for images of three channels.
        full_size: of the images, px.
        train_sizes: the ``K_train`` below it, px.
        widths: shares of the filters.
        evaluation_sizes: the ``K_eval``, px.
        train_images: None for all that are not validation.
        validation_images: set aside from the training images.
        test_images: at most so many; None for all.
        training, augmentation: of every network.
        seeds: how many times all is repeated, if the command does not say.
    """

    network: Callable[[int], nn.Module]
    full_size: int
    train_sizes: tuple[int, ...]
    widths: tuple[float, ...]
    evaluation_sizes: range
    train_images: int | None
    validation_images: int
    test_images: int | None
    training: Training
    augmentation: Augmentation
    seeds: int

    def variants(self) -> list[Variant]:
        """The networks to train."""
        full, sizes = self.full_size, self.evaluation_sizes
        return [
            *(Variant("RC", str(size), self.network, size, sizes) for size in (*self.train_sizes, full)),
            *(Variant("FCR", str(size), partial(self.fcr, size), full, sizes) for size in self.train_sizes),
            *(Variant("width", f"{width:g}", partial(self.narrow, width), full, sizes) for width in self.widths),
        ]

    def fcr(self, size: int, classes: int) -> nn.Module:
        """The network reduced after its first convolution, from the full size to ``size`` px."""
        return rs.scale_resolution(self.network(classes), size, input_size=self.full_size)

    def narrow(self, width: float, classes: int) -> nn.Module:
        """The network with a share of the filters."""
        shape = (1, 3, self.full_size, self.full_size)
        return rs.scale_model(self.network(classes), "width", size=width, input_shape=shape).model

    def settings(self) -> dict[str, object]:
        """What distinguishes a run from others, such as JSON can hold; more seeds may be added to it."""
        elsewhere = ("network", "training", "augmentation", "seeds")
        sizes = {name: value for name, value in vars(self).items() if name not in elsewhere}
        return sizes | {"evaluation_sizes": list(self.evaluation_sizes)}


_CROPS_AND_FLIPS = Augmentation(trivial_augment=False, random_erasing=0, mixup=0, cutmix=0, label_smoothing=0)
PRESETS = {
    "smoke": Preset(
        network=lambda classes: SmallResNet(8, 3, classes),
        full_size=28,
        train_sizes=(8, 16, 20, 22),
        widths=(0.5, 0.25),
        evaluation_sizes=range(8, 37, 4),
        train_images=2000,
        validation_images=300,
        test_images=500,
        training=Training(2, 1e-2, 32, "one_cycle", "adamw", weight_decay=1e-2, keep="last"),
        augmentation=_CROPS_AND_FLIPS,
        seeds=2,
    ),
    "small": Preset(
        network=lambda classes: SmallResNet(12, 3, classes),
        full_size=28,
        train_sizes=(8, 16, 20, 22),
        widths=(0.5, 0.25),
        evaluation_sizes=range(8, 37, 2),
        train_images=7000,
        validation_images=1000,
        test_images=2000,
        training=Training(6, 1e-2, 64, "one_cycle", "adamw", weight_decay=1e-2, keep="last"),
        augmentation=_CROPS_AND_FLIPS,
        seeds=5,
    ),
    "paper": Preset(
        network=lambda classes: resnet50(num_classes=classes),
        full_size=224,
        train_sizes=(64, 128, 160, 176),
        widths=(0.5, 0.25),
        evaluation_sizes=range(112, 353, 16),
        train_images=None,
        validation_images=10_000,
        test_images=None,
        # The averaging is torchvision's 0.99998 every 32 steps, which it adapts to 120 epochs in batches of 256.
        training=Training(
            120, 0.1, 256, "cosine", "sgd", weight_decay=2e-5, warmup_epochs=5, ema_decay=0.99996, keep="last"
        ),
        augmentation=Augmentation(),
        seeds=1,
    ),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return classification_arguments("resnet_resolution", "resnet", __doc__, PRESETS, arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments(arguments)
    with ending_in_words(options.output), FileLock(options.output / ".lock", timeout=0):
        _run(options)


def _run(options: argparse.Namespace) -> None:
    preset = PRESETS[options.preset]
    hardware = hardware_of(options)
    settings = {"preset": options.preset, "folder": options.data and str(options.data.resolve())} | preset.settings()
    with refusing("--data"):
        data = load_images(options.data, preset.train_images, preset.validation_images, preset.test_images)
    with refusing():
        experiment = Classification(data, preset.training, preset.augmentation, hardware, options.output, settings)
    seeds = range(options.seed, options.seed + (options.seeds or preset.seeds))
    results = experiment.run(preset.variants(), seeds)
    table, files = write_report(experiment, results[results["seed"].isin(seeds)], options.command)
    print(table)
    print("\nwritten:", *files, sep="\n  ")


if __name__ == "__main__":
    main()

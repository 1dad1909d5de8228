"""The networks of the experiment, and its presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.models import resnet50

import resolution_scaling as rs

from ..experiments.classification import Augmentation, ClassificationPreset, Variant
from ..experiments.training import Training
from ..networks.resnet import SmallResNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset(ClassificationPreset):
    """Sizes of the experiment, beside those of `ClassificationPreset`.

    Attributes:
        network: makes a new network for images of three channels and a number of classes.
        full_size: side of the images, px.
        train_sizes: the ``K_train`` below it, px.
        widths: shares of the filters.
        evaluation_sizes: the ``K_eval``, px.
    """

    network: Callable[[int], nn.Module]
    full_size: int
    train_sizes: tuple[int, ...]
    widths: tuple[float, ...]
    evaluation_sizes: range

    def variants(self) -> list[Variant]:
        """The networks to train."""
        full, sizes = self.full_size, self.evaluation_sizes
        return [
            *(Variant("RC", str(size), self.network, size, sizes) for size in (*self.train_sizes, full)),
            *(Variant("FCR", str(size), partial(self.fcr, size), full, sizes) for size in self.train_sizes),
            *(Variant("width", f"{width:g}", partial(self.narrow, width), full, sizes) for width in self.widths),
        ]

    def fcr(self, size: int, classes: int) -> nn.Module:
        """A network that is reduced after its first convolution, from the full size to ``size`` px."""
        return rs.scale_resolution(self.network(classes), size, input_size=self.full_size)

    def narrow(self, width: float, classes: int) -> nn.Module:
        """A network with a share of the filters."""
        shape = (1, 3, self.full_size, self.full_size)
        return rs.scale_model(self.network(classes), "width", size=width, input_shape=shape).model


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
        # The decay of the average is torchvision's 0.99998 every 32 steps, adapted to 120 epochs in batches of 256.
        training=Training(
            120, 0.1, 256, "cosine", "sgd", weight_decay=2e-5, warmup_epochs=5, ema_decay=0.99996, keep="last"
        ),
        augmentation=Augmentation(),
        seeds=1,
    ),
}

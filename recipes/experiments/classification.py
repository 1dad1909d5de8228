"""Training and evaluation of many image classifiers, in one folder from which a stopped run continues."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import resolution_scaling as rs
from resolution_scaling.adapting.evaluation_size import top1_accuracy
from resolution_scaling.adapting.transforms import evaluation_transform, train_transform

from ..datasets.images import ImageData, load_images
from .command_line import add_hardware_options, hardware_of, parse, positive, recipe_parser, refusing
from .networks_folder import NetworksFolder
from .training import Hardware, Training, train

EVALUATION_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images are changed, by torchvision's transforms.

    Attributes:
        scale, trivial_augment: see `resolution_scaling.adapting.transforms.train_transform`.
        random_erasing: its probability.
        mixup, cutmix: alpha of torchvision's ``v2.MixUp`` and ``v2.CutMix``. Each batch gets one of them; 0 for none.
        label_smoothing: that of the cross entropy.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    trivial_augment: bool = True
    random_erasing: float = 0.1
    mixup: float = 0.2
    cutmix: float = 1.0
    label_smoothing: float = 0.1

    def of_batches(self, classes: int) -> Callable | None:
        """A transform of a batch ``(images, labels)``; None if there is nothing to do."""
        choices: list[nn.Module] = [v2.MixUp(alpha=self.mixup, num_classes=classes)] if self.mixup else []
        choices += [v2.CutMix(alpha=self.cutmix, num_classes=classes)] if self.cutmix else []
        return v2.RandomChoice(choices) if choices else None

    def __str__(self):
        shares = ("random_erasing", "mixup", "cutmix", "label_smoothing")
        named = [f"{name.replace('_', ' ')} {getattr(self, name):g}" for name in shares if getattr(self, name)]
        crops = f"random crops of {100 * self.scale[0]:g} % or more of the image"
        return ", ".join([crops, *["TrivialAugment"] * self.trivial_augment, *named])


@dataclasses.dataclass(frozen=True)
class Variant:
    """One kind of network to train.

    Attributes:
        method: the name in the figures: ``"RC"``, ``"FCR"``, ``"width"``, ``"grid"``, ``"hidden"``...
        setting: distinguishes it from other variants of its method, for example by a size.
        build: makes a new network for a number of classes.
        K_train: side of the training crops, px.
        evaluation_sizes: the ``K_eval`` at which it is evaluated, px.
    """

    method: str
    setting: str
    build: Callable[[int], nn.Module]
    K_train: int
    evaluation_sizes: Sequence[int]

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.method}_{self.setting}".replace(" ", "_")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationPreset:
    """Sizes that every classification recipe has.

    Attributes:
        train_images: number of training images; None for all that are not validation images.
        validation_images: number of training images that are set aside.
        test_images: largest number of test images; None for all.
        training, augmentation: see `Classification`.
        seeds: number of repetitions, if the command does not say it.
    """

    train_images: int | None
    validation_images: int
    test_images: int | None
    training: Training
    augmentation: Augmentation
    seeds: int

    def settings(self) -> dict[str, Any]:
        """What distinguishes a run from others, as values that JSON can hold. More seeds may be added to a run."""
        elsewhere = ("training", "augmentation", "seeds")
        sizes = {name: value for name, value in vars(self).items() if name not in elsewhere and not callable(value)}
        return {name: list(value) if isinstance(value, range) else value for name, value in sizes.items()}


class Classification:
    """The networks of one recipe, trained one after the other; ``results.csv`` has a row for each size and seed.

    The columns are: ``seed, method, setting, K_train, K_eval``; ``flops, memory, parameters`` of one image at
    ``K_eval`` by `resolution_scaling.profile`; ``training_flops`` of a forward pass at ``K_train``;
    ``validation_accuracy``, by which sizes are to be chosen, and ``accuracy`` on the test images, both in 0..1;
    ``seconds`` that training and evaluation at all sizes took, in the sitting that finished them.

    Args:
        data: the images.
        training: how every network is trained.
        augmentation: how all training images are changed.
        hardware: device and mixed precision.
        output: folder of the results. What it holds already is not computed again.
        settings: the other settings, as values that JSON can hold. A folder never mixes two experiments.
        whole_images: whether networks are evaluated with K = K_eval, as the paper evaluates vision transformers
            (section 3.3); else on a crop of the image, with K in the proportion of `matching_K`.
    """

    def __init__(
        self,
        data: ImageData,
        training: Training,
        augmentation: Augmentation,
        hardware: Hardware,
        output: Path,
        settings: dict[str, Any],
        *,
        whole_images: bool = False,
    ):
        self.data, self.training, self.augmentation = data, training, augmentation
        self.hardware, self.output, self.whole_images = hardware, output, whole_images
        trained = {"training": dataclasses.asdict(training), "augmentation": dataclasses.asdict(augmentation)}
        self.folder = NetworksFolder(output, settings | trained | {"data": data.name}, hardware)
        (output / "networks").mkdir(exist_ok=True)

    def run(self, variants: Iterable[Variant], seeds: Iterable[int]) -> pd.DataFrame:
        """Add the missing rows to ``results.csv``, and return the rows of these variants and seeds.

        Raises:
            SittingOver: the time of ``hardware`` is up; the same call continues from here.
        """
        wanted = [*itertools.product(seeds, variants)]
        for seed, variant in self.folder.missing(wanted, "networks", _key):
            start = time.perf_counter()
            rows = self._evaluate(self.network(seed, variant), seed, variant)
            rows["seconds"] = round(time.perf_counter() - start, 1)
            self.folder.append(rows)
        return self.folder.rows(wanted, _key)

    @property
    def results(self) -> pd.DataFrame:
        """All rows so far."""
        return self.folder.results

    @property
    def seconds(self) -> float:
        """Wall time of all the networks in ``results.csv``."""
        return float(self.results.drop_duplicates(["seed", "method", "setting"])["seconds"].sum())

    def network(self, seed: int, variant: Variant) -> nn.Module:
        """The trained network, in eval mode: loaded if its file exists, else trained and saved."""
        build, fit = partial(variant.build, self.data.classes), partial(self._train, seed=seed, variant=variant)
        network = self.folder.network(f"networks/{variant.name}_{seed}", build, fit, seed)
        return network.to(memory_format=torch.channels_last)

    def _train(self, network: nn.Module, seed: int, variant: Variant) -> None:
        data, augmentation = self.data, self.augmentation
        transform = train_transform(
            variant.K_train,
            scale=augmentation.scale,
            mean=data.mean,
            std=data.std,
            flip=data.flip,
            trivial_augment=augmentation.trivial_augment,
            random_erasing=augmentation.random_erasing,
        )
        train(
            network,
            self.training,
            nn.CrossEntropyLoss(label_smoothing=augmentation.label_smoothing),
            data.training(transform),
            data.validation(self._evaluation_transform(variant.K_train)),
            folder=self.folder.checkpoints / f"{variant.name}_{seed}",
            description=f"{variant.method} {variant.setting}, seed {seed}",
            hardware=self.hardware,
            seed=seed,
            augment=augmentation.of_batches(data.classes),
        )

    def _evaluation_transform(self, K_eval: int) -> v2.Compose:
        K = K_eval if self.whole_images else None
        return evaluation_transform(K_eval, K, mean=self.data.mean, std=self.data.std)

    def _evaluate(self, network: nn.Module, seed: int, variant: Variant) -> pd.DataFrame:
        training_flops = rs.profile(network, (1, 3, variant.K_train, variant.K_train)).flops
        rows = []
        for K_eval in variant.evaluation_sizes:
            transform = self._evaluation_transform(K_eval)
            cost = rs.profile(network, (1, 3, K_eval, K_eval))
            rows.append(
                {
                    "seed": seed,
                    "method": variant.method,
                    "setting": variant.setting,
                    "K_train": variant.K_train,
                    "K_eval": K_eval,
                    "flops": cost.flops,
                    "memory": cost.memory_bytes,
                    "training_flops": training_flops,
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "validation_accuracy": self._accuracy(network, self.data.validation(transform)),
                    "accuracy": self._accuracy(network, self.data.test(transform)),
                }
            )
        return pd.DataFrame(rows)

    @torch.no_grad()
    def _accuracy(self, network: nn.Module, images: Dataset) -> float:
        return top1_accuracy(network, DataLoader(images, EVALUATION_BATCH, num_workers=self.hardware.workers))


def _key(network: tuple[int, Variant]) -> dict[str, Any]:
    seed, variant = network
    return {"seed": seed, "method": variant.method, "setting": variant.setting}


def parse_arguments(
    recipe: str,
    short: str,
    description: str,
    presets: Mapping[str, ClassificationPreset],
    arguments: list[str] | None,
) -> argparse.Namespace:
    """Parse the command line of a recipe that trains image classifiers; for the arguments see `recipe_parser`."""
    parser = recipe_parser(recipe, short, description, presets)
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with train and val, which have a folder for each class; or folder of Fashion-MNIST "
        "(default: Fashion-MNIST where it is installed, else the embedded digits)",
    )
    parser.add_argument("--seeds", type=positive(int), metavar="N", help="repetitions (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first seed (default: %(default)s)")
    add_hardware_options(parser)
    options = parse(parser, arguments, presets, ["seeds"])
    if options.preset == "paper" and options.data is None:
        parser.error("argument --preset: paper needs --data, a folder with ImageNet's train and val")
    return options


def open_experiment(
    options: argparse.Namespace, preset: ClassificationPreset, *, whole_images: bool = False
) -> Classification:
    """The experiment that a command asks for; the process exits with a sentence if it cannot be run.

    Args:
        options: those of `parse_arguments`.
        preset: sizes.
        whole_images: see `Classification`.
    """
    settings = {"preset": options.preset, "folder": options.data and str(options.data.resolve())} | preset.settings()
    with refusing("--data"):
        data = load_images(options.data, preset.train_images, preset.validation_images, preset.test_images)
    parts = data, preset.training, preset.augmentation, hardware_of(options), options.output, settings
    with refusing():
        return Classification(*parts, whole_images=whole_images)


def seeds_of(options: argparse.Namespace) -> range:
    """The seeds that a command asks for."""
    return range(options.seed, options.seed + options.seeds)

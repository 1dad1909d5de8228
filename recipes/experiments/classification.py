"""Training and evaluation of many image classifiers, a row of results each, kept in one folder and resumable."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

import resolution_scaling as rs
from resolution_scaling.adapting.evaluation_size import top1_accuracy
from resolution_scaling.adapting.transforms import evaluation_transform, train_transform

from ..datasets.images import ImageData
from .networks_folder import NetworksFolder
from .training import Hardware, Training, train

EVALUATION_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images, by torchvision's transforms.

    Attributes:
        scale, trivial_augment: see `resolution_scaling.adapting.transforms.train_transform`.
        random_erasing: probability.
        mixup, cutmix: alpha of torchvision's ``v2.MixUp`` and ``v2.CutMix``, one of them for each batch; 0 for none.
        label_smoothing: of the cross entropy.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    trivial_augment: bool = True
    random_erasing: float = 0.1
    mixup: float = 0.2
    cutmix: float = 1.0
    label_smoothing: float = 0.1

    def of_batches(self, classes: int) -> Callable | None:
        """Of a batch ``(images, labels)``; None if there is nothing to do."""
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
        method: as in the figures: ``"RC"``, ``"FCR"``, ``"width"``, ``"grid"``, ``"hidden"``...
        setting: what distinguishes it from others of its method, such as a size.
        build: number of classes -> new network.
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
        """For files."""
        return f"{self.method}_{self.setting}".replace(" ", "_")


class Classification:
    """The networks of one recipe, trained one after the other; ``results.csv`` has a row for each size and seed.

    Columns: ``seed, method, setting, K_train, K_eval``; ``flops, memory, parameters`` of one image at ``K_eval`` by
    `resolution_scaling.profile`; ``training_flops`` of its forward at ``K_train``; ``validation_accuracy``, by which
    sizes are to be chosen, and ``accuracy`` on the test images, both in 0..1; ``seconds`` of training and of evaluation
    at all sizes, in the sitting that finished them.

    Args:
        data: the images.
        training: of every network.
        augmentation: of every network.
        hardware: device and mixed precision.
        output: folder; what it holds already is not computed again.
        settings: what else was asked for, such as JSON can hold; a folder never mixes two experiments.
        whole_images: evaluate with K = K_eval, as the paper does with vision transformers (section 3.3); else on a
            crop of the image, with K in the proportion of `matching_K`.
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
        """Fill in the missing rows of ``results.csv`` and return it.

        Raises:
            SittingOver: the time of ``hardware`` is up; the same call goes on from here.
        """
        missing = [(seed, variant) for seed in seeds for variant in variants if self._missing(seed, variant)]
        for seed, variant in tqdm(missing, desc="networks"):
            self.hardware.check_time()
            start = time.perf_counter()
            rows = self._evaluate(self.network(seed, variant), seed, variant)
            rows["seconds"] = round(time.perf_counter() - start, 1)
            self.folder.append(rows)
        return self.results

    @property
    def results(self) -> pd.DataFrame:
        """The rows so far."""
        return self.folder.results

    @property
    def seconds(self) -> float:
        """Wall time of all networks in ``results.csv``."""
        return float(self.results.drop_duplicates(["seed", "method", "setting"])["seconds"].sum())

    def network(self, seed: int, variant: Variant) -> nn.Module:
        """The trained network, in evaluation mode: loaded if it is there, else trained and saved."""
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

    def _missing(self, seed: int, variant: Variant) -> bool:
        if self.results.empty:
            return True
        done = self.results
        same = (done["seed"] == seed) & (done["method"] == variant.method) & (done["setting"] == variant.setting)
        return not same.any()

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

"""The hologram pruning experiment: data, base network, pruned and retrained networks, results, in one folder."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torch_pruning as tp
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import resolution_scaling as rs
from torchprune_spatial import CUSTOMIZED_PRUNERS, decouple_residuals, remove_dead_channels

from ..datasets.digits import load_digits
from ..datasets.holography import HologramSimulation
from ..experiments.criteria import CRITERIA
from ..experiments.networks_folder import NetworksFolder
from ..experiments.training import Hardware, Training
from ..networks.unet import ResUNet, digit_classifier

EXAMPLES = 6
"""Test images whose reconstructions are kept for the figure."""


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How a network is pruned.

    Attributes:
        criterion: key of `CRITERIA`.
        keep_fraction: the paper's ``fract``; 1 for the network as it is.
        literal: keep Algorithm 1's union of two top sets of ``fract``, which only the spatial mask has, and which is
            more than ``fract``; else ``int(fract * channels)`` filters of each layer, as all the criteria do.
        mixed: with mixed connectivity, so that the branches of an addition keep filters of their own.
    """

    criterion: str
    keep_fraction: float
    literal: bool = False
    mixed: bool = False

    def __str__(self):
        literal, mixed = " literal" * self.literal, " mixed" * self.mixed
        return f"{self.criterion}{literal}{mixed} {self.keep_fraction:g}"


UNPRUNED = Pruning("unpruned", 1.0)


def prunings(criteria: Iterable[str], keep_fractions: Iterable[float], mixed: bool) -> Iterator[Pruning]:
    """Every criterion at every fraction, and the literal form of the spatial mask."""
    for keep_fraction in keep_fractions:
        for criterion in criteria:
            yield Pruning(criterion, keep_fraction, mixed=mixed)
            if criterion == "spatial_mask":
                yield Pruning(criterion, keep_fraction, literal=True, mixed=mixed)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of one experiment. The paper's are the preset ``paper``; its number of channels is not published.

    Attributes:
        bases: base networks, each with a seed, and with noise in its holograms, of its own.
        criteria: those to compare.
        keep_fractions: of the filters, with plain additions.
        mixed_fractions: the same with mixed connectivity, which the paper has.
    """

    simulation: HologramSimulation
    width: int
    train_images: int
    test_images: int
    training: Training
    retraining: Training
    classifier_epochs: int
    bases: int
    keep_fractions: tuple[float, ...]
    mixed_fractions: tuple[float, ...]
    criteria: tuple[str, ...] = tuple(CRITERIA)
    validation_images: int = 200


class HologramPruning:
    """The experiment on one base network, in a folder: data, classifier, one pruned network a row of results.

    Args:
        preset: sizes.
        seed: seeds the networks, their training, the noise of the holograms and the random criterion. The choice of the
            test digits is fixed.
        hardware: device and mixed precision.
        output: folder of results; what it holds already is not computed again.
    """

    def __init__(self, preset: Preset, seed: int, hardware: Hardware, output: Path):
        self.preset, self.seed, self.hardware, self.output = preset, seed, hardware, output
        sizes = dataclasses.asdict(preset)
        for extendable in ("bases", "criteria", "keep_fractions", "mixed_fractions"):
            del sizes[extendable]
        self.folder = NetworksFolder(output, {"preset": sizes}, hardware, seed)
        self.device = self.folder.device
        (output / "examples").mkdir(exist_ok=True)
        self._simulate()

    def run(self, wanted: Iterable[Pruning]) -> pd.DataFrame:
        """Fill in the missing rows of ``results.csv``, and return those of the unpruned network and of what is wanted.

        Raises:
            SittingOver: the time of ``hardware`` is up; the same call goes on from here.
        """
        start = time.perf_counter()
        self.classifier = self.folder.network("classifier", digit_classifier, self._train_classifier)
        self.target_accuracy = self._recognised(self.test[:][1], self.labels[: len(self.test)]) / len(self.test)
        self.base = self.folder.network("base", lambda: ResUNet(self.preset.width), self._train_base)
        self.base_cost = count_cost(self.base, self.test[:1][0])
        wanted, done = [*wanted], {*self._done()}
        if UNPRUNED not in done:
            self._record(UNPRUNED, self.base, {"seconds": round(time.perf_counter() - start, 1)})
        missing = [pruning for pruning in wanted if pruning not in done]
        for pruning in tqdm(missing, desc=f"base network {self.seed}"):
            self.hardware.check_time()
            self._prune_and_retrain(pruning)
        return self.folder.results[[pruning in (UNPRUNED, *wanted) for pruning in self._done()]]

    def _simulate(self) -> None:
        """Simulate all the holograms: training, validation and test digits never overlap."""
        p, (digits, self.labels) = self.preset, load_digits()
        count = p.test_images + p.validation_images + p.train_images
        digits, generator = digits[:count], torch.Generator().manual_seed(self.seed)
        holograms, targets = [], []
        for part in tqdm(digits.split(100), desc="simulating holograms", leave=False):
            holograms.append(p.simulation.holograms(part.to(self.device), generator).cpu())
            targets.append(p.simulation.targets(part))
        sizes = p.test_images, p.validation_images, p.train_images
        pairs = zip(torch.cat(holograms).split(sizes), torch.cat(targets).split(sizes), strict=True)
        self.test, self.validation, self.training_data = (TensorDataset(*pair) for pair in pairs)
        self.calibration = DataLoader(self.validation, p.training.batch_size)

    def _train_classifier(self, classifier: nn.Module) -> None:
        """On all the digits that are not test digits (the paper: 10,000 images)."""
        digits, labels = (data[self.preset.test_images :] for data in load_digits())
        digits, labels = digits.unsqueeze(1).split([len(digits) - 500, 500]), labels.split([len(labels) - 500, 500])
        data, validation = (TensorDataset(*pair) for pair in zip(digits, labels, strict=True))
        training = Training(self.preset.classifier_epochs, learning_rate=2e-3, batch_size=64, schedule="one_cycle")
        self.folder.train(classifier, training, F.cross_entropy, data, validation, "digit classifier")

    def _train_base(self, network: nn.Module) -> None:
        self._train_reconstruction(network, self.preset.training, "base network")

    def _train_reconstruction(self, network: nn.Module, training: Training, description: str) -> int:
        loss = F.binary_cross_entropy_with_logits
        return self.folder.train(network, training, loss, self.training_data, self.validation, description)

    def _done(self) -> list[Pruning]:
        """What the results are about, in their order."""
        return [pruning_of(row) for row in self.folder.results.itertuples()]

    def _prune_and_retrain(self, pruning: Pruning) -> None:
        start = time.perf_counter()
        network = prune(self.base, pruning, self.calibration, self.seed)
        mse_pruned = self._evaluate(network)["mse"]
        best_epoch = self._train_reconstruction(network, self.preset.retraining, str(pruning))
        extra = {
            "mse_before_retraining": mse_pruned,
            "best_epoch": best_epoch,
            "seconds": round(time.perf_counter() - start, 1),
        }
        self._record(pruning, network, extra)

    def _record(self, pruning: Pruning, network: nn.Module, extra: dict) -> None:
        """Evaluate, keep the example reconstructions, add a row to ``results.csv``."""
        evaluation = self._evaluate(network)
        np.save(self.examples_file(pruning), evaluation.pop("examples"))
        cost = count_cost(network, self.test[:1][0])
        channels = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
        row = {
            **dataclasses.asdict(pruning),
            **cost,
            "compression": self.base_cost["parameters"] / cost["parameters"],
            "speedup": self.base_cost["flops"] / cost["flops"],
            **evaluation,
            **extra,
            "channels": " ".join(map(str, channels)),
        }
        self.folder.append(row)

    def examples_file(self, pruning: Pruning) -> Path:
        """Where the reconstructions of the first test holograms are: ``[EXAMPLES, 1, size, size]`` float16."""
        return self.output / "examples" / f"{pruning}.npy".replace(" ", "_")

    @torch.no_grad()
    def _evaluate(self, network: nn.Module) -> dict:
        """Test MSE; accuracy of the classifier on the reconstructions, and how much less than on the targets."""
        network.to(self.device).eval()
        squared_error, correct, examples = 0.0, 0, []
        labels = self.labels[: len(self.test)]
        for (holograms, targets), label in zip(DataLoader(self.test, 100), labels.split(100), strict=True):
            images = network(holograms.to(self.device)).sigmoid()
            squared_error += (images - targets.to(self.device)).square().mean((1, 2, 3)).sum().item()
            correct += self._recognised(images, label)
            examples.append(images[:EXAMPLES].cpu())
        accuracy = correct / len(self.test)
        return {
            "mse": squared_error / len(self.test),
            "accuracy": accuracy,
            "delta_accuracy": self.target_accuracy - accuracy,
            "examples": examples[0].half().numpy(),
        }

    @torch.no_grad()
    def _recognised(self, images: torch.Tensor, labels: torch.Tensor) -> int:
        digits = self.preset.simulation.crop_digits(images.to(self.device))
        return (self.classifier(digits).argmax(1) == labels.to(self.device)).sum().item()


def prune(base: nn.Module, pruning: Pruning, calibration: Iterable, seed: int) -> nn.Module:
    """A copy of the base network that keeps a part of the filters of each layer, the rest really removed.

    Args:
        base: a `ResUNet`.
        pruning: what to keep.
        calibration: batches ``(hologram, target)`` for the criteria that need data.
        seed: for the random criterion.
    """
    set_seed(seed)
    device = next(base.parameters()).device
    example = (next(iter(calibration))[0][:1].to(device),)
    network = decouple_residuals(base, example) if pruning.mixed else copy.deepcopy(base)
    importance, ignored = CRITERIA[pruning.criterion](network, calibration), [network.output]
    options = {"customized_pruners": CUSTOMIZED_PRUNERS, "ignored_layers": ignored}
    ratios = {}
    if pruning.literal:
        ratios = importance.pruning_ratio_dict(network, example, pruning.keep_fraction, **options)
    ratio = 1 - pruning.keep_fraction - 1e-9  # the host rounds down, and 1 - 0.8 is a little less than 0.2
    pruner = tp.pruner.BasePruner(
        network, example, importance, pruning_ratio=ratio, pruning_ratio_dict=ratios, **options
    )
    pruner.step()
    if pruning.mixed:
        remove_dead_channels(pruner.DG)
    network.zero_grad(set_to_none=True)
    return network


def pruning_of(row: Any) -> Pruning:
    """What a row of results, as a named tuple, is about."""
    return Pruning(row.criterion, row.keep_fraction, bool(row.literal), bool(row.mixed))


def count_cost(network: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Parameters, and FLOPs of one image by `resolution_scaling.profile`."""
    return {"parameters": sum(p.numel() for p in network.parameters()), "flops": rs.profile(network, example).flops}

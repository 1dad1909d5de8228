"""The hologram pruning experiment: its sizes, and data, base network, pruned networks and results in one folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from ..datasets.digits import load_digits
from ..datasets.holography import OPTICS, HologramSimulation
from ..experiments.criteria import PAPERS
from ..experiments.networks_folder import NetworksFolder
from ..experiments.training import Hardware, Training
from ..networks.unet import ResUNet, digit_classifier
from .pruning import UNPRUNED, Pruning, count_cost, prune

EXAMPLES = 6
"""Number of test images whose reconstructions are kept for the figure."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of one experiment. The paper's are the preset ``paper``; its number of channels is not published.

    Attributes:
        simulation: the optics.
        width: number of channels of the U-Net at full resolution.
        train_images, test_images, validation_images: numbers of holograms.
        training, retraining: of the base networks, and after pruning.
        classifier_epochs: passes over the digits for the digit classifier.
        bases: number of base networks. Each has a seed of its own, also for the noise in its holograms.
        keep_fractions: fractions of the filters to keep, with plain additions.
        mixed_fractions: fractions with mixed connectivity, as in the paper.
        criteria: names of the criteria to compare.
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
    criteria: tuple[str, ...] = PAPERS
    validation_images: int = 200


TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PRESETS = {
    "smoke": Preset(
        simulation=OPTICS["small"],
        width=8,
        train_images=1000,
        test_images=500,
        training=Training(epochs=8, learning_rate=2e-3, batch_size=16, schedule="one_cycle"),
        retraining=Training(epochs=4, learning_rate=2e-3, batch_size=16, schedule="one_cycle"),
        classifier_epochs=3,
        bases=1,
        keep_fractions=(0.4, 0.5, 0.7),
        mixed_fractions=(),
        criteria=("random", "weight_sum", "spatial_mask"),
    ),
    "small": Preset(
        simulation=OPTICS["small"],
        width=12,
        train_images=1500,
        test_images=500,
        training=Training(epochs=12, learning_rate=2e-3, batch_size=8, schedule="one_cycle"),
        retraining=Training(epochs=2, learning_rate=1e-3, batch_size=4, schedule="one_cycle"),
        classifier_epochs=4,
        bases=5,
        keep_fractions=TENTHS,
        mixed_fractions=(0.2, 0.3, 0.5),
    ),
    "paper": Preset(
        simulation=OPTICS["paper"],
        width=32,
        train_images=5000,
        test_images=1000,
        training=Training(epochs=100, learning_rate=1e-4),
        retraining=Training(epochs=10, learning_rate=1e-5),
        classifier_epochs=100,
        bases=5,
        keep_fractions=TENTHS,
        mixed_fractions=TENTHS,
    ),
}


class HologramPruning:
    """The experiment on one base network, in one folder; ``results.csv`` has a row for each pruned network.

    Args:
        preset: sizes.
        seed: seeds the networks, their training, the noise of the holograms and the random criterion. The choice of the
            test digits is fixed.
        hardware: device and mixed precision.
        output: folder of the results. What it holds already is not computed again.
    """

    def __init__(self, preset: Preset, seed: int, hardware: Hardware, output: Path):
        self.preset, self.seed, self.hardware, self.output = preset, seed, hardware, output
        sizes = dataclasses.asdict(preset)
        for extendable in ("bases", "criteria", "keep_fractions", "mixed_fractions"):
            del sizes[extendable]
        if type(preset.simulation) is not HologramSimulation:
            sizes["simulation"]["optics"] = type(preset.simulation).__name__
        self.folder = NetworksFolder(output, {"preset": sizes}, hardware, seed)
        self.device = self.folder.device
        (output / "examples").mkdir(exist_ok=True)
        self._simulate()

    def run(self, wanted: Iterable[Pruning]) -> pd.DataFrame:
        """Add the missing rows to ``results.csv``, and return those of the unpruned network and of ``wanted``.

        Raises:
            SittingOver: the time of ``hardware`` is up; the same call continues from here.
        """
        start = time.perf_counter()
        self.classifier = self.folder.network("classifier", digit_classifier, self._train_classifier)
        self.target_accuracy = self._recognised(self.test[:][1], self.labels[: len(self.test)]) / len(self.test)
        self.base = self.folder.network("base", lambda: ResUNet(self.preset.width), self._train_base)
        self.base_cost = count_cost(self.base, self.test[:1][0])
        wanted = [UNPRUNED, *wanted]
        for pruning in self.folder.missing(wanted, f"base network {self.seed}"):
            if pruning == UNPRUNED:
                self._record(UNPRUNED, self.base, {"seconds": round(time.perf_counter() - start, 1)})
            else:
                self._prune_and_retrain(pruning)
        return self.folder.rows(wanted)

    def _simulate(self) -> None:
        """Simulate all the holograms. Training, validation and test digits do not overlap."""
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
        """Train on all the digits that are not test digits (the paper trains on 10,000 images)."""
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
        """Evaluate, save the example reconstructions, and add a row to ``results.csv``."""
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
        """The file with the reconstructions of the first test holograms: ``[EXAMPLES, 1, size, size]`` float16."""
        return self.output / "examples" / f"{pruning}.npy".replace(" ", "_")

    @torch.no_grad()
    def _evaluate(self, network: nn.Module) -> dict:
        """Test MSE, accuracy of the classifier on the reconstructions, and how much lower it is than on the targets."""
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

"""Criteria and allocations compared on one base network of one task, at equal budgets; what is done is kept."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_pruning.dependency import Group
from tqdm import tqdm

from torchprune_spatial import Calibration, SpatialMaskImportance, prune_to
from torchprune_spatial.budget.pruning import ALLOCATIONS

from ..experiments.criteria import CRITERIA, RIVALS, Criterion
from ..experiments.networks_folder import NetworksFolder
from ..experiments.training import Hardware, Loss, Training
from ..networks.unet import ResUNet, digit_classifier
from .candidates import CANDIDATES, interpolative
from .tasks import TASKS, Images

LIMITS = ("compression", "speedup")
EQUAL = "equal"
"""Allocation "cost" from the order of the scores alone: every criterion keeps as many channels in each layer."""
ALLOCATED = (EQUAL, *ALLOCATIONS)
Scoring = Callable[[Group], torch.Tensor | None]
Fold = Callable[[Group], None]
STUDIED: dict[str, Criterion] = CRITERIA | RIVALS | CANDIDATES


@dataclasses.dataclass(frozen=True)
class Cell:
    """One way to prune.

    Attributes:
        criterion: key of `STUDIED`.
        allocation: one of `ALLOCATED`.
        fold: whether the next layers make up for the channels that go, with ``fold`` of `SpatialMaskImportance`: of the
            criterion, if it is one that folds.
        limit: ``"compression"`` (parameters) or ``"speedup"`` (FLOPs).
        factor: how many times fewer.
    """

    criterion: str
    allocation: str
    fold: bool
    limit: str
    factor: float

    def __str__(self):
        return f"{self.criterion} {self.allocation}{' fold' * self.fold} {self.limit} {self.factor:g}"


UNPRUNED = Cell("unpruned", "", False, "", 1.0)


@dataclasses.dataclass(frozen=True)
class Block:
    """Ways to prune: each criterion with each allocation, folded or not, to each factor of each limit (see `Cell`).

    Attributes:
        tasks: for which; None for all.
    """

    criteria: tuple[str, ...]
    allocations: tuple[str, ...] = (EQUAL,)
    folds: tuple[bool, ...] = (False,)
    limits: tuple[str, ...] = ("compression",)
    factors: tuple[float, ...] = (20,)
    tasks: tuple[str, ...] | None = None

    def cells(self) -> list[Cell]:
        """All of them."""
        choices = (self.criteria, self.allocations, self.folds, self.limits, self.factors)
        return [Cell(*choice) for choice in itertools.product(*choices)]


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the study.

    Attributes:
        width: channels of the U-Net at full resolution.
        train_images, validation_images, test_images: how many; validation also calibrates the criteria.
        training, retraining: of the base networks, and after pruning.
        classifier: training of the network that reads the digits.
        tasks: keys of `TASKS`.
        bases: base networks a task.
        blocks: what is compared.
        norms: whether the U-Net has batch norms.
        sparsity: factor of the sum of the ``|scale|`` of the batch norms in the loss of the base networks (Liu et al.,
            "Learning efficient convolutional networks through network slimming", ICCV 2017, equation 1).
    """

    width: int
    train_images: int
    validation_images: int
    test_images: int
    training: Training
    retraining: Training
    classifier: Training
    tasks: tuple[str, ...]
    bases: int
    blocks: tuple[Block, ...]
    norms: bool = False
    sparsity: float = 0.0

    def settings(self) -> dict[str, Any]:
        """What one base network depends on."""
        others = ("tasks", "bases", "blocks")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in others}


class StudyExperiment:
    """The cells of one base network, a row of ``results.csv`` each.

    Args:
        task: key of `TASKS`.
        preset: sizes.
        seed: seeds networks, training, noise and the random criterion; digits and their places are fixed.
        hardware: device and mixed precision.
        output: folder.
    """

    def __init__(self, task: str, preset: Preset, seed: int, hardware: Hardware, output: Path):
        self.task, self.preset, self.seed = task, preset, seed
        self.folder = NetworksFolder(output, preset.settings() | {"task": task}, hardware, seed)
        sizes = preset.test_images, preset.validation_images, preset.train_images
        self.test, validation, training = TASKS[task](sum(sizes), seed).split(*sizes)
        self.training = TensorDataset(training.inputs, training.targets)
        self.validation = TensorDataset(validation.inputs, validation.targets)
        masked = TensorDataset(validation.inputs, validation.targets, validation.masks.float())
        self.calibration = DataLoader(masked, preset.training.batch_size)
        self.with_digits = training, validation

    def run(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """Fill in the missing rows, and return those of the unpruned network and of the cells.

        Raises:
            SittingOver: the time of the hardware is up; the same call continues from here.
        """
        start = time.perf_counter()
        self.classifier = None
        if self.task != "segmentation":
            self.classifier = self.folder.network("classifier", digit_classifier, self._train_classifier)
        self.base = self.folder.network("base", lambda: ResUNet(self.preset.width, self.preset.norms), self._train_base)
        cells, done = [*cells], {*self._done()}
        if UNPRUNED not in done:
            self._append(UNPRUNED, self.base, {"compression": 1.0, "speedup": 1.0}, start)
        for cell in tqdm([cell for cell in cells if cell not in done], desc=f"{self.task}, base {self.seed}"):
            self.folder.hardware.check_time()
            self._prune_and_retrain(cell)
        return self.folder.results[[cell in (UNPRUNED, *cells) for cell in self._done()]].assign(task=self.task)

    def _train_classifier(self, classifier: nn.Module) -> None:
        data, validation = (TensorDataset(part.crops(part.targets), part.labels) for part in self.with_digits)
        self.folder.train(classifier, self.preset.classifier, F.cross_entropy, data, validation, "digit classifier")

    def _train_base(self, network: nn.Module) -> None:
        scales = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            penalty = self.preset.sparsity * sum(scale.abs().sum() for scale in scales)
            return F.binary_cross_entropy_with_logits(outputs, targets) + penalty

        self._fit(network, self.preset.training, "base network", loss)

    def _fit(
        self,
        network: nn.Module,
        training: Training,
        description: str,
        loss: Loss = F.binary_cross_entropy_with_logits,
    ) -> None:
        self.folder.train(network, training, loss, self.training, self.validation, description)

    def _prune_and_retrain(self, cell: Cell) -> None:
        start = time.perf_counter()
        set_seed(self.seed)
        network = copy.deepcopy(self.base)
        importance, fold = STUDIED[cell.criterion](network, self.calibration), None
        if cell.fold:
            importance, fold = self._folding(importance)
        if cell.allocation == EQUAL:
            importance = in_places(importance)
        if cell.allocation == "sensitivity":
            importance = with_calibration(importance, interpolative(self.calibration).calibration)
        record = prune_to(
            network,
            (self.test.inputs[:1].to(self.folder.device),),
            importance,
            allocation="cost" if cell.allocation == EQUAL else cell.allocation,
            before_removal=fold,
            ignored_layers=[network.output],
            **{cell.limit: cell.factor},
        )
        network.zero_grad(set_to_none=True)
        self._fit(network, self.preset.retraining, str(cell))
        reached = {"compression": record.compression, "speedup": record.speedup}
        self._append(cell, network, reached, start)

    def _folding(self, importance: Scoring) -> tuple[Scoring, Fold]:
        """The importance, and what folds for it: itself, or the recommended one, which then sees each group first."""
        if isinstance(importance, SpatialMaskImportance) and importance.interpolation:
            return importance, importance.fold
        folding = interpolative(self.calibration)
        return after(folding, importance), folding.fold

    def _append(self, cell: Cell, network: nn.Module, reached: dict[str, float], start: float) -> None:
        channels = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
        self.folder.append(
            {
                **dataclasses.asdict(cell),
                **reached,
                **judge(network.to(self.folder.device).eval(), self.test, self.classifier),
                "channels": " ".join(map(str, channels)),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )

    def _done(self) -> list[Cell]:
        """The cells of the results, in their order."""
        names = [field.name for field in dataclasses.fields(Cell)]
        rows = self.folder.results.reindex(columns=names).fillna("")
        return [Cell(*row) for row in rows.itertuples(index=False)]


def in_places(importance: Scoring) -> Scoring:
    """The place of each score among those of its group, from above 0 to 1."""

    def score(group: Group) -> torch.Tensor | None:
        scores = importance(group)
        return None if scores is None else (scores.argsort().argsort() + 1) / len(scores)

    return score


def with_calibration(importance: Scoring, calibration: Calibration) -> Scoring:
    """The importance, with the data on which `prune_to` measures sensitivity."""

    def score(group: Group) -> torch.Tensor | None:
        return importance(group)

    score.calibration = calibration
    return score


def after(first: Scoring, importance: Scoring) -> Scoring:
    """The importance, once the first one has seen the group."""

    def score(group: Group) -> torch.Tensor | None:
        first(group)
        return importance(group)

    return score


@torch.no_grad()
def judge(network: nn.Module, images: Images, classifier: nn.Module | None) -> dict[str, float]:
    """Errors on the test images.

    Returns:
        ``mse`` of all pixels and ``mse_object`` of those inside the masks; ``accuracy``, the share of the digits that
        the classifier reads in the outputs, and ``delta_accuracy``, how much less than in the targets. Without a
        classifier the accuracy is the intersection over union of the masks, and is compared with 1.
    """
    device = next(network.parameters()).device
    outputs = torch.cat([network(part.to(device)).sigmoid().cpu() for part in images.inputs.split(100)])
    error = (outputs - images.targets).square()
    if classifier is None:
        found = outputs > 0.5
        accuracy, best = float((found & images.masks).sum() / (found | images.masks).sum()), 1.0
    else:
        accuracy, best = (_share_read(classifier, images, which) for which in (outputs, images.targets))
    return {
        "mse": float(error.mean()),
        "mse_object": float(error[images.masks].mean()),
        "accuracy": accuracy,
        "delta_accuracy": best - accuracy,
    }


def _share_read(classifier: nn.Module, images: Images, which: torch.Tensor) -> float:
    device = next(classifier.parameters()).device
    return float((classifier(images.crops(which).to(device)).argmax(1).cpu() == images.labels).float().mean())

"""Criteria and allocations compared on one base network of a task at equal budgets, and the sizes of the study."""

from __future__ import annotations

import copy
import dataclasses
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

from torchprune_spatial import InterpolativeImportance, prune_to
from torchprune_spatial.budget.pruning import ALLOCATIONS

from ..experiments.criteria import PAPERS
from ..experiments.networks_folder import NetworksFolder
from ..experiments.training import Hardware, Loss, Training
from ..networks.unet import ResUNet
from .cells import EQUAL, LIMITS, OF_TORCH_PRUNING, UNPRUNED, Block, Cell
from .criteria import CANDIDATES, interpolative, studied
from .tasks import TASKS, Images, Task

Scoring = Callable[[Group], torch.Tensor | None]


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the study.

    Attributes:
        width: number of channels of the U-Net at full resolution.
        train_images, validation_images, test_images: numbers of images. Validation images also calibrate the criteria.
        training, retraining: of the base networks, and after pruning.
        classifier: training of the network that recognises digits.
        tasks: keys of `TASKS`.
        bases: number of base networks for each task.
        blocks: the ways to prune that are compared.
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
        """The settings on which one base network depends."""
        others = ("tasks", "bases", "blocks")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in others}


_COMPARED = ("mean_activation", "spatial_mask", "taylor", "thinet", "fpgm", "interpolative")
_HOLOGRAM = ("hologram",)
_NORMS = "bn_scale"
_OF_ANY_NETWORK = (*PAPERS, "hessian", "fpgm", "group_norm", *CANDIDATES)
_ALL_TASKS = ("hologram", "denoising", "inpainting", "segmentation")
PRESETS = {
    "smoke": Preset(
        width=8,
        train_images=400,
        validation_images=60,
        test_images=100,
        training=Training(6, 2e-3, 8, "one_cycle"),
        retraining=Training(2, 1e-3, 4, "one_cycle"),
        classifier=Training(6, 2e-3, 32, "one_cycle"),
        tasks=("hologram", "denoising"),
        bases=1,
        blocks=(Block(("mean_activation", "interpolative"), folds=(False, True), factors=(10,)),),
    ),
    "small": Preset(
        width=12,
        train_images=800,
        validation_images=100,
        test_images=300,
        training=Training(12, 2e-3, 8, "one_cycle"),
        retraining=Training(2, 1e-3, 4, "one_cycle"),
        classifier=Training(8, 2e-3, 32, "one_cycle"),
        tasks=_ALL_TASKS,
        bases=5,
        blocks=(
            Block(_COMPARED, folds=(False, True)),
            Block(("mean_activation", "taylor"), factors=(4, 10, 40)),
            Block(("interpolative",), (EQUAL, "sensitivity"), (True,), factors=(4, 10, 20, 40)),
            Block(("weight_sum", "mean_activation", "taylor"), OF_TORCH_PRUNING, limits=LIMITS, tasks=_HOLOGRAM),
            Block(("interpolative",), (EQUAL, "uniform", "sensitivity"), (True,), LIMITS, tasks=_HOLOGRAM),
            Block(("taylor",), ("cost", "sensitivity"), (False, True), LIMITS, tasks=_HOLOGRAM),
            Block(_OF_ANY_NETWORK, tasks=_HOLOGRAM),
            Block(("interpolative_without_regions",), folds=(True,)),
        ),
    ),
    "large": Preset(
        width=32,
        train_images=5000,
        validation_images=200,
        test_images=1000,
        training=Training(40, 1e-3, 32, "one_cycle"),
        retraining=Training(10, 5e-4, 32, "one_cycle"),
        classifier=Training(20, 2e-3, 64, "one_cycle"),
        tasks=_ALL_TASKS,
        bases=5,
        blocks=(Block(_OF_ANY_NETWORK, (EQUAL, *ALLOCATIONS), (False, True), LIMITS, (4, 10, 20, 40)),),
    ),
}
PRESETS["longer"] = dataclasses.replace(
    PRESETS["small"],
    retraining=Training(8, 2e-3, 4, "one_cycle"),
    tasks=_HOLOGRAM,
    blocks=(
        Block(("interpolative",), (EQUAL, "sensitivity"), (True,), LIMITS),
        Block(("mean_activation", "taylor")),
        Block(("taylor",), ("uniform",)),
    ),
)
PRESETS["slimming"] = dataclasses.replace(
    PRESETS["small"],
    norms=True,
    sparsity=1e-3,
    tasks=_HOLOGRAM,
    blocks=(
        Block((_NORMS, "mean_activation", "taylor"), (EQUAL, *OF_TORCH_PRUNING)),
        Block(("interpolative",), (EQUAL, "sensitivity"), (True,)),
    ),
)


class StudyExperiment:
    """The cells of one base network, with a row of ``results.csv`` for each.

    Args:
        task: key of `TASKS`.
        preset: sizes.
        seed: seeds networks, training, noise and the random criterion; digits and their places are fixed.
        hardware: device and mixed precision.
        output: folder of the results. What it holds already is not computed again.
    """

    def __init__(self, task: str, preset: Preset, seed: int, hardware: Hardware, output: Path):
        self.task: Task = TASKS[task]()
        self.preset, self.seed = preset, seed
        self.folder = NetworksFolder(output, preset.settings() | {"task": task}, hardware, seed)
        sizes = preset.test_images, preset.validation_images, preset.train_images
        self.test, validation, training = self.task.images(sum(sizes), seed).split(*sizes)
        self.training = TensorDataset(training.inputs, training.targets)
        self.validation = TensorDataset(validation.inputs, validation.targets)
        masked = TensorDataset(validation.inputs, validation.targets, validation.masks.float())
        self.calibration = DataLoader(masked, preset.training.batch_size)
        self.with_digits = training, validation

    def run(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """Add the missing rows, and return those of the unpruned network and of the cells.

        Raises:
            SittingOver: the time of the hardware is up; the same call continues from here.
        """
        start = time.perf_counter()
        self.classifier = self.task.classifier()
        if self.classifier is not None:
            self.classifier = self.folder.network("classifier", self.task.classifier, self._train_classifier)
        self.base = self.folder.network("base", lambda: ResUNet(self.preset.width, self.preset.norms), self._train_base)
        cells = [UNPRUNED, *cells]
        for cell in self.folder.missing(cells, f"{self.task.name}, base {self.seed}"):
            if cell == UNPRUNED:
                self._append(UNPRUNED, self.base, {"compression": 1.0, "speedup": 1.0}, start)
            else:
                self._prune_and_retrain(cell)
        return self.folder.rows(cells).assign(task=self.task.name)

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
        importance = CellImportance(studied()[cell.criterion](network, self.calibration), cell, self.calibration)
        record = prune_to(
            network,
            (self.test.inputs[:1].to(self.folder.device),),
            importance,
            allocation="cost" if cell.allocation == EQUAL else cell.allocation,
            fold=cell.fold and importance.fold,
            ignored_layers=[network.output],
            **{cell.limit: cell.factor},
        )
        network.zero_grad(set_to_none=True)
        self._fit(network, self.preset.retraining, str(cell))
        reached = {"compression": record.compression, "speedup": record.speedup}
        self._append(cell, network, reached, start)

    def _append(self, cell: Cell, network: nn.Module, reached: dict[str, float], start: float) -> None:
        channels = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
        self.folder.append(
            {
                **dataclasses.asdict(cell),
                **reached,
                **judge(network.to(self.folder.device).eval(), self.task, self.test, self.classifier),
                "channels": " ".join(map(str, channels)),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )


class CellImportance:
    """A criterion, as a cell of the study needs it.

    Args:
        importance: the criterion. If it cannot fold itself, the recommended criterion folds for it.
        cell: says how scores are used.
        batches: calibration data.

    Attributes:
        calibration: the data on which `prune_to` measures sensitivity.
    """

    def __init__(self, importance: Scoring, cell: Cell, batches: Iterable):
        self.importance, self.equal = importance, cell.allocation == EQUAL
        self.folding: InterpolativeImportance | None = None
        if cell.fold:
            folds = isinstance(importance, InterpolativeImportance)
            self.folding = importance if folds else interpolative(batches)
        self.calibration = interpolative(batches).calibration

    def __call__(self, group: Group) -> torch.Tensor | None:
        """The scores of a group; with `EQUAL`, the place of each score in its group, from above 0 to 1."""
        if self.folding is not None and self.folding is not self.importance:
            self.folding(group)  # it folds only groups that it has scored
        scores = self.importance(group)
        if scores is None or not self.equal:
            return scores
        return (scores.argsort().argsort() + 1) / len(scores)

    def fold(self, group: Group) -> None:
        """Change the next layers so that they make up for the channels that are about to be removed."""
        self.folding.fold(group)


@torch.no_grad()
def judge(network: nn.Module, task: Task, images: Images, classifier: nn.Module | None) -> dict[str, float]:
    """Errors of a network on test images.

    Returns:
        ``mse`` over all pixels, and ``mse_object`` over those inside the masks; the ``accuracy`` of the task, and
        ``delta_accuracy``, by how much it is lower than the best.
    """
    device = next(network.parameters()).device
    outputs = torch.cat([network(part.to(device)).sigmoid().cpu() for part in images.inputs.split(100)])
    error = (outputs - images.targets).square()
    accuracy, best = task.accuracies(outputs, images, classifier)
    return {
        "mse": float(error.mean()),
        "mse_object": float(error[images.masks].mean()),
        "accuracy": accuracy,
        "delta_accuracy": best - accuracy,
    }

"""The searches, their presets, and the training before them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from resolution_scaling.ground.files import replacing
from resolution_scaling.nni import resume_search, search
from resolution_scaling.nni.experiment.results import TrialRecord
from resolution_scaling.nni.joint_search.limits import count_costs
from resolution_scaling.nni.joint_search.search_result import SearchResult, read_settings

from ..experiments.networks_folder import NetworksFolder
from ..experiments.training import Hardware, Training
from ..networks.resnet import SmallResNet
from .task import IMAGE_PX, TASK_VARIABLE, Task

RATIOS = {"_type": "quniform", "_value": [0.1, 0.6, 0.1]}
PRUNING = {"l1": RATIOS, "spatial_mask": RATIOS}
REWARD_FOR_HALVING = {"flops": 0.01}


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the recipe.

    Attributes:
        task: network and data.
        training: how the network is trained before the searches.
        trials: number of trials of the joint search, and of pruning alone.
        sizes: image sizes to choose from, px.
        flops_limit: largest FLOPs, as a share of those of the unchanged network.
    """

    task: Task
    training: Training
    trials: int
    sizes: tuple[int, ...] = (14, 16, 18, 20, 22, 24)
    flops_limit: float = 0.7


PRESETS = {
    "smoke": Preset(
        task=Task(width=8, train_images=3000, validation_images=1000, finetuning_epochs=1),
        training=Training(epochs=8, learning_rate=5e-3, batch_size=64, schedule="one_cycle"),
        trials=12,
    ),
    "small": Preset(
        task=Task(width=16, train_images=8000, validation_images=2000, finetuning_epochs=2),
        training=Training(epochs=8, learning_rate=5e-3, batch_size=64, schedule="one_cycle"),
        trials=40,
    ),
}


class Searches:
    """The three searches of the recipe, one after the other; each is kept in a folder of its own.

    Args:
        options: the command line.

    Raises:
        ValueError: the folder of the results holds an experiment with other settings.
    """

    def __init__(self, options: argparse.Namespace):
        self.options, self.output, self.preset = options, options.output, PRESETS[options.preset]
        self.task = dataclasses.replace(self.preset.task, fashion_mnist=options.fashion_mnist)
        settings = {
            "preset": dataclasses.asdict(self.preset),
            "tuner": options.tuner,
            "fashion_mnist": options.fashion_mnist,
        }
        self.folder = NetworksFolder(self.output, settings, Hardware("cpu"), options.seed)
        cores = max(1, (os.cpu_count() or 1) // options.concurrency)
        os.environ[TASK_VARIABLE] = str(self.output)
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))

    def run(self) -> dict[str, SearchResult]:
        """Train the network and search; what the folder holds already is not done again.

        Returns:
            The results by the name of the search.
        """
        self.task.write(self.output)
        network = self.folder.network("base", lambda: SmallResNet(self.task.width), self._train)
        unchanged = count_costs(network, torch.empty(1, 1, IMAGE_PX, IMAGE_PX))
        shared = {
            "limits": {"flops": self.preset.flops_limit * unchanged["flops"]},
            "reward_for_halving": REWARD_FOR_HALVING,
            "concurrency": self.options.concurrency,
            "seed": self.options.seed,
            "port": self.options.port,
            "record": self.output / "points.jsonl",
        }
        sizes = list(self.preset.sizes)
        by_tuner = {"tuner": self.options.tuner, "max_trials": self.preset.trials}
        every_size = {"tuner": "GridSearch", "max_trials": len(sizes) + 1}
        plans: dict[str, dict[str, Any]] = {
            "joint": {"pruning": PRUNING, "size": sizes, **by_tuner},
            "pruning alone": {"pruning": PRUNING, **by_tuner},
            "resolution alone": {"size": sizes, **every_size},
        }
        return {name: self._search(name, plan | shared) for name, plan in plans.items()}

    def _train(self, network: nn.Module) -> None:
        self.folder.train(network, self.preset.training, F.cross_entropy, *self.task.data(), "training the network")

    def _search(self, name: str, plan: dict[str, Any]) -> SearchResult:
        """Search, or resume a search that was stopped; of a search that has ended, read the result."""
        folder = self.output / name.replace(" ", "_")
        finished, earlier = folder / "finished.json", TrialRecord(folder / "trials.jsonl").results
        if finished.exists():
            return SearchResult(earlier, read_settings(folder)["unchanged"], folder)
        if not earlier and folder.exists():
            _remove(folder)
        start = time.perf_counter()
        with tqdm(total=plan["max_trials"], initial=len(earlier), desc=name) as bar:

            def show(result) -> None:
                bar.update()
                text = result.status if result.score is None else f"{result.metrics.get('accuracy', 'infeasible')}"
                bar.set_postfix_str(text[:30])

            from .searched_network import SearchedNetwork  # needs NNI

            if earlier:
                result = resume_search(folder, port=plan["port"], on_trial=show)
            else:
                result = search(SearchedNetwork, output=folder, on_trial=show, **plan)
        with replacing(finished) as partial:
            seconds = round(time.perf_counter() - start, 1)
            partial.write_text(json.dumps({"seconds": seconds, "resumed": bool(earlier), "port": plan["port"]}))
        return result


def _remove(folder: Path) -> None:
    """Remove a search without a trial, which NNI may not be able to resume; stop what a kill left running."""
    from resolution_scaling.nni.experiment.manager import stop_manager  # needs NNI

    state = folder / "experiment.json"
    if state.exists():
        left = json.loads(state.read_text())
        stop_manager(left["experiment"], left["port"])
    shutil.rmtree(folder)

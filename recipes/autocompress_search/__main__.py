"""Pruning and resolution searched together with NNI, beside pruning alone and resolution alone.

A small ResNet is trained once. Then NNI (2.10.1 or 3.0) searches for networks that keep a limit on FLOPs: jointly, and
with the same number of trials by pruning alone; resolutions alone are few, and all tried. The three Pareto fronts,
their hypervolumes, and every trial are written to the output folder; a run that was stopped continues from there. While a
search runs, NNI's web portal shows it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from tqdm import tqdm

from resolution_scaling.nni.experiment.results import TrialRecord
from resolution_scaling.nni.joint_search.limits import count_costs
from resolution_scaling.nni.joint_search.search_report import SearchReport
from resolution_scaling.nni.joint_search.search_result import SearchResult, read_settings
from resolution_scaling.nni.joint_search.searching import resume_search, search

from ..experiments.command_line import command_of, ending_in_words, refusing, show_report
from ..experiments.files import claim_folder, replacing
from ..experiments.run_facts import bullets, version_of
from ..experiments.training import Hardware, Training, save_weights, train
from ..networks.resnet import SmallResNet
from .task import IMAGE_PX, TASK_VARIABLE, Task

RATIOS = {"_type": "quniform", "_value": [0.1, 0.6, 0.1]}
PRUNING = {"l1": RATIOS, "spatial_mask": RATIOS}
REWARD_FOR_HALVING = {"flops": 0.01}
TUNERS = ("TPE", "Evolution", "GridSearch", "Random")


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes of the recipe.

    Attributes:
        task: network and data.
        training: of the network before the searches.
        trials: of the joint search, and of pruning alone.
        sizes: to choose from, px.
        flops_limit: share of the FLOPs of the unchanged network.
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


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.autocompress_search", description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="size of the experiment (default: smoke)")
    parser.add_argument("--output", type=Path, help="folder of the results (default: results/autocompress_PRESET)")
    parser.add_argument("--tuner", choices=TUNERS, default="TPE")
    parser.add_argument("--port", type=int, default=8080, help="of NNI's web portal (default: 8080)")
    parser.add_argument("--concurrency", type=int, help="trials at once (default: 2, on one core 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fashion-mnist", metavar="DIR", help="folder of torchvision's Fashion-MNIST, for the digits")
    options = parser.parse_args(arguments)
    options.output = (options.output or Path("results") / f"autocompress_{options.preset}").resolve()
    options.concurrency = options.concurrency or min(2, os.cpu_count() or 1)
    if options.concurrency < 1:
        parser.error(f"argument --concurrency: {options.concurrency} is not a number of trials; choose at least 1")
    if not 0 < options.port < 65536:
        parser.error(f"argument --port: {options.port} is not a port; choose one from 1 to 65535")
    if options.fashion_mnist and not Path(options.fashion_mnist).is_dir():
        parser.error(f"argument --fashion-mnist: {options.fashion_mnist} is not a folder")
    options.command = command_of(parser, arguments)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the searches and write the report."""
    options = parse_arguments(arguments)
    if importlib.util.find_spec("nni") is None:
        sys.exit("error: the searches need NNI: pip install 'torchprune-spatial[nni3]' (or [nni2] for NNI 2.10.1)")
    try:
        with ending_in_words(options.output), FileLock(options.output / ".lock", timeout=0):  # a kill frees it too
            with refusing():
                searches = Searches(options)
            files = searches.run()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}. When that is put right, the same command continues from {options.output}")
    show_report(options.output, files)


class Searches:
    """The three searches of the recipe, one after the other, each kept in a folder of its own.

    Args:
        options: the command line.
    """

    def __init__(self, options: argparse.Namespace):
        self.options, self.output, self.preset = options, options.output, PRESETS[options.preset]
        self.task = dataclasses.replace(self.preset.task, fashion_mnist=options.fashion_mnist)
        self._claim_folder()
        cores = max(1, (os.cpu_count() or 1) // options.concurrency)
        os.environ[TASK_VARIABLE] = str(self.output)
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))

    def run(self) -> list[Path]:
        """Train, search, report; what is there already is not done again. Returns the files to look at."""
        self._train_base()
        unchanged = count_costs(SmallResNet(self.task.width), torch.empty(1, 1, IMAGE_PX, IMAGE_PX))
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
        results = {name: self._search(name, plan | shared) for name, plan in plans.items()}
        return self._write(results)

    def _claim_folder(self) -> None:
        """Remember what was asked for, so that a folder never mixes two experiments; refuse what cannot go on."""
        settings = {
            "preset": dataclasses.asdict(self.preset),
            "seed": self.options.seed,
            "tuner": self.options.tuner,
            "fashion_mnist": self.options.fashion_mnist,
        }
        claim_folder(self.output, settings)

    def _train_base(self) -> None:
        self.task.write(self.output)
        file = self.output / "base.safetensors"
        if file.exists():
            return
        torch.manual_seed(self.options.seed)
        network, checkpoints = SmallResNet(self.task.width), self.output / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        training, validation = self.task.data()
        train(
            network,
            self.preset.training,
            F.cross_entropy,
            training,
            validation,
            folder=checkpoints,
            description="training the network",
            hardware=Hardware("cpu"),
            seed=self.options.seed,
        )
        save_weights(network, file)
        shutil.rmtree(checkpoints)

    def _search(self, name: str, plan: dict[str, Any]) -> SearchResult:
        """A search; the result of an earlier run, or the rest of one that was stopped."""
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
                text = result.status if result.value is None else f"{result.metrics.get('accuracy', 'infeasible')}"
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

    def _write(self, results: dict[str, SearchResult]) -> list[Path]:
        report = SearchReport({name: result.rows for name, result in results.items()}, results["joint"].unchanged)
        files = [self.output / name for name in ("results.csv", "front.png", "report.md")]
        with replacing(files[0]) as partial:
            report.to_csv(partial)
        with replacing(files[1]) as partial:
            report.plot().savefig(partial, dpi=150, format="png")
        with replacing(files[2]) as partial:
            partial.write_text(self._markdown(report))
        return files

    def _markdown(self, report: SearchReport) -> str:
        task, options, base = self.task, self.options, report.unchanged
        finished = {
            name: json.loads((self.output / name.replace(" ", "_") / "finished.json").read_text())
            for name in report.searches
        }
        resumed = [name for name, facts in finished.items() if facts["resumed"]]
        rewards = "".join(f" + {value:g} for each halving of {cost}" for cost, value in REWARD_FOR_HALVING.items())
        facts = {
            "command": f"`{options.command}`",
            "seed": options.seed,
            "data": f"{task.name}: {task.train_images} training and {task.validation_images} validation images",
            "network": f"ResNet of 9 convolutions, {task.width} to {4 * task.width} channels, {base['parameters']:,} "
            f"parameters, {base['flops'] / 1e6:.2f} MFLOPs an image of {IMAGE_PX} px, accuracy {base['score']:.4f}",
            "training": f"{self.preset.training.epochs} epochs; after compression {task.finetuning_epochs}",
            "limit": f"{self.preset.flops_limit:.0%} of the FLOPs of the unchanged network",
            "objective": f"accuracy{rewards}",
            "tuner": f"{options.tuner}, {options.concurrency} trials at once; resolution alone: GridSearch",
            "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
            "versions": ", ".join(f"{name} {version_of(name)}" for name in ("nni", "torch", "torchprune-spatial")),
            "wall time": ", ".join(f"{name} {facts['seconds']:.0f} s" for name, facts in finished.items())
            + (f" (of {', '.join(resumed)}: since it was resumed)" if resumed else ""),
        }
        repeated = sum(bool(row["repeated"]) for rows in report.searches.values() for row in rows)
        return f"""# Joint search of pruning and resolution

{bullets(facts)}

{report.markdown()}
![Accuracy against FLOPs and memory: all networks, and the Pareto fronts of the three searches](front.png)

Accuracy is that on the validation images, which the tuner also saw: no test score. Points that an earlier trial had
tried ({repeated}) were not trained again. One network and one seed cannot tell which way to compress is the better one.
"""


def _remove(folder: Path) -> None:
    """Remove a search without a trial, of which NNI may not have kept enough to go on; stop what a kill left of it."""
    from resolution_scaling.nni.experiment.manager import stop_manager  # needs NNI

    state = folder / "experiment.json"
    if state.exists():
        left = json.loads(state.read_text())
        stop_manager(left["experiment"], left["port"])
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

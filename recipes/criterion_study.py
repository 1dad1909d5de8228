"""Which criterion, and which allocation: a bench of tasks in which the position of small objects matters.

On each task (holograms, denoising, inpainting, segmentation) base networks are trained, and pruned to the same budgets
by each criterion with each allocation, retrained shortly and judged: error inside the objects and overall, and what a
digit classifier reads. Differences are paired over base networks, with 95 % intervals. What is done is kept: another
criterion costs its own runs alone. Two runs of the same command share the base networks.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path

import pandas as pd

from torchprune_spatial.budget import ALLOCATIONS

from .command_line import (
    add_hardware_options,
    command_of,
    ending_in_words,
    hardware_of,
    positive,
    refusing,
    run_what_is_free,
    show_report,
)
from .criteria import CRITERIA
from .study_experiment import LIMITS, Cell, Preset, StudyExperiment
from .study_report import write_report
from .study_tasks import TASKS
from .training import Training

_COMPARED = ("weight_sum", "apoz", "mean_activation", "thinet", "taylor", "spatial_mask")
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
        criteria=("mean_activation", "spatial_mask"),
        allocations=("uniform", "cost"),
        factors=(10,),
        limits=("compression",),
    ),
    "small": Preset(
        width=12,
        train_images=800,
        validation_images=100,
        test_images=300,
        training=Training(12, 2e-3, 8, "one_cycle"),
        retraining=Training(2, 1e-3, 4, "one_cycle"),
        classifier=Training(8, 2e-3, 32, "one_cycle"),
        tasks=tuple(TASKS),
        bases=5,
        criteria=_COMPARED,
        allocations=("uniform", "global", "cost"),
        factors=(4, 10, 20, 40),
        limits=("compression",),
    ),
    "large": Preset(
        width=32,
        train_images=5000,
        validation_images=200,
        test_images=1000,
        training=Training(40, 1e-3, 32, "one_cycle"),
        retraining=Training(10, 5e-4, 32, "one_cycle"),
        classifier=Training(20, 2e-3, 64, "one_cycle"),
        tasks=tuple(TASKS),
        bases=5,
        criteria=tuple(CRITERIA),
        allocations=tuple(ALLOCATIONS),
        factors=(4, 10, 20, 40),
    ),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.criterion_study", description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="size of the study (default: smoke)")
    for name, choices in (
        ("tasks", TASKS),
        ("criteria", CRITERIA),
        ("allocations", ALLOCATIONS),
        ("limits", LIMITS),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=list(choices), metavar="NAME", help=", ".join(choices))
    parser.add_argument("--factors", nargs="+", type=positive(float), metavar="X", help="how many times fewer")
    parser.add_argument("--bases", type=positive(int), metavar="N", help="base networks (all defaults: the preset's)")
    add_hardware_options(parser)
    parser.add_argument("--output", type=Path, help="folder of the results (default: results/study_PRESET)")
    options = parser.parse_args(arguments)
    for name in ("tasks", "criteria", "allocations", "limits", "factors", "bases"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(PRESETS[options.preset], name))
    options.output = options.output or Path("results") / f"study_{options.preset}"
    options.command = command_of(parser, arguments)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the study and write its report."""
    options = parse_arguments(arguments)
    with ending_in_words(options.output):
        files = _run(options)
    show_report(options.output, files)


def _run(options: argparse.Namespace) -> list[Path]:
    preset, hardware = PRESETS[options.preset], hardware_of(options)
    choices = (options.criteria, options.allocations, options.limits, options.factors)
    cells = [Cell(*choice) for choice in itertools.product(*choices)]

    def run(task: str, seed: int, folder: Path) -> pd.DataFrame:
        with refusing():
            experiment = StudyExperiment(task, preset, seed, hardware, folder)
        return experiment.run(cells)

    pairs = itertools.product(range(options.bases), options.tasks)
    results = run_what_is_free(options.output, {f"{task}_{seed}": partial(run, task, seed) for seed, task in pairs})
    return write_report(options.output, pd.concat(results, ignore_index=True), preset, hardware, options.command)


if __name__ == "__main__":
    main()

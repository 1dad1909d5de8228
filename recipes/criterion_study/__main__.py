"""Which criterion, and which allocation: a bench of tasks in which the position of small objects matters.

On each task (holograms, denoising, inpainting, segmentation) base networks are trained, and pruned to the same budgets
by each criterion with each allocation, retrained shortly and judged: error inside the objects and overall, and what a
digit classifier reads. Differences are paired over base networks, with 95 % intervals. What is done is kept: another
criterion costs its own runs alone. Two runs of the same command share the base networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from functools import partial
from pathlib import Path

import pandas as pd

from ..experiments.command_line import (
    add_hardware_options,
    command_of,
    ending_in_words,
    hardware_of,
    positive,
    refusing,
    run_what_is_free,
    show_report,
)
from ..experiments.training import Training
from .experiment import ALLOCATED, EQUAL, LIMITS, STUDIED, Block, Preset, StudyExperiment
from .report import write_report
from .tasks import TASKS

_COMPARED = ("mean_activation", "spatial_mask", "taylor", "thinet", "fpgm", "interpolative")
_HOST = ("uniform", "global", "isomorphic")
_HOLOGRAM = ("hologram",)
_NORMS = "bn_scale"
_OF_ANY_NETWORK = tuple(name for name in STUDIED if name != _NORMS)
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
        tasks=tuple(TASKS),
        bases=5,
        blocks=(
            Block(_COMPARED, folds=(False, True)),
            Block(("mean_activation", "taylor"), factors=(4, 10, 40)),
            Block(("interpolative",), (EQUAL, "sensitivity"), (True,), factors=(4, 10, 20, 40)),
            Block(("weight_sum", "mean_activation", "taylor"), _HOST, limits=LIMITS, tasks=_HOLOGRAM),
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
        tasks=tuple(TASKS),
        bases=5,
        blocks=(Block(_OF_ANY_NETWORK, ALLOCATED, (False, True), LIMITS, (4, 10, 20, 40)),),
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
        Block((_NORMS, "mean_activation", "taylor"), (EQUAL, *_HOST)),
        Block(("interpolative",), (EQUAL, "sensitivity"), (True,)),
    ),
)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.criterion_study", description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="size of the study (default: smoke)")
    for name, choices in (
        ("tasks", TASKS),
        ("criteria", STUDIED),
        ("allocations", ALLOCATED),
        ("limits", LIMITS),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=list(choices), metavar="NAME", help=", ".join(choices))
    parser.add_argument("--factors", nargs="+", type=positive(float), metavar="X", help="how many times fewer")
    parser.add_argument(
        "--fold", action=argparse.BooleanOptionalAction, help="let the next layers make up for channels"
    )
    parser.add_argument("--bases", type=positive(int), metavar="N", help="base networks (all defaults: the preset's)")
    add_hardware_options(parser)
    parser.add_argument("--output", type=Path, help="folder of the results (default: results/study_PRESET)")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    for name in ("tasks", "bases"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(preset, name))
    options.blocks = _blocks(options, preset)
    options.output = options.output or Path("results") / f"study_{options.preset}"
    options.command = command_of(parser, arguments)
    return options


def _blocks(options: argparse.Namespace, preset: Preset) -> tuple[Block, ...]:
    """Those of the preset; or, if the command names some of what is compared, each of it with each of all the rest."""
    options.folds = None if options.fold is None else (options.fold,)
    names = [field.name for field in dataclasses.fields(Block) if field.name != "tasks"]
    if all(getattr(options, name) is None for name in names):
        return preset.blocks
    choices = []
    for name in names:
        of_preset = itertools.chain.from_iterable(getattr(block, name) for block in preset.blocks)
        choices.append(tuple(getattr(options, name) or dict.fromkeys(of_preset)))
    return (Block(*choices),)


def main(arguments: list[str] | None = None) -> None:
    """Run the study and write its report."""
    options = parse_arguments(arguments)
    with ending_in_words(options.output):
        files = _run(options)
    show_report(options.output, files)


def _run(options: argparse.Namespace) -> list[Path]:
    preset, hardware = PRESETS[options.preset], hardware_of(options)

    def run(task: str, seed: int, folder: Path) -> pd.DataFrame:
        with refusing():
            experiment = StudyExperiment(task, preset, seed, hardware, folder)
        blocks = [block for block in options.blocks if block.tasks is None or task in block.tasks]
        return experiment.run(dict.fromkeys(cell for block in blocks for cell in block.cells()))

    pairs = itertools.product(range(options.bases), options.tasks)
    results = run_what_is_free(options.output, {f"{task}_{seed}": partial(run, task, seed) for seed, task in pairs})
    return write_report(options.output, pd.concat(results, ignore_index=True), preset, hardware, options.command)


if __name__ == "__main__":
    main()

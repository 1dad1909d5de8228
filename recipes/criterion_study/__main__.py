"""Which criterion, and which allocation: a bench of tasks in which the position of small objects matters.

On each task (holograms, denoising, inpainting, segmentation) base networks are trained. Each criterion prunes them with
each allocation to the same budgets, and the pruned networks are retrained for a short time. What is compared is the
error inside the objects and overall, and what a digit classifier recognises. Differences are paired over base networks,
with 95 % intervals. Results are kept: for another criterion only its own runs are made. Two runs of the same command
share the base networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from functools import partial
from pathlib import Path

import pandas as pd

from torchprune_spatial.budget.pruning import ALLOCATIONS

from ..experiments.command_line import (
    add_hardware_options,
    add_import_option,
    explaining_exits,
    hardware_of,
    import_own_files,
    parse,
    positive,
    recipe_parser,
    refusing,
    run_free_jobs,
    show_report,
)
from .cells import EQUAL, LIMITS, Block
from .criteria import studied
from .experiment import PRESETS, Preset, StudyExperiment
from .report import write_report
from .tasks import TASKS


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    import_own_files(arguments)
    parser = recipe_parser("criterion_study", "study", __doc__, PRESETS)
    for name, choices in (
        ("tasks", TASKS),
        ("criteria", studied()),
        ("allocations", (EQUAL, *ALLOCATIONS)),
        ("limits", LIMITS),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=list(choices), metavar="NAME", help=", ".join(choices))
    parser.add_argument(
        "--factors", nargs="+", type=positive(float), metavar="X", help="cost before pruning over cost after it"
    )
    parser.add_argument(
        "--fold", action=argparse.BooleanOptionalAction, help="whether the next layers make up for removed channels"
    )
    parser.add_argument("--bases", type=positive(int), metavar="N", help="base networks (all defaults: the preset's)")
    add_import_option(parser, "criteria, allocations or tasks of your own")
    add_hardware_options(parser)
    options = parse(parser, arguments, PRESETS, ["tasks", "bases"])
    options.blocks = _blocks(options, PRESETS[options.preset])
    return options


def _blocks(options: argparse.Namespace, preset: Preset) -> tuple[Block, ...]:
    """The preset's blocks; if the command names some choices, one block of these and of all other choices."""
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
    with explaining_exits(options.output):
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
    results = run_free_jobs(options.output, {f"{task}_{seed}": partial(run, task, seed) for seed, task in pairs})
    return write_report(options.output, pd.concat(results, ignore_index=True), preset, hardware, options.command)


if __name__ == "__main__":
    main()

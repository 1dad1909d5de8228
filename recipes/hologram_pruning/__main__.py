"""Pruning a hologram reconstruction network by several criteria (sections 4 and 5 of the spatial-mask paper).

Base networks are trained, each pruned once by each criterion at each fraction of kept filters, retrained, and judged
on test holograms: mean squared error, and loss of accuracy of a digit classifier, against compression (parameters) and
speed-up (FLOPs). Every criterion keeps the same number of filters in each layer, so that they are compared at equal
compression; the spatial mask also in the paper's literal form, a union that is larger. Everything is written to the
output folder; a run that was stopped goes on from there, and two runs of the same command share the base networks.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pandas as pd

from ..datasets.holography import SMALL_HOLOGRAMS, HologramSimulation
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
from ..experiments.criteria import CRITERIA
from ..experiments.training import Training
from .experiment import HologramPruning, Preset, prunings
from .report import write_report

TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PRESETS = {
    "smoke": Preset(
        simulation=SMALL_HOLOGRAMS,
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
        simulation=SMALL_HOLOGRAMS,
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
        simulation=HologramSimulation(),
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


def _criterion(name: str) -> str:
    if name not in CRITERIA:
        raise argparse.ArgumentTypeError(f"unknown criterion {name!r}; choose from {', '.join(CRITERIA)}")
    return name


def _keep_fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction of kept filters; choose it between 0 and 1")
    return value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.hologram_pruning", description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="size of the experiment (default: smoke)")
    parser.add_argument("--criteria", nargs="+", type=_criterion, metavar="NAME", help=f"of {', '.join(CRITERIA)}")
    parser.add_argument("--keep-fractions", nargs="+", type=_keep_fraction, metavar="F", help="of the filters")
    parser.add_argument(
        "--mixed-fractions", nargs="*", type=_keep_fraction, metavar="F", help="the same with mixed connectivity"
    )
    parser.add_argument("--bases", type=positive(int), metavar="N", help="base networks (all defaults: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="of the first base network; the others count on")
    add_hardware_options(parser)
    parser.add_argument("--output", type=Path, help="folder of the results (default: results/hologram_PRESET)")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    for name in ("criteria", "keep_fractions", "mixed_fractions", "bases"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(preset, name))
    options.output = options.output or Path("results") / f"hologram_{options.preset}"
    for name in ("keep_fractions", "mixed_fractions"):
        smallest = min(getattr(options, name), default=1)
        if int(smallest * preset.width) < 1:
            parser.error(
                f"argument --{name.replace('_', '-')}: {smallest:g} leaves no filter in layers of {preset.width}; "
                f"choose at least {1 / preset.width:g}"
            )
    options.command = command_of(parser, arguments)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments(arguments)
    with ending_in_words(options.output):
        files = _run(options)
    show_report(options.output, files)


def _run(options: argparse.Namespace) -> list[Path]:
    preset, hardware = PRESETS[options.preset], hardware_of(options)
    wanted = [
        *prunings(options.criteria, options.keep_fractions, mixed=False),
        *prunings(options.criteria, options.mixed_fractions, mixed=True),
    ]
    shown = []  # the first experiment: the others are not kept, they hold their data

    def run(seed: int, folder: Path) -> pd.DataFrame:
        with refusing():
            experiment = HologramPruning(preset, seed, hardware, folder)
        results = experiment.run(wanted)
        if not shown:
            shown.append(experiment)
        return results

    seeds = range(options.seed, options.seed + options.bases)
    jobs = {f"base_{seed}": partial(run, seed) for seed in seeds}
    results = run_what_is_free(options.output, jobs)
    return write_report(options.output, shown[0], pd.concat(results, ignore_index=True), options.command)


if __name__ == "__main__":
    main()

"""Pruning a hologram reconstruction network by several criteria (sections 4 and 5 of the spatial-mask paper).

Base networks are trained. Each criterion prunes each of them once at each fraction of kept filters, and the pruned
networks are retrained. Two errors on test holograms, the mean squared error and the loss of accuracy of a digit
classifier, are set against compression (parameters) and speed-up (FLOPs). Every criterion keeps the same number of
filters in each layer, so that criteria are compared at equal compression; the spatial mask is also tried in the paper's
literal form, a union that keeps more. Everything is written to the output folder. A run that was stopped continues from
there, and two runs of the same command share the base networks.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import pandas as pd

from ..datasets.holography import OPTICS
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
from ..experiments.criteria import all_criteria
from .experiment import PRESETS, HologramPruning, Preset
from .pruning import prunings
from .report import write_report


def _keep_fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction of kept filters; choose it between 0 and 1")
    return value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    import_own_files(arguments)
    criteria = [name for name in all_criteria() if name != "bn_scale"]  # the U-Net has no batch norms
    parser = recipe_parser("hologram_pruning", "hologram", __doc__, PRESETS)
    parser.add_argument("--criteria", nargs="+", choices=criteria, metavar="NAME", help=", ".join(criteria))
    parser.add_argument(
        "--keep-fractions", nargs="+", type=_keep_fraction, metavar="F", help="fractions of the filters to keep"
    )
    parser.add_argument(
        "--mixed-fractions", nargs="*", type=_keep_fraction, metavar="F", help="fractions with mixed connectivity"
    )
    parser.add_argument("--bases", type=positive(int), metavar="N", help="base networks (all defaults: the preset's)")
    parser.add_argument("--optics", choices=OPTICS, help="simulation of the holograms (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first base network; the others count on")
    add_import_option(parser, "criteria or optics of your own")
    add_hardware_options(parser)
    options = parse(parser, arguments, PRESETS, ["criteria", "keep_fractions", "mixed_fractions", "bases"])
    width = PRESETS[options.preset].width
    for name in ("keep_fractions", "mixed_fractions"):
        smallest = min(getattr(options, name), default=1)
        if int(smallest * width) < 1:
            parser.error(
                f"argument --{name.replace('_', '-')}: {smallest:g} leaves no filter in layers of {width}; "
                f"choose at least {1 / width:g}"
            )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments(arguments)
    with explaining_exits(options.output):
        files = _run(options)
    show_report(options.output, files)


def _preset(options: argparse.Namespace) -> Preset:
    preset = PRESETS[options.preset]
    return dataclasses.replace(preset, simulation=OPTICS[options.optics]) if options.optics else preset


def _run(options: argparse.Namespace) -> list[Path]:
    preset, hardware = _preset(options), hardware_of(options)
    wanted = [
        *prunings(options.criteria, options.keep_fractions, mixed=False),
        *prunings(options.criteria, options.mixed_fractions, mixed=True),
    ]
    shown = []  # the first experiment; the others are not kept, because they hold their data

    def run(seed: int, folder: Path) -> pd.DataFrame:
        with refusing():
            experiment = HologramPruning(preset, seed, hardware, folder)
        results = experiment.run(wanted)
        if not shown:
            shown.append(experiment)
        return results

    seeds = range(options.seed, options.seed + options.bases)
    results = run_free_jobs(options.output, {f"base_{seed}": partial(run, seed) for seed in seeds})
    return write_report(options.output, shown[0], pd.concat(results, ignore_index=True), options.command)


if __name__ == "__main__":
    main()

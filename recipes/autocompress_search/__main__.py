"""Pruning and resolution searched together with NNI, beside pruning alone and resolution alone.

A small ResNet is trained once. Then NNI (2.10.1 or 3.0) searches for networks below a limit on FLOPs: jointly, and by
pruning alone with the same number of trials. Resolutions alone are few, so all are tried. The three Pareto fronts,
their hypervolumes and every trial are written to the output folder, and a run that was stopped continues from there.
While a search runs, NNI's web portal shows it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from filelock import FileLock

from ..experiments.command_line import explaining_exits, parse, recipe_parser, refusing, show_report
from .experiment import PRESETS, Searches
from .report import write_report

TUNERS = ("TPE", "Evolution", "GridSearch", "Random")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = recipe_parser("autocompress_search", "autocompress", __doc__, PRESETS)
    parser.add_argument("--tuner", choices=TUNERS, default="TPE")
    parser.add_argument("--port", type=int, default=8080, help="port of NNI's web portal (default: 8080)")
    parser.add_argument("--concurrency", type=int, help="trials at once (default: 2, on one core 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fashion-mnist", metavar="DIR", help="folder of Fashion-MNIST, which takes the place of the digits"
    )
    options = parse(parser, arguments, PRESETS)
    options.output = options.output.resolve()  # trials are other processes
    options.concurrency = options.concurrency or min(2, os.cpu_count() or 1)
    if options.concurrency < 1:
        parser.error(f"argument --concurrency: {options.concurrency} is not a number of trials; choose at least 1")
    if not 0 < options.port < 65536:
        parser.error(f"argument --port: {options.port} is not a port; choose one from 1 to 65535")
    if options.fashion_mnist and not Path(options.fashion_mnist).is_dir():
        parser.error(f"argument --fashion-mnist: {options.fashion_mnist} is not a folder")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the searches and write the report."""
    options = parse_arguments(arguments)
    if importlib.util.find_spec("nni") is None:
        sys.exit("error: the searches need NNI: pip install 'torchprune-spatial[nni3]' (or [nni2] for NNI 2.10.1)")
    try:
        with explaining_exits(options.output), FileLock(options.output / ".lock", timeout=0):  # a kill frees it too
            with refusing():
                searches = Searches(options)
            files = write_report(searches, searches.run())
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}. When that is mended, the same command continues from {options.output}")
    show_report(options.output, files)


if __name__ == "__main__":
    main()

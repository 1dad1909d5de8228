"""Figures 1 and 2 of the resolution-scaling paper: FLOPs against memory of every way to make a network cheaper.

``python -m recipes.resolution_costs`` writes both figures, their tables as CSV, and a report. It trains nothing and
reads no data: costs are counted exactly, by `resolution_scaling.profile`. It needs matplotlib and torchvision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..experiments.command_line import command_of, positive
from .report import write_report


def main(arguments: list[str] | None = None) -> None:
    """Count the costs, and write and print the report."""
    parser = argparse.ArgumentParser(prog="python -m recipes.resolution_costs", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--batch", type=positive(int), default=1, metavar="N", help="images in a forward pass (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/resolution_costs"), help="folder (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    print(write_report(options.output, options.batch, command_of(parser, arguments)))


if __name__ == "__main__":
    main()

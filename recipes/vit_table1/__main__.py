"""Table 1 of the resolution-scaling paper: its cost columns as printed, by its convention, and counted rightly.

``python -m recipes.vit_table1`` prints the table; ``--output FILE`` also writes it. Nothing is trained: the accuracies
are the paper's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .table import report


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and write it where the command says so."""
    parser = argparse.ArgumentParser(prog="python -m recipes.vit_table1", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    text = report()
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()

"""Figures with matplotlib, without ``pyplot``. Matplotlib is imported when the first figure is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
"""Okabe and Ito's colours, and a marker for each, so that lines can be distinguished in black and white too."""

SMALL, TEXT = 8, 9
"""Font sizes, pt."""


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure; width and height are in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Write a figure to ``path`` unless it is None, in the format of the file's ending, and return the figure."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure

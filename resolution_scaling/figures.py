"""Figures of matplotlib that know nothing of ``pyplot``; matplotlib is imported when the first is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def saved(figure: Figure, path: str | os.PathLike | None) -> Figure:
    """The figure, also written to ``path`` if given; the ending tells the format."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure

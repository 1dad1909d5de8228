"""Bar charts of the cost of each module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..ground.figures import COLORS, SMALL, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cost_bars(
    names: Sequence[str],
    panels: Mapping[str, Sequence[float]],
    title: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw panels side by side, with one bar for each module.

    Args:
        names: names of the modules; the first is on top.
        panels: the values of the modules, by the label of the panel.
        title: text above the panels.
        path: where to save the figure; the ending specifies the format.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(10, 1.4 + 0.22 * len(names))
    all_axes = figure.subplots(1, len(panels), sharey=True)
    for axes, (label, values) in zip(all_axes, panels.items(), strict=True):
        axes.barh(range(len(names)), values, height=0.8, color=COLORS[0])
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    all_axes[0].set_ylim(len(names) - 0.4, -0.6)  # the first module on top
    figure.suptitle(title, fontsize=10)
    return saved(figure, path)

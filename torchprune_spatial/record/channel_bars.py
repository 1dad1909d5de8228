"""A bar chart of the channels that layers had, and of those that they keep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resolution_scaling.ground.figures import COLORS, SMALL, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def channel_bars(
    names: Sequence[str], before: Sequence[int], after: Sequence[int], path: str | os.PathLike[str] | None = None
) -> Figure:
    """One bar a layer: the channels that it had, and in front of it those that it keeps.

    Args:
        names: names of the layers. The first is on top.
        before: channels of each layer before pruning.
        after: channels of each layer after pruning.
        path: where to save the figure; the ending specifies the format.

    Returns:
        A figure that is not registered with ``pyplot``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(8, 1.2 + 0.24 * len(names))
    axes = figure.subplots()
    axes.barh(range(len(names)), before, height=0.8, color="#D9D9D9", label="before")
    axes.barh(range(len(names)), after, height=0.8, color=COLORS[0], label="kept")
    for position, (total, kept) in enumerate(zip(before, after, strict=True)):
        axes.annotate(
            f"{kept} of {total}", (total, position), (3, 0), textcoords="offset points", va="center", fontsize=SMALL
        )
    axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first layer on top
    axes.set_xlim(0, 1.18 * max(before, default=1))
    axes.set_xlabel("output channels")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return saved(figure, path)

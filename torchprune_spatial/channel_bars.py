"""Bars of the channels that layers had and keep."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch.nn as nn

from resolution_scaling.figures import COLORS, SMALL, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .record import PruningRecord

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
"""Layers that are left out: they keep the channels of the layer before them."""


def plot_kept_channels(record: PruningRecord, path: str | os.PathLike[str] | None = None) -> Figure:
    """Bars of the output channels that each layer had and keeps; norms are left out.

    Args:
        record: of the pruning.
        path: where to save the figure; the ending tells the format.

    Returns:
        A figure of matplotlib, which knows nothing of ``pyplot``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    modules = dict(record.model.named_modules())
    rows = [row for row in record.rows() if not isinstance(modules[row["name"]], NORMS)]
    names = [row["name"] for row in rows]
    before, after = [row["out_before"] for row in rows], [row["out_after"] for row in rows]
    figure = new_figure(8, 1.2 + 0.24 * len(rows))
    axes = figure.subplots()
    axes.barh(range(len(rows)), before, height=0.8, color="#D9D9D9", label="before")
    axes.barh(range(len(rows)), after, height=0.8, color=COLORS[0], label="kept")
    for position, (total, kept) in enumerate(zip(before, after, strict=True)):
        axes.annotate(
            f"{kept} of {total}", (total, position), (3, 0), textcoords="offset points", va="center", fontsize=SMALL
        )
    axes.set_yticks(range(len(rows)), names, fontsize=SMALL)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first layer on top
    axes.set_xlim(0, 1.18 * max(before, default=1))
    axes.set_xlabel("output channels")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return saved(figure, path)

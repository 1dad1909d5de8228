"""Bars of what each module costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .figures import COLORS, SMALL, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .report import CostReport

PANELS = {
    "MFLOPs": lambda cost: cost.flops / 1e6,
    "weights, MB": lambda cost: cost.weight_bytes / 1e6,
    "largest operator, MB": lambda cost: cost.largest_operator_bytes / 1e6,
}


def cost_bars(report: CostReport, path: str | os.PathLike[str] | None = None, depth: int | None = None) -> Figure:
    """Three panels of bars, one bar a module: FLOPs, weights, activations of the largest operator.

    Args:
        report: of `profile`; in its fused view, what is folded is with the module that does it.
        path: where to save the figure; the ending tells the format.
        depth: of the modules that are shown, see `CostReport.table`.

    Returns:
        A figure of matplotlib, which knows nothing of ``pyplot``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    costs = report.rows(depth) or {report.model: report.by_module()[""]}
    figure = new_figure(10, 1.4 + 0.22 * len(costs))
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (label, value) in zip(panels, PANELS.items(), strict=True):
        axes.barh(range(len(costs)), [value(cost) for cost in costs.values()], height=0.8, color=COLORS[0])
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(costs)), costs, fontsize=SMALL)
    panels[0].set_ylim(len(costs) - 0.4, -0.6)  # the first module on top
    inputs = " and ".join(str(list(shape)) for shape in report.inputs)
    figure.suptitle(f"{report.model} on {inputs}, {report.view} view", fontsize=10)
    return saved(figure, path)

"""Each filter's response in one region against that in another: those that are kept, and those that are removed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn as nn

from resolution_scaling.ground.figures import COLORS, SMALL, TEXT, new_figure, saved

from ..criteria.spatial_mask import SpatialMaskImportance
from .examples import regions_in
from .kept import Kept
from .read_network import ReadNetwork
from .responses import RegionResponses, responses_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT: dict[str, Any] = {"color": COLORS[0], "marker": "o", "edgecolors": "white", "linewidths": 0.4, "zorder": 3}
REMOVED: dict[str, Any] = {"color": COLORS[1], "marker": "x", "linewidths": 1.2, "zorder": 2}


def plot_region_responses(
    importance: SpatialMaskImportance,
    model: nn.Module,
    example_inputs: Any,
    layers: str | Iterable[str],
    kept: Kept,
    *,
    regions: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Figure:
    """Each filter's mean activation in the object against that in the background, for kept and for removed filters.

    There is one panel a layer. If what is kept is a union of top sets, dashed lines are the thresholds of Algorithm 1:
    a filter is kept if it lies above the one or to the right of the other. If a pruner's number of filters lies between
    two unions, the title says how many more it kept. On the dotted line a filter responds alike in both regions. With
    more than two regions there is one panel a region, whose other axis is the mean over the whole image.

    Args:
        importance, model, example_inputs, layers, kept, options: see `region_responses`: ``model`` as it was before
            pruning; ``kept`` a record, its ``kept_out``, or the fraction of Algorithm 1.
        regions: names of the regions that occur in the data, for the axes. Default: object and background, or numbers.
        path: where to save the figure; the ending specifies the format.

    Returns:
        A figure that is not registered with ``pyplot``. Its axes are the panels, in the order of the layers.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: see `region_responses`; or ``regions`` are not as many as occur.
    """
    new_figure(1, 1)  # raises without matplotlib, before the statistics are taken
    network = ReadNetwork(importance, model, example_inputs, options)
    found = [responses_of(network, layer, kept) for layer in ([layers] if isinstance(layers, str) else layers)]
    if not found:
        raise ValueError("layers is empty; expected the name of at least one layer")
    count = len(found[0].means)
    names = list(regions_in(importance.calibration, regions).values())
    panels = [(of, region) for of in found for region in (range(count) if count > 2 else (0,))]
    columns = count if count > 2 else 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(max(4.6, 3.1 * columns), 0.7 + 3.3 * rows if columns > 1 else 4.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (of, region) in zip(grid.flat, panels, strict=False):
        _scatter(axes, of, names, region)
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    side_by_side = 4 if columns > 1 else 2
    figure.legend(
        entries.values(), entries, loc="outside upper center", ncols=side_by_side, frameon=False, fontsize=TEXT
    )
    return saved(figure, path)


def _scatter(axes: Axes, of: RegionResponses, names: Sequence[str], region: int) -> None:
    """Draw one panel: two regions against each other, or one of several against the whole image."""
    two = len(of.means) == 2
    across = of.means[1] if two else of.overall
    for chosen, label, style in ((of.kept, "kept", KEPT), (~of.kept, "removed", REMOVED)):
        size = 28 if len(of.kept) <= 100 else 14
        axes.scatter(across[chosen].numpy(), of.means[region][chosen].numpy(), s=size, label=label, **style)
    if of.thresholds is not None:
        line: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1, "zorder": 1}
        axes.axhline(of.thresholds[region].item(), label="thresholds of Algorithm 1", **line)
        if two:
            axes.axvline(of.thresholds[1].item(), **line)
    axes.axline((0, 0), slope=1, color="#707070", linestyle=":", linewidth=1, zorder=0, label="alike in both")
    for limit, values in ((axes.set_xlim, across), (axes.set_ylim, of.means[region])):
        highest = values.max().item() or 1.0
        limit(-0.04 * highest, 1.06 * highest)
    axes.set_xlabel(f"mean activation, {names[1] if two else 'whole image'}", fontsize=TEXT)
    axes.set_ylabel(f"mean activation, {names[region]}", fontsize=TEXT)
    top = ""
    if of.thresholds is not None:
        more = int((of.kept & (of.means < of.thresholds.unsqueeze(1)).all(0)).sum())
        top = f", top {of.top} of each" + f" and {more} more" * (more > 0)
    axes.set_title(f"{of.layer}\n{int(of.kept.sum())} of {len(of.kept)} kept{top}", fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)

"""What some kept and some removed filters make of one calibration image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn as nn

from resolution_scaling.ground.arguments import whole_number
from resolution_scaling.ground.figures import COLORS, TEXT, new_figure, saved

from ..criteria.ranking import union_scores
from ..criteria.spatial_mask import SpatialMaskImportance
from .drawing import draw_image, outline, region_legend
from .examples import example, maps_of, regions_in
from .kept import Kept
from .read_network import ReadNetwork
from .responses import RegionResponses, responses_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_activation_maps(
    importance: SpatialMaskImportance,
    model: nn.Module,
    example_inputs: Any,
    layer: str,
    kept: Kept,
    *,
    filters: int | Sequence[int] = 4,
    image: int = 0,
    regions: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Figure:
    """Maps of some kept and some removed filters of a layer for one calibration image, with its regions outlined.

    The maps are those that the next layers read. Each is drawn from 0 (black) to its own largest magnitude (white),
    which is in its title.

    Args:
        importance, model, example_inputs, kept, options: see `region_responses`.
        layer: name of the layer.
        filters: how many kept and how many removed filters to show. The kept ones are the best of each region in turn,
            the removed ones those that came nearest to being kept. Or the numbers of the filters to show.
        image: number of the image in the order of the loader, which must be the same at each pass (no shuffling).
        regions: names of the regions that occur in the data. Default: object and background, or numbers.
        path: where to save the figure; the ending specifies the format.

    Returns:
        A figure that is not registered with ``pyplot``. Its axes are the image, the kept filters, and in a
        second row, if there are any, the removed ones.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: see `region_responses`; the layer is read without positions; there is no such image or
            filter.
    """
    figure = new_figure(1, 1)
    network = ReadNetwork(importance, model, example_inputs, options)
    of = responses_of(network, layer, kept)
    names = regions_in(importance.calibration, regions)
    shown = example(importance.calibration, image, model)
    maps = maps_of(network, layer, shown).abs()
    rows = [row for row in _chosen(of, filters) if row]
    columns = 1 + max(map(len, rows))
    tall = min(3.0, shown.planes.shape[1] / shown.planes.shape[2])
    figure.set_size_inches(1.75 * columns, 0.5 + (1.65 * tall + 0.5) * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    draw_image(grid[0, 0], shown.image, shown)
    outline(grid[0, 0], shown, names, hatched=True)
    grid[0, 0].set_title(f"image {image}", fontsize=TEXT)
    for axes in (*grid[1:, 0], *(axes for line, row in zip(grid, rows, strict=True) for axes in line[1 + len(row) :])):
        axes.remove()
    for line, row in zip(grid, rows, strict=True):
        for axes, number in zip(line[1:], row, strict=False):
            draw_image(axes, maps[number : number + 1], shown, low=0)
            outline(axes, shown, names)
            state = "kept" if of.kept[number] else "removed"
            axes.set_title(f"filter {number}, {state}\nup to {maps[number].max():.2g}", fontsize=TEXT)
            color, line_style = (COLORS[0], "-") if of.kept[number] else (COLORS[1], "--")
            axes.spines[:].set(linewidth=2.5, color=color, linestyle=line_style)
    region_legend(figure, shown, names)
    return saved(figure, path)


def _chosen(of: RegionResponses, filters: int | Sequence[int]) -> tuple[list[int], list[int]]:
    """The filters to show: ``(kept ones, removed ones)``."""
    count = len(of.kept)
    if isinstance(filters, Iterable):
        numbers = [whole_number(i, f"a filter of {of.layer!r}", least=0, most=count - 1) for i in filters]
        return [i for i in numbers if of.kept[i]], [i for i in numbers if not of.kept[i]]
    filters = whole_number(filters, "filters", example="filters=4 or filters=[0, 5]")
    best_of_each = of.means.argsort(1, descending=True).T.flatten().tolist()
    kept = [i for i in dict.fromkeys(best_of_each) if of.kept[i]]
    removed = [i for i in union_scores(of.means, of.overall).argsort(descending=True).tolist() if not of.kept[i]]
    return kept[:filters], removed[:filters]

"""Pictures of calibration images: where the regions lie, and what filters make of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn

from resolution_scaling.ground.figures import COLORS, SMALL, TEXT, new_figure, saved

from ..calibration.statistics import Calibration
from ..criteria.base import CalibratedImportance
from ..criteria.ranking import union_scores
from ..criteria.spatial_mask import SpatialMaskImportance
from .examples import Example, example, maps_of, regions_in
from .responses import Kept, ReadNetwork, RegionResponses

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

HATCHES = ("//", "..", "\\\\", "xx", "++", "oo")
OUTLINES = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
LINES = ("-", "--", ":", "-.")


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
    """What some kept and some removed filters of a layer make of one calibration image, with its regions outlined.

    Maps are those that the next layers read, each from 0 (black) to its own largest magnitude, which its title gives.

    Args:
        importance, model, example_inputs, kept, options: see `region_responses`.
        layer: name of the layer.
        filters: how many kept and how many removed ones: the kept are the best of each region in turn, the removed
            those that came nearest to being kept. Or the numbers of the filters to show.
        image: number of the image in the loader's order, which should be the same at each pass (no shuffling).
        regions: names of the regions that occur in the data. Default: object and background, or numbers.
        path: where to save the figure; the ending tells the format.

    Returns:
        A figure of matplotlib, which knows nothing of ``pyplot``. Its axes are the image, the kept filters, and in a
        second row, if there are any, the removed ones.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: see `region_responses`; the layer is read without positions; no such image or filter.
    """
    figure = new_figure(1, 1)
    network = ReadNetwork(importance, model, example_inputs, options)
    of = network.responses(layer, kept)
    names = regions_in(importance.calibration, regions)
    shown = example(importance.calibration, image, model)
    maps = maps_of(network, layer, shown).abs()
    rows = [row for row in _chosen(of, filters) if row]
    columns = 1 + max(map(len, rows))
    tall = min(3.0, shown.planes.shape[1] / shown.planes.shape[2])
    figure.set_size_inches(1.75 * columns, 0.5 + (1.65 * tall + 0.5) * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    _draw_image(grid[0, 0], shown.image, shown)
    _outline(grid[0, 0], shown, names, hatched=True)
    grid[0, 0].set_title(f"image {image}", fontsize=TEXT)
    for axes in (*grid[1:, 0], *(axes for line, row in zip(grid, rows, strict=True) for axes in line[1 + len(row) :])):
        axes.remove()
    for line, row in zip(grid, rows, strict=True):
        for axes, number in zip(line[1:], row, strict=False):
            _draw_image(axes, maps[number : number + 1], shown, low=0)
            _outline(axes, shown, names)
            state = "kept" if of.kept[number] else "removed"
            axes.set_title(f"filter {number}, {state}\nup to {maps[number].max():.2g}", fontsize=TEXT)
            color, line_style = (COLORS[0], "-") if of.kept[number] else (COLORS[1], "--")
            axes.spines[:].set(linewidth=2.5, color=color, linestyle=line_style)
    _region_legend(figure, shown, names)
    return saved(figure, path)


def _chosen(of: RegionResponses, filters: int | Sequence[int]) -> tuple[list[int], list[int]]:
    """Filters to show: kept ones, removed ones."""
    count = len(of.kept)
    if not isinstance(filters, int):
        if wrong := [number for number in filters if not (isinstance(number, int) and 0 <= number < count)]:
            raise ValueError(f"filters holds {wrong[0]!r}; {of.layer!r} has the filters 0 to {count - 1}")
        return [i for i in filters if of.kept[i]], [i for i in filters if not of.kept[i]]
    if filters < 1:
        raise ValueError(f"filters is {filters}; expected at least 1, or the numbers of filters")
    best_of_each = of.means.argsort(1, descending=True).T.flatten().tolist()
    kept = [i for i in dict.fromkeys(best_of_each) if of.kept[i]]
    removed = [i for i in union_scores(of.means, of.overall).argsort(descending=True).tolist() if not of.kept[i]]
    return kept[:filters], removed[:filters]


def plot_regions(
    importance: CalibratedImportance | Calibration,
    grids: Iterable[str | int | tuple[int, int]] = (),
    *,
    image: int = 0,
    model: nn.Module | None = None,
    picture: str = "input",
    regions: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """A calibration image with its regions, and what share of each cell of coarser grids they cover.

    Args:
        importance: an importance, or its calibration data.
        grids: grids to show: names of layers, for the grid on which their channels are read; or sizes, (height,
            width) or one number.
        image: number of the image in the loader's order, which should be the same at each pass (no shuffling).
        model: the network, if grids are those of layers.
        picture: what lies under the regions: the ``"input"`` or the ``"target"``.
        regions: names of the regions that occur in the data. Default: object and background, or numbers.
        path: where to save the figure; the ending tells the format.

    Returns:
        A figure of matplotlib, which knows nothing of ``pyplot``. Its axes are the image, then the grids; one row a
        region, but only the object where the other is its background.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is not usable; the text says what to do.
    """
    figure = new_figure(1, 1)
    if picture not in ("input", "target"):
        raise ValueError(f"picture is {picture!r}; expected 'input' or 'target'")
    calibration = importance if isinstance(importance, Calibration) else getattr(importance, "calibration", None)
    if not isinstance(calibration, Calibration):
        raise TypeError(f"importance is a {type(importance).__name__}; expected one with calibration data, or these")
    names, shown = regions_in(calibration, regions), example(calibration, image, model)
    columns = _coverages(calibration, model, shown, grids)
    rows = [0] if shown.binary else list(names)
    tall = min(3.0, shown.planes.shape[1] / shown.planes.shape[2])
    figure.set_size_inches(2.2 * (1 + len(columns)) + 0.7 * bool(columns), 0.5 + (2.1 * tall + 0.5) * len(rows))
    grid = figure.subplots(len(rows), 1 + len(columns), squeeze=False)
    _draw_image(grid[0, 0], shown.image if picture == "input" else _target_of(shown), shown)
    _outline(grid[0, 0], shown, names, hatched=True)
    grid[0, 0].set_title(f"{picture} {image}", fontsize=TEXT)
    for axes in grid[1:, 0]:
        axes.remove()
    for line, region in zip(grid, rows, strict=True):
        for axes, (title, (pure, covered)) in zip(line[1:], columns, strict=True):
            drawn = _show(axes, _plane(covered, region), shown)
            cells = int(_plane(pure, region).sum())
            axes.set_title(f"{title}\n{names[region]}, {cells} pure cell{'s' * (cells != 1)}", fontsize=TEXT)
    if columns:
        bar = figure.colorbar(drawn, ax=grid[:, 1:].ravel().tolist(), fraction=0.03, pad=0.02)
        bar.set_label("share of the cell in the region", fontsize=TEXT)
        bar.ax.tick_params(labelsize=SMALL)
    _region_legend(figure, shown, names)
    return saved(figure, path)


def _coverages(
    calibration: Calibration, model: nn.Module | None, shown: Example, grids: Iterable[str | int | tuple[int, int]]
) -> list[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """A title and the coverage of each grid."""
    network, found = None, []
    for grid in [grids] if isinstance(grids, (str, int)) else grids:
        if isinstance(grid, str):
            if model is None:
                raise ValueError(f"grids holds the layer {grid!r}: pass its network too, as model")
            if network is None:
                criterion = SpatialMaskImportance(calibration)
                network = ReadNetwork(criterion, model, shown.inputs, {"forward_fn": calibration.forward})
            height, width = maps_of(network, grid, shown).shape[1:]
            size = height, width
        else:
            size = (grid, grid) if isinstance(grid, int) else grid
        if len(size) != 2 or not all(isinstance(cells, int) and cells > 0 for cells in size):
            raise ValueError(f"grids holds {grid!r}; expected names of layers, numbers, or pairs (height, width)")
        title = f"{size[0]} x {size[1]} cells"
        found.append((f"{grid}\n{title}" if isinstance(grid, str) else title, shown.coverage(size)))
    return found


def _plane(planes: torch.Tensor, region: int) -> torch.Tensor:
    """One region's; zeros if this image has none so high."""
    return planes[region].cpu() if region < len(planes) else torch.zeros_like(planes[0]).cpu()


def _target_of(shown: Example) -> torch.Tensor:
    target = shown.target
    if target is None or target.ndim not in (2, 3):
        raise ValueError("picture='target', but the loader's targets are no images: use picture='input'")
    return target.float() if target.ndim == 3 else target.float().unsqueeze(0)


def _draw_image(axes: Axes, image: torch.Tensor, shown: Example, low: float | None = None) -> None:
    """``[channels, height, width]`` from its lowest value, or ``low``, to its highest; in colours if channels are 3."""
    low = image.amin().item() if low is None else low
    image = ((image - low) / max(image.amax().item() - low, 1e-12)).cpu()
    _show(axes, image.movedim(0, -1) if len(image) == 3 else image.mean(0), shown)


def _show(axes: Axes, pixels: torch.Tensor, shown: Example) -> AxesImage:
    """Numbers in 0..1, of any size, where the regions lie."""
    height, width = shown.planes.shape[1:]
    axes.set(xticks=[], yticks=[])
    return axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))


def _outline(axes: Axes, shown: Example, names: Mapping[int, str], hatched: bool = False) -> None:
    """Lines around the regions; of an object and its background, around the object."""
    height, width = shown.planes.shape[1:]
    centres = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    for region in _outlined(shown, names):
        plane, style = _plane(shown.planes, region).numpy(), _style(region)
        if hatched and not shown.binary and plane.max() > 0.5:
            fill = axes.contourf(*centres, plane, [0.5, 1.5], colors="none", hatches=[HATCHES[region % len(HATCHES)]])
            fill.set(edgecolor=style["color"], linewidth=0)
        if plane.min() < 0.5 < plane.max():
            for color, line_style, line_width in (("black", "-", 2.8), (style["color"], style["linestyle"], 1.4)):
                axes.contour(*centres, plane, [0.5], colors=color, linestyles=line_style, linewidths=line_width)


def _outlined(shown: Example, names: Mapping[int, str]) -> list[int]:
    return [0] if shown.binary else list(names)


def _style(region: int) -> dict[str, Any]:
    return {"color": OUTLINES[region % len(OUTLINES)], "linestyle": LINES[region % len(LINES)]}


def _region_legend(figure: Figure, shown: Example, names: Mapping[int, str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Line2D([], [], linewidth=2, label=names[r], **_style(r)) for r in _outlined(shown, names)]
    if not shown.binary:
        hatches = {r: {"hatch": 2 * HATCHES[r % len(HATCHES)], "edgecolor": _style(r)["color"]} for r in names}
        handles = [Patch(facecolor="#404040", label=name, **hatches[r]) for r, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=TEXT)

"""A calibration image with its regions, and what the regions cover of coarser grids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn as nn

from resolution_scaling.ground.arguments import whole_number
from resolution_scaling.ground.figures import SMALL, TEXT, new_figure, saved

from ..calibration.statistics import Calibration
from ..criteria.base import CalibratedImportance
from ..criteria.spatial_mask import SpatialMaskImportance
from .drawing import draw_image, outline, plane_of, region_legend, show
from .examples import Example, example, maps_of, regions_in
from .read_network import ReadNetwork

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        importance: an importance with calibration data, or a `Calibration`.
        grids: the grids to show. The name of a layer stands for the grid on which its channels are read; else a grid is
            a pair (rows, columns), or one number for both.
        image: number of the image in the order of the loader, which must be the same at each pass (no shuffling).
        model: the network, if ``grids`` holds names of layers.
        picture: what is drawn under the regions: the ``"input"`` or the ``"target"``.
        regions: names of the regions that occur in the data. Default: object and background, or numbers.
        path: where to save the figure; the ending specifies the format.

    Returns:
        A figure that is not registered with ``pyplot``. Its axes are the image, then the grids. There is one
        row a region; of an object and its background, only the object has one.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument, or the calibration data, are not usable; the text says what to do.
    """
    figure = new_figure(1, 1)
    if picture not in ("input", "target"):
        raise ValueError(f"picture is {picture!r}; expected 'input' or 'target'")
    calibration = importance if isinstance(importance, Calibration) else getattr(importance, "calibration", None)
    if not isinstance(calibration, Calibration):
        raise TypeError(
            f"importance is a {type(importance).__name__}; expected one with calibration data, or a Calibration"
        )
    names, shown = regions_in(calibration, regions), example(calibration, image, model)
    columns = _coverages(calibration, model, shown, grids)
    rows = [0] if shown.binary else list(names)
    tall = min(3.0, shown.planes.shape[1] / shown.planes.shape[2])
    figure.set_size_inches(2.2 * (1 + len(columns)) + 0.7 * bool(columns), 0.5 + (2.1 * tall + 0.5) * len(rows))
    grid = figure.subplots(len(rows), 1 + len(columns), squeeze=False)
    draw_image(grid[0, 0], shown.image if picture == "input" else _target_of(shown), shown)
    outline(grid[0, 0], shown, names, hatched=True)
    grid[0, 0].set_title(f"{picture} {image}", fontsize=TEXT)
    for axes in grid[1:, 0]:
        axes.remove()
    for line, region in zip(grid, rows, strict=True):
        for axes, (title, (pure, covered)) in zip(line[1:], columns, strict=True):
            drawn = show(axes, plane_of(covered, region), shown)
            cells = int(plane_of(pure, region).sum())
            axes.set_title(f"{title}\n{names[region]}, {cells} pure cell{'s' * (cells != 1)}", fontsize=TEXT)
    if columns:
        bar = figure.colorbar(drawn, ax=grid[:, 1:].ravel().tolist(), fraction=0.03, pad=0.02)
        bar.set_label("share of the cell in the region", fontsize=TEXT)
        bar.ax.tick_params(labelsize=SMALL)
    region_legend(figure, shown, names)
    return saved(figure, path)


def _coverages(
    calibration: Calibration, model: nn.Module | None, shown: Example, grids: Iterable[str | int | tuple[int, int]]
) -> list[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """For each grid its title, and which cells are pure and what share each region covers (`Example.coverage`)."""
    network, found = None, []
    for grid in [grids] if isinstance(grids, str) or not isinstance(grids, Iterable) else grids:
        if isinstance(grid, str):
            if model is None:
                raise ValueError(f"grids holds the layer {grid!r}: pass its network too, as model")
            if network is None:
                criterion = SpatialMaskImportance(calibration)
                network = ReadNetwork(criterion, model, shown.inputs, {"forward_fn": calibration.forward})
            rows, columns = maps_of(network, grid, shown).shape[1:]
        else:
            given = tuple(grid) if isinstance(grid, Iterable) else (grid, grid)
            if len(given) != 2:
                raise ValueError(f"grids holds {grid!r}; expected names of layers, numbers, or pairs (rows, columns)")
            rows, columns = (whole_number(cells, "a number in grids", example="grids=[8, (4, 8)]") for cells in given)
        shape = rows, columns
        title = f"{shape[0]} x {shape[1]} cells"
        found.append((f"{grid}\n{title}" if isinstance(grid, str) else title, shown.coverage(shape)))
    return found


def _target_of(shown: Example) -> torch.Tensor:
    target = shown.target
    if target is None or target.ndim not in (2, 3):
        raise ValueError("picture='target', but the loader's targets are no images: use picture='input'")
    return target.float() if target.ndim == 3 else target.float().unsqueeze(0)

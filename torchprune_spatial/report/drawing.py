"""Drawing a calibration image, a map of a filter, and the outlines of the regions over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from resolution_scaling.ground.figures import TEXT

from .examples import Example

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

HATCHES = ("//", "..", "\\\\", "xx", "++", "oo")
OUTLINES = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
LINES = ("-", "--", ":", "-.")


def plane_of(planes: torch.Tensor, region: int) -> torch.Tensor:
    """The plane of one region; zeros if the image has fewer planes."""
    return planes[region].cpu() if region < len(planes) else torch.zeros_like(planes[0]).cpu()


def draw_image(axes: Axes, image: torch.Tensor, shown: Example, low: float | None = None) -> None:
    """Draw ``[channels, height, width]`` from ``low`` to the highest value; if there are three channels, in colour.

    ``low`` is by default the lowest value.
    """
    low = image.amin().item() if low is None else low
    image = ((image - low) / max(image.amax().item() - low, 1e-12)).cpu()
    show(axes, image.movedim(0, -1) if len(image) == 3 else image.mean(0), shown)


def show(axes: Axes, pixels: torch.Tensor, shown: Example) -> AxesImage:
    """Draw numbers in 0..1, ``[rows, columns]`` or ``[rows, columns, 3]``, over the whole area of the image."""
    height, width = shown.planes.shape[1:]
    axes.set(xticks=[], yticks=[])
    return axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))


def outline(axes: Axes, shown: Example, names: Mapping[int, str], hatched: bool = False) -> None:
    """Draw lines around the regions; of an object and its background, around the object."""
    height, width = shown.planes.shape[1:]
    centres = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    for region in _outlined(shown, names):
        plane, style = plane_of(shown.planes, region).numpy(), _style(region)
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


def region_legend(figure: Figure, shown: Example, names: Mapping[int, str]) -> None:
    """Add a legend of the regions' lines and hatches."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Line2D([], [], linewidth=2, label=names[r], **_style(r)) for r in _outlined(shown, names)]
    if not shown.binary:
        hatches = {r: {"hatch": 2 * HATCHES[r % len(HATCHES)], "edgecolor": _style(r)["color"]} for r in names}
        handles = [Patch(facecolor="#404040", label=name, **hatches[r]) for r, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=TEXT)

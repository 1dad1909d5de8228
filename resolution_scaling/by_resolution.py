"""Costs of one network at several resolutions: as a table, as CSV, and as curves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn

from .comparison import Comparison
from .cost.cost_report import TOTALS, CostReport
from .cost.profiling import profile
from .ground.figures import COLORS, MARKERS, SMALL, TEXT, new_figure, saved
from .ground.meta import meta_copy
from .ground.shapes import image_of
from .ground.sizes import as_size
from .scaling import scale_resolution
from .vit.registry import is_vit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {"rc": "RC", "fcr": "FCR", "tokens": "tokens"}
"""What `compare_resolutions` takes as ``methods``, and their names in tables and figures."""

PANELS = ("flops", "weight_bytes", "largest_operator_bytes", "peak_bytes")


class ResolutionComparison(Comparison):
    """Costs of one network by method and resolution; `compare_resolutions` makes it.

    ``print`` shows the table, relative to the largest size. `plot_costs` draws the costs against the resolution, `plot`
    draws memory against FLOPs.

    Attributes:
        sizes: resolution in px of each of the ``reports``, by the same ``(method, setting)``.
    """

    def __init__(self, reports: Mapping[tuple[str, int], CostReport]):
        super().__init__({(method, f"{size} px"): report for (method, size), report in reports.items()})
        self.sizes = {(method, f"{size} px"): size for method, size in reports}

    def label(self, method: str) -> str:
        """The name of a method in the paper."""
        return LABELS[method]

    def rows(self) -> list[dict[str, Any]]:
        """`Comparison.rows`, and ``size_px`` in each."""
        return [row | {"size_px": self.sizes[row["method"], row["setting"]]} for row in super().rows()]

    def plot_costs(self, path: str | os.PathLike[str] | None = None, costs: Iterable[str] = PANELS) -> Figure:
        """Plot costs against resolution, with one panel for each cost and one line for each method.

        Args:
            path: where to save the figure; the ending specifies the format.
            costs: one or several totals of a `CostReport`: ``"flops"``, ``"macs"``, ``"elementwise_flops"``,
                ``"weight_bytes"``, ``"largest_operator_bytes"``, ``"memory_bytes"`` (the sum of these two),
                ``"peak_bytes"``.

        Returns:
            A figure of matplotlib, made without ``pyplot``.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: a cost is not a total of a `CostReport`, or there is no cost.
        """
        costs = [costs] if isinstance(costs, str) else list(costs)
        if not costs or any(cost not in TOTALS for cost in costs):
            raise ValueError(f"costs is {costs!r}; expected at least one of {', '.join(map(repr, TOTALS))}")
        columns = min(2, len(costs))
        rows = -(-len(costs) // columns)
        figure = new_figure(3.8 * columns, 0.5 + 2.7 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes in grid.flat[len(costs) :]:
            axes.remove()
        for axes, cost in zip(grid.flat, costs, strict=False):
            label, unit = TOTALS[cost]
            for i, method in enumerate(dict.fromkeys(method for method, _ in self.reports)):
                points = sorted(
                    (self.sizes[key], getattr(r, cost)) for key, r in self.reports.items() if key[0] == method
                )
                axes.plot(
                    *zip(*((size, value / unit) for size, value in points), strict=True),
                    label=self.label(method),
                    color=COLORS[i % len(COLORS)],
                    marker=MARKERS[i % len(MARKERS)],
                    fillstyle="none" if i else "full",  # both of two lines that coincide can be seen
                    markersize=8 if i else 4.5,
                    linestyle="--" if i else "-",
                )
            axes.set_ylim(0, 1.08 * (max(getattr(report, cost) for report in self.reports.values()) / unit or 1))
            axes.set_ylabel(label, fontsize=TEXT)
            axes.tick_params(labelsize=SMALL, labelbottom=True)
            axes.set_xlabel("resolution, px", fontsize=TEXT)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        handles = grid[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=len(LABELS), frameon=False, fontsize=TEXT)
        return saved(figure, path)


def compare_resolutions(
    model: nn.Module,
    sizes: Iterable[int],
    methods: str | Iterable[str] | None = None,
    *,
    batch: int = 1,
    input_size: int | None = None,
    in_channels: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> ResolutionComparison:
    """Count the costs of one network at several resolutions on the meta device.

    Args:
        model: a CNN, or a vision transformer of a known family. It is not changed.
        sizes: sides of the image, px.
        methods: ways to lower the resolution (Morlier et al., GRETSI 2025, section 3.3). ``"rc"``: the unchanged
            network reads smaller images. ``"fcr"``: it reads images of ``input_size`` and is reduced after its first
            convolution, for sizes up to that one. ``"tokens"``: a vision transformer gets a smaller grid. Default:
            RC and FCR for CNNs, tokens for vision transformers.
        batch: images in a forward pass.
        input_size: size of the images that FCR reads, px. Default: the size that a timm network was made for, else 224.
        in_channels: channels of the images. Default: found from the network, see `image_of`.
        dtype: dtype of weights and activations.

    Raises:
        TypeError, ValueError: an argument is not usable, or the network cannot work at a size (the text names the
            layer, or sizes that fit).

    Example:
        >>> costs = compare_resolutions(torchvision.models.resnet50(), range(96, 257, 32))
        >>> print(costs)
        >>> costs.plot_costs("costs.png")
    """
    sizes = sorted({as_size(size, "a size of sizes")[0] for size in sizes}, reverse=True)
    if not sizes:
        raise ValueError("sizes is empty; expected at least one resolution in px, such as [160, 224]")
    if methods is None:
        methods = ("tokens",) if is_vit(model) else ("rc", "fcr")
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    if not methods or set(methods) - set(LABELS):
        raise ValueError(f"methods is {methods!r}; expected some of {', '.join(map(repr, LABELS))}")
    channels, full = image_of(model, input_size, in_channels)
    reports = {}
    for method in methods:
        for size in sizes:
            if method == "fcr" and size > min(full):
                continue
            network, image = model, (size, size)
            if method == "fcr":
                network, image = scale_resolution(meta_copy(model)[0], size, method="fcr", input_size=full), full
            elif method == "tokens":
                network = scale_resolution(model, size, method="tokens")
            reports[method, size] = profile(network, (batch, channels, *image), dtype)
    if not reports:
        raise ValueError(
            f"sizes is {sizes}, all above the {min(full)} px that the network reads; expected smaller ones for FCR"
        )
    return ResolutionComparison(reports)

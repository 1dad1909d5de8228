"""Costs of several networks side by side: as a table, as CSV, and as a plot of FLOPs against memory."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
from tabulate import tabulate

from .cost.cost_report import CostReport
from .cost.profiling import profile
from .ground.figures import COLORS, MARKERS, SMALL, new_figure, saved
from .ground.shapes import image_of
from .vit.registry import is_vit, token_sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Name = str | tuple[str, str]
"""A name, or ``(method, setting)``."""


class Comparison:
    """Costs of networks, relative to the first one; `compare` makes it, and ``print`` shows the table.

    Attributes:
        reports: the `CostReport` of each network, by ``(method, setting)``.
    """

    def __init__(self, reports: Mapping[tuple[str, str], CostReport]):
        self.reports = dict(reports)

    def label(self, method: str) -> str:
        """How a method is called in the table and the legend."""
        return method

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each network: FLOPs, bytes, and the ratios of the first network's to its own."""
        first, rows = next(iter(self.reports.values())), []
        for (method, setting), report in self.reports.items():
            row: dict[str, Any] = {"method": method, "setting": setting, "input": "x".join(map(str, report.inputs[0]))}
            for cost in ("flops", "weight_bytes", "largest_operator_bytes", "memory_bytes", "peak_bytes"):
                row[cost] = getattr(report, cost)
            row["times_fewer_flops"] = first.flops / max(1, report.flops)
            row["times_less_memory"] = first.memory_bytes / max(1, report.memory_bytes)
            rows.append(row)
        return rows

    def __str__(self) -> str:
        table = [
            {
                "network": " ".join(filter(None, (self.label(row["method"]), row["setting"]))),
                "input": row["input"],
                "GFLOPs": f"{row['flops'] / 1e9:.3f}",
                "weights, MB": f"{row['weight_bytes'] / 1e6:.2f}",
                "largest operator, MB": f"{row['largest_operator_bytes'] / 1e6:.2f}",
                "both, MB": f"{row['memory_bytes'] / 1e6:.2f}",
                "peak, MB": f"{row['peak_bytes'] / 1e6:.2f}",
                "FLOPs": f"/ {row['times_fewer_flops']:.2f}",
                "memory": f"/ {row['times_less_memory']:.2f}",
            }
            for row in self.rows()
        ]
        alignment = ("left", "left", *("right",) * (len(table[0]) - 2))
        return tabulate(table, "keys", disable_numparse=True, colalign=alignment)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `rows` as CSV."""
        rows = self.rows()
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    def plot(self, path: str | os.PathLike[str] | None = None, memory: str = "memory_bytes") -> Figure:
        """Plot memory against FLOPs with one line for each method, as in Figures 1 and 2 of the paper.

        Args:
            path: where to save the figure; the ending specifies the format.
            memory: which bytes of a `CostReport`: ``"memory_bytes"`` (the paper's), ``"peak_bytes"``, ...

        Returns:
            A figure of matplotlib, made without ``pyplot``.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure = new_figure(7, 5)
        axes = figure.subplots()
        for i, method in enumerate(dict.fromkeys(method for method, _ in self.reports)):
            points = [
                (report.flops / 1e9, getattr(report, memory) / 1e6, setting)
                for (own_method, setting), report in self.reports.items()
                if own_method == method
            ]
            points.sort()
            flops, megabytes, settings = zip(*points, strict=True)
            color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
            axes.plot(flops, megabytes, label=self.label(method), color=color, marker=marker)
            for point in zip(settings, flops, megabytes, strict=True):
                axes.annotate(point[0], point[1:], (4, 4), textcoords="offset points", fontsize=SMALL)
        axes.set_xlabel("GFLOPs")
        axes.set_ylabel(f"{memory.removesuffix('_bytes').replace('_', ' ')}, MB")
        axes.set_ylim(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        return saved(figure, path)


def compare(
    models: Mapping[Name, nn.Module | tuple[nn.Module, Any] | CostReport],
    input_shape: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Comparison:
    """Count the costs of several networks on the meta device.

    Args:
        models: networks by name, or by ``(method, setting)`` if the settings of a method form a line of the plot. Each
            is a network, ``(network, input shape)``, or a `CostReport`. The others are compared with the first.
        input_shape: input shape, as in `profile`, of the networks that have none here. Default: one image of the size
            at which a ViT works now, or the size that a timm network was made for, or 224 px.
        dtype: dtype of weights and activations.

    Raises:
        TypeError, ValueError: there is no network, or one cannot be counted (see `profile`).

    Example:
        >>> print(compare({"224 px": model, "160 px": scale_resolution(model, 160)}))
    """
    if not isinstance(models, Mapping) or not models:
        raise TypeError(
            f"models is {models!r}; expected a dict of at least one network by its name, such as {{'224 px': model}}"
        )
    reports: dict[tuple[str, str], CostReport] = {}
    for name, model in models.items():
        if isinstance(model, CostReport):
            report = model
        else:
            network, shape = model if isinstance(model, tuple) else (model, input_shape)
            if not isinstance(network, nn.Module):
                raise TypeError(
                    f"models[{name!r}] is a {type(network).__name__}; expected a network, (network, input shape) or a "
                    "report of profile"
                )
            report = profile(network, _one_image(network) if shape is None else shape, dtype)
        reports[name if isinstance(name, tuple) else (str(name), "")] = report
    return Comparison(reports)


def _one_image(model: nn.Module) -> tuple[int, ...]:
    """Shape of one image as the network reads it now; a guess where neither family nor timm records it."""
    channels, size = image_of(model)
    return 1, channels, *(token_sizes(model).image_size or size if is_vit(model) else size)

"""The report: both figures, their tables as CSV, and the text."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import resolution_scaling as rs
from resolution_scaling.ground.files import replacing

from ..experiments.files import save_figures
from .costs import FIGURES


def write_report(output: Path, batch: int, command: str) -> str:
    """Write a PNG and a CSV file for each figure, and ``report.md``; return its text.

    Args:
        output: the folder, which exists.
        batch: number of images in a forward pass.
        command: the command that was given.
    """
    parts = [
        "# What lower resolution saves, and what smaller models save",
        "Figures 1 and 2 of Morlier, Leonardon, Gripon, GRETSI 2025, counted anew: FLOPs are two a "
        "multiply-accumulate, memory is float32 weights and the largest operator (section 3.1), for a batch of "
        f"{batch}. The model-scaling rows of the ViT have the FLOPs of the grid that they are named by; "
        "where one is missing, no network of its kind is so cheap.",
    ]
    for figure, (network, costs) in FIGURES.items():
        comparison = rs.compare(costs(batch))
        save_figures(output, {f"{figure}.png": comparison.plot()}, dpi=150)
        with replacing(output / f"{figure}.csv") as partial:
            comparison.to_csv(partial)
        parts += [f"## {network}", f"![FLOPs against memory]({figure}.png)", f"```\n{comparison}\n```"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision"))
    parts.append(f"`{command}`: Python {platform.python_version()}, {versions}; nothing in it is random.")
    text = "\n\n".join(parts) + "\n"
    with replacing(output / "report.md") as partial:
        partial.write_text(text)
    return text

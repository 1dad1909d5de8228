"""Figures 1 and 2 of the resolution-scaling paper: FLOPs against memory of every way to make a network cheaper.

``python -m recipes.resolution_costs`` writes both figures, their tables as CSV, and a report. Nothing is trained and no
data is read: costs are counted, exactly, by `resolution_scaling.profile`. Needs matplotlib and torchvision.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from torchvision.models import VisionTransformer, resnet50
from tqdm import tqdm

import resolution_scaling as rs

from ..experiments.files import replacing
from ..vit_table1.__main__ import VIT_S

FULL_SIZE = 224
CNN_SIZES = (64, 96, 128, 160, 176, 192)
WIDTHS = (0.25, 0.5, 0.75)
GRIDS = (8, 11, 12, 13, 15)
Networks = dict[tuple[str, str], rs.CostReport]


def resnet_costs(batch: int) -> Networks:
    """ResNet-50: reduced crop (RC), reduction after the first convolution (FCR), and fewer filters (section 4.1)."""
    model = resnet50()
    full, costs = (batch, 3, FULL_SIZE, FULL_SIZE), {}
    costs["full size", f"{FULL_SIZE} px"] = rs.profile(model, full)
    for size in tqdm(CNN_SIZES, desc="ResNet-50"):
        costs["RC", f"{size}"] = rs.profile(model, (batch, 3, size, size))
        costs["FCR", f"{size}"] = rs.profile(rs.scale_resolution(model, size), full)
    for width in WIDTHS:
        costs["width", f"{width:g}"] = rs.profile(rs.scale_model(model, "width", size=width).model, full)
    return costs


def vit_costs(batch: int) -> Networks:
    """ViT-S: grids of tokens at patch 16, and model scaling to the FLOPs of each grid (section 4.2)."""
    model = VisionTransformer(**VIT_S)
    full, costs = (batch, 3, FULL_SIZE, FULL_SIZE), {}
    costs["full size", "14"] = rs.profile(model, full)
    for grid in tqdm(GRIDS, desc="ViT-S"):
        scaled = rs.scale_resolution(model, grid=grid)
        costs["grid", str(grid)] = cost = rs.profile(scaled, (batch, 3, scaled.image_size, scaled.image_size))
        for method in ("hidden", "mlp", "depth", "hybrid") if grid < 14 else ():
            try:
                rival = rs.scale_model(model, method, flops=cost.flops / batch, input_shape=(1, *full[1:]))
            except ValueError as error:  # no MLP is so small
                tqdm.write(f"left out: {error}")
                continue
            costs[method, str(grid)] = rs.profile(rival.model, full)
    return costs


FIGURES: dict[str, tuple[str, Callable[[int], Networks]]] = {
    "figure_1": ("ResNet-50", resnet_costs),
    "figure_2": ("ViT-S", vit_costs),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="images a forward pass (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("results/resolution_costs"), help="folder (default: %(default)s)"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    parts = [
        "# What lower resolution saves, and what smaller models save",
        "Figures 1 and 2 of Morlier, Leonardon, Gripon, GRETSI 2025, counted anew: FLOPs are two a "
        "multiply-accumulate, memory is float32 weights and the largest operator (section 3.1), for a batch of "
        f"{arguments.batch}. The model-scaling rows of the ViT have the FLOPs of the grid that they are named by; "
        "where one is missing, no network of its kind is so cheap.",
    ]
    for figure, (network, costs) in FIGURES.items():
        comparison = rs.compare(costs(arguments.batch))
        with replacing(arguments.output / f"{figure}.png") as partial:
            comparison.plot().savefig(partial, format="png", dpi=150)
        with replacing(arguments.output / f"{figure}.csv") as partial:
            comparison.to_csv(partial)
        parts += [f"## {network}", f"![FLOPs against memory]({figure}.png)", f"```\n{comparison}\n```"]
    command = "python -m recipes.resolution_costs " + " ".join(sys.argv[1:])
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision"))
    parts.append(f"`{command.strip()}`: Python {platform.python_version()}, {versions}; nothing in it is random.")
    with replacing(arguments.output / "report.md") as partial:
        partial.write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()

"""What the networks of both figures cost, counted by `resolution_scaling.profile`."""

from __future__ import annotations

from collections.abc import Callable

from torchvision.models import VisionTransformer, resnet50
from tqdm import tqdm

import resolution_scaling as rs

from ..vit_table1.table import VIT_S

FULL_SIZE_PX = 224
CNN_SIZES_PX = (64, 96, 128, 160, 176, 192)
WIDTHS = (0.25, 0.5, 0.75)
GRIDS = (8, 11, 12, 13, 15)
Networks = dict[tuple[str, str], rs.CostReport]
"""The costs of a network by its method and setting."""


def resnet_costs(batch: int) -> Networks:
    """ResNet-50: reduced crop (RC), reduction after the first convolution (FCR), and fewer filters (section 4.1)."""
    model = resnet50()
    full, costs = (batch, 3, FULL_SIZE_PX, FULL_SIZE_PX), {}
    costs["full size", f"{FULL_SIZE_PX} px"] = rs.profile(model, full)
    for size in tqdm(CNN_SIZES_PX, desc="ResNet-50"):
        costs["RC", f"{size}"] = rs.profile(model, (batch, 3, size, size))
        costs["FCR", f"{size}"] = rs.profile(rs.scale_resolution(model, size), full)
    for width in WIDTHS:
        costs["width", f"{width:g}"] = rs.profile(rs.scale_model(model, "width", size=width).model, full)
    return costs


def vit_costs(batch: int) -> Networks:
    """ViT-S: grids of tokens at patch 16, and model scaling to the FLOPs of each grid (section 4.2)."""
    model = VisionTransformer(**VIT_S)
    full, costs = (batch, 3, FULL_SIZE_PX, FULL_SIZE_PX), {}
    costs["full size", "14"] = rs.profile(model, full)
    for grid in tqdm(GRIDS, desc="ViT-S"):
        scaled = rs.scale_resolution(model, grid=grid)
        costs["grid", str(grid)] = cost = rs.profile(scaled, (batch, 3, scaled.image_size, scaled.image_size))
        for method in ("hidden", "mlp", "depth", "hybrid") if grid < 14 else ():
            try:
                rival = rs.scale_model(model, method, flops=cost.flops / batch, input_shape=(1, *full[1:]))
            except ValueError as error:  # no MLP is small enough
                tqdm.write(f"left out: {error}")
                continue
            costs[method, str(grid)] = rs.profile(rival.model, full)
    return costs


FIGURES: dict[str, tuple[str, Callable[[int], Networks]]] = {
    "figure_1": ("ResNet-50", resnet_costs),
    "figure_2": ("ViT-S", vit_costs),
}
"""The network of each figure, and what counts its costs for a batch size."""

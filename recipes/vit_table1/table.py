"""The rows of Table 1, and three counts of each: as printed, by the paper's convention, and counted rightly.

Costs are those of ViT-S on one image in float32. `resolution_scaling.cost.gretsi2025` describes the convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from tabulate import tabulate
from torchvision.models import VisionTransformer

from resolution_scaling.cost.profiling import profile

VIT_S = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 6, "hidden_dim": 384, "mlp_dim": 1536}
"""ViT-S/16, as arguments of torchvision's `VisionTransformer`."""


@dataclass(frozen=True)
class Row:
    """One row of the table, as printed.

    Attributes:
        resolution: the heading of its half of the table, 9 or 11.
        method: the paper's words.
        memory_mb, gflops, top1: the printed numbers; ``top1`` is the ImageNet accuracy in percent.
        sizes: the arguments that differ from `VIT_S`. The paper gives those of the resolution rows (its "resolution 9"
            is a grid of 8 x 8 patches). We solved those of the model-scaling rows from the printed costs.
    """

    resolution: int
    method: str
    memory_mb: float
    gflops: float
    top1: float
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def grid(self) -> int:
        """Tokens along a side in the resolution rows of its half; the other rows of the half have the same FLOPs."""
        return {9: 8, 11: 11}[self.resolution]

    @property
    def scaling(self) -> str:
        """``"grid"``, or the method in `resolution_scaling.scale_model`."""
        methods = {"image_size": "grid", "hidden_dim": "hidden", "mlp_dim": "mlp", "num_layers": "depth"}
        return "hybrid" if self.sizes.keys() == {"hidden_dim", "mlp_dim"} else methods[next(iter(self.sizes))]

    def network(self) -> VisionTransformer:
        """The vision transformer of this row, on the meta device."""
        with torch.device("meta"):
            return VisionTransformer(**(VIT_S | self.sizes))


def _resolution(resolution: int, grid: int, patch_px: int, *printed: float) -> Row:
    sizes = {"image_size": grid * patch_px, "patch_size": patch_px}
    return Row(resolution, f"grid {grid} x {grid}, patches of {patch_px} px", *printed, sizes)


TABLE_1 = (
    Row(9, "hidden size 132", 25.9, 4.5, 47.54, {"hidden_dim": 132}),
    Row(9, "MLP 144", 66.6, 4.7, 68.89, {"mlp_dim": 144}),
    Row(9, "depth 4", 65.3, 5.0, 62.14, {"num_layers": 4}),
    Row(9, "hybrid, hidden size 216 and MLP 848", 39.4, 4.8, 67.64, {"hidden_dim": 216, "mlp_dim": 848}),
    _resolution(9, 8, 8, 26.1, 4.7, 69.16),
    _resolution(9, 8, 12, 32.0, 4.7, 69.77),
    _resolution(9, 8, 16, 40.3, 4.7, 70.64),
    _resolution(9, 8, 24, 63.9, 4.8, 68.55),
    _resolution(9, 8, 32, 97.0, 4.8, 69.31),
    Row(11, "hidden size 252", 50.7, 9.1, 71.02, {"hidden_dim": 252}),
    Row(11, "MLP 744", 72.1, 9.0, 73.68, {"mlp_dim": 744}),
    Row(11, "depth 7", 70.6, 8.7, 70.92, {"num_layers": 7}),
    _resolution(11, 11, 8, 30.4, 8.9, 73.21),
    _resolution(11, 11, 12, 41.6, 9.0, 73.48),
    _resolution(11, 11, 16, 57.2, 9.0, 73.23),
    _resolution(11, 11, 24, 101.8, 9.1, 72.89),
    _resolution(11, 11, 32, 164.4, 9.2, 72.98),
)


def compare(row: Row) -> dict[str, str]:
    """The three counts of one row, by the name of their column."""
    model = row.network()
    shape = (1, 3, model.image_size, model.image_size)
    convention, right = profile(model, shape, definition="gretsi2025"), profile(model, shape)
    return {
        "": row.method,
        "top-1 (paper), %": f"{row.top1:.2f}",
        "paper, 'MB'": f"{row.memory_mb:.1f}",
        "its convention": f"{convention.memory_bytes / 1e6:.1f}",
        "right, MB": f"{right.memory_bytes / 1e6:.1f}",
        "paper, GFLOPs": f"{row.gflops:.1f}",
        "its convention ": f"{convention.flops / 1e9:.1f}",
        "right, GFLOPs": f"{right.flops / 1e9:.2f}",
    }


def report() -> str:
    """Both halves of the table, as Markdown."""
    parts = [
        "# Table 1 of the resolution-scaling paper",
        "ViT-S on one ImageNet image (Morlier, Leonardon, Gripon, GRETSI 2025). *Paper*: as printed, with accuracy. "
        '*Its convention*: the arithmetic that gives the printed numbers (`definition="gretsi2025"`): MLPs count '
        "twice, the weights of the patch embedding once a patch, and memory is in numbers. *Right*: FLOPs are two a "
        "multiply-accumulate, memory is float32 weights and the largest operator.",
        "The sizes of the model-scaling rows are not in the paper; these give its costs.",
    ]
    for resolution in (9, 11):
        rows = [compare(row) for row in TABLE_1 if row.resolution == resolution]
        alignment = ("left", *("right",) * (len(rows[0]) - 1))
        parts += [
            f"## Resolution {resolution}",
            tabulate(rows, "keys", tablefmt="github", disable_numparse=True, colalign=alignment),
        ]
    return "\n\n".join(parts) + "\n"

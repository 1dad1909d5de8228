"""The arithmetic behind Table 1 of the paper, deduced from its printed numbers, to compare with the correct counts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn as nn
from tabulate import tabulate

from .cost_report import json_text


@dataclass(frozen=True)
class ViTSizes:
    """Sizes of a vision transformer.

    Attributes:
        image_px: side of the image.
        channels: channels of the image, ``c``.
        patch_px: side of a patch, ``p``.
        hidden: channels of a token, ``d``.
        classes: outputs of the head, ``C``.
        heads: attention heads of each block, ``h``.
        mlp: hidden units in the MLP of each block, ``m``.
    """

    image_px: int
    channels: int
    patch_px: int
    hidden: int
    classes: int
    heads: tuple[int, ...]
    mlp: tuple[int, ...]


@dataclass(frozen=True)
class Gretsi2025Report:
    """Costs by the paper's convention, of one image; `vit_cost` has the formulas.

    Attributes:
        model: name of the network's class.
        sizes: the sizes from which the costs follow.
        flops_by_part: FLOPs of the patch embedding, of projections, scores and softmax of attention, of the MLPs, and
            of the head.
        weight_bytes: one byte for each weight and position embedding; weights of the patch embedding count once for
            each patch.
        largest_operator_bytes: one byte for each number.
    """

    model: str
    sizes: ViTSizes
    flops_by_part: dict[str, int]
    weight_bytes: int
    largest_operator_bytes: int

    @property
    def flops(self) -> int:
        """The sum of `flops_by_part`; ``/ 1e9`` is the column "FLOPs (GFLOPs)"."""
        return sum(self.flops_by_part.values())

    @property
    def memory_bytes(self) -> int:
        """`weight_bytes` + `largest_operator_bytes`; ``/ 1e6`` is the column "Mémoire Requise (MBs)"."""
        return self.weight_bytes + self.largest_operator_bytes

    def by_operator(self) -> dict[str, int]:
        """A copy of `flops_by_part`."""
        return dict(self.flops_by_part)

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary, for JSON."""
        totals = {name: getattr(self, name) for name in ("flops", "memory_bytes")}
        return asdict(self) | {"definition": "gretsi2025"} | totals

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Format `to_dict` as JSON, and write it to ``path`` if that is given."""
        return json_text(self.to_dict(), path)

    def __str__(self) -> str:
        rows = [(part, f"{flops / 1e9:.3f}") for part, flops in self.flops_by_part.items()]
        rows += [("total GFLOPs", f"{self.flops / 1e9:.1f}"), ("memory, 'MB'", f"{self.memory_bytes / 1e6:.1f}")]
        table = tabulate(rows, (self.model, "gretsi2025"), disable_numparse=True, colalign=("left", "right"))
        return f"{table}\n\nBy the convention of the paper's Table 1, which counts MLPs twice; not the right cost."


def vit_cost(model: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Gretsi2025Report:
    """Compute the costs that Table 1 would print for a vision transformer.

    With ``n`` patches of ``p`` px of an image of ``r`` px and ``c`` channels (the paper has 3), ``S = n + 1`` tokens,
    ``d`` channels, and for each block ``h`` heads and ``m`` hidden units in the MLP::

        FLOPs  = 2 n c p² d + sum of (8 S d² + 4 S² d + 3 h S² + 8 S d m) + 2 d C
        memory = n c p² d + S d + sum of (4 d² + 2 d m) + max(c r² + S d, 4 S d, S (d + m))

    These give all seventeen rows to the printed digit. They are not the right costs: an MLP has ``4 S d m`` FLOPs, and
    the patch embedding has ``c p² d`` weights for any number of patches. Memory is in numbers, printed as bytes; the
    head, norms and biases do not count (section 3.2).

    Args:
        model: a vision transformer of torchvision or timm.
        shapes: the shape of its one input, ``(1, c, r, r)``.

    Raises:
        ValueError: the network is another, or the input is not one square image with the channels that it reads.
    """
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1 or shapes[0][2] != shapes[0][3]:
        raise ValueError(
            f"input_shape is {shapes}; definition='gretsi2025' is for one square image: pass (1, 3, 224, 224)"
        )
    sizes = _sizes(model, shapes[0][-1])
    if shapes[0][1] != sizes.channels:
        raise ValueError(
            f"input_shape is {shapes[0]}, but {type(model).__name__} reads images of {sizes.channels} channels: pass "
            f"(1, {sizes.channels}, {sizes.image_px}, {sizes.image_px})"
        )
    patches = (sizes.image_px // sizes.patch_px) ** 2
    tokens, hidden = patches + 1, sizes.hidden
    patch_weights = sizes.channels * sizes.patch_px**2 * hidden
    flops = {
        "patch embedding": 2 * patches * patch_weights,
        "projections of attention": len(sizes.heads) * 8 * tokens * hidden**2,
        "attention": len(sizes.heads) * 4 * tokens**2 * hidden,
        "softmax": sum(3 * heads * tokens**2 for heads in sizes.heads),
        "MLPs, counted twice": sum(8 * tokens * hidden * mlp for mlp in sizes.mlp),
        "head": 2 * hidden * sizes.classes,
    }
    weights = patches * patch_weights + tokens * hidden + sum(4 * hidden**2 + 2 * hidden * mlp for mlp in sizes.mlp)
    operators = (
        sizes.channels * sizes.image_px**2 + tokens * hidden,
        4 * tokens * hidden,
        tokens * (hidden + max(sizes.mlp)),
    )
    return Gretsi2025Report(type(model).__name__, sizes, flops, weights, max(operators))


def _sizes(model: Any, image_px: int) -> ViTSizes:
    try:
        if hasattr(model, "conv_proj"):  # torchvision
            patches, head = model.conv_proj, model.heads.head
            heads = tuple(block.self_attention.num_heads for block in model.encoder.layers)
            mlp = tuple(block.mlp[0].out_features for block in model.encoder.layers)
        else:  # timm
            patches, head = model.patch_embed.proj, model.head
            heads = tuple(block.attn.num_heads for block in model.blocks)
            mlp = tuple(block.mlp.fc1.out_features for block in model.blocks)
        return ViTSizes(
            image_px, patches.in_channels, patches.kernel_size[0], patches.out_channels, head.out_features, heads, mlp
        )
    except AttributeError as error:
        raise ValueError(
            f"model is a {type(model).__name__}; definition='gretsi2025' is for vision transformers of torchvision and "
            f"timm ({error}): use definition='standard'"
        ) from error

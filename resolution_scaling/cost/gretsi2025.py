"""The arithmetic behind Table 1 of the paper, as its printed numbers imply it: to set beside the right one."""

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
        image_px: side of the image; patch_px: side of a patch.
        hidden: channels of a token, ``d``; classes: outputs of the head, ``C``.
        heads, mlp: of each block, ``h`` and ``m``.
    """

    image_px: int
    patch_px: int
    hidden: int
    classes: int
    heads: tuple[int, ...]
    mlp: tuple[int, ...]


@dataclass(frozen=True)
class Gretsi2025Report:
    """Costs by the paper's convention, of one image; `vit_cost` has the formulas.

    Attributes:
        model: the class of the network.
        flops_by_part: of the patch embedding, the projections, scores and softmax of attention, the MLPs, the head.
        weight_bytes: one byte a weight, those of the patch embedding once a patch, with the embeddings of positions.
        largest_operator_bytes: one byte a number.
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
        """`flops_by_part`."""
        return dict(self.flops_by_part)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        totals = {name: getattr(self, name) for name in ("flops", "memory_bytes")}
        return asdict(self) | {"definition": "gretsi2025"} | totals

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`to_dict` as JSON text, also written to ``path`` if given."""
        return json_text(self.to_dict(), path)

    def __str__(self) -> str:
        rows = [(part, f"{flops / 1e9:.3f}") for part, flops in self.flops_by_part.items()]
        rows += [("total GFLOPs", f"{self.flops / 1e9:.1f}"), ("memory, 'MB'", f"{self.memory_bytes / 1e6:.1f}")]
        table = tabulate(rows, (self.model, "gretsi2025"), disable_numparse=True, colalign=("left", "right"))
        return f"{table}\n\nBy the convention of the paper's Table 1, which counts MLPs twice; not the right cost."


def vit_cost(model: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Gretsi2025Report:
    """What Table 1 would print for a vision transformer.

    With ``n`` patches of ``p`` px, ``S = n + 1`` tokens, ``d`` channels, and for each block ``h`` heads and ``m``
    channels in the MLP::

        FLOPs  = 2 n 3p² d + sum of (8 S d² + 4 S² d + 3 h S² + 8 S d m) + 2 d C
        memory = n 3p² d + S d + sum of (4 d² + 2 d m) + max(3r² + S d, 4 S d, S (d + m))

    These give all seventeen rows to the printed digit. They are not the right cost: the MLP is ``4 S d m``, and the
    patch embedding has ``3p² d`` weights, however many patches it is applied to. Memory is in numbers, printed as
    bytes; the head, norms and biases do not count (section 3.2).

    Args:
        model: a vision transformer of torchvision or timm.
        shapes: of its one input, ``(1, 3, r, r)``.

    Raises:
        ValueError: the network is not such, or the input is another.
    """
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][:2] != (1, 3) or shapes[0][2] != shapes[0][3]:
        raise ValueError(
            f"input_shape is {shapes}; definition='gretsi2025' is of one square image: pass (1, 3, 224, 224)"
        )
    sizes = _sizes(model, shapes[0][-1])
    patches = (sizes.image_px // sizes.patch_px) ** 2
    tokens, hidden = patches + 1, sizes.hidden
    patch_weights = 3 * sizes.patch_px**2 * hidden
    flops = {
        "patch embedding": 2 * patches * patch_weights,
        "projections of attention": len(sizes.heads) * 8 * tokens * hidden**2,
        "attention": len(sizes.heads) * 4 * tokens**2 * hidden,
        "softmax": sum(3 * heads * tokens**2 for heads in sizes.heads),
        "MLPs, counted twice": sum(8 * tokens * hidden * mlp for mlp in sizes.mlp),
        "head": 2 * hidden * sizes.classes,
    }
    weights = patches * patch_weights + tokens * hidden + sum(4 * hidden**2 + 2 * hidden * mlp for mlp in sizes.mlp)
    operators = (3 * sizes.image_px**2 + tokens * hidden, 4 * tokens * hidden, tokens * (hidden + max(sizes.mlp)))
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
        return ViTSizes(image_px, patches.kernel_size[0], patches.out_channels, head.out_features, heads, mlp)
    except AttributeError as error:
        raise ValueError(
            f"model is a {type(model).__name__}, whose sizes are not where those of vision transformers of torchvision "
            f"and timm are ({error}); definition='gretsi2025' is of those: use definition='standard'"
        ) from error

"""The masks of NNI's pruners: which parameters they keep."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
import torch.nn as nn
from torch.nn.utils import prune

Masks = dict[str, dict[str, torch.Tensor | None]]
"""Name of a module -> name of a parameter -> ones where it is kept and zeros where it is pruned, in its shape."""


def check_masks(masks: Masks, config_list: list[Any]) -> None:
    """Check that a configuration selected layers to prune.

    Raises:
        ValueError: it selected none.
    """
    if not masks:
        raise ValueError(f"config_list fits no layer of the network: {config_list!r}")


def fix_masks(network: nn.Module, masks: Masks) -> None:
    """Keep pruned weights at zero, also during later training."""
    for name, of_module in masks.items():
        module = network.get_submodule(name)
        for parameter, mask in of_module.items():
            if mask is not None and getattr(module, parameter, None) is not None:
                prune.custom_from_mask(module, parameter, mask)


def masks_of_convolutions(network: nn.Module, masks: Masks) -> Masks:
    """From masks of batch norms, the masks of the convolutions before them: NNI 3.0's speed-up starts from these only.

    Raises:
        ValueError: a batch norm does not directly follow a convolution or a linear layer.
    """
    made: Masks = {}
    for node in torch.fx.symbolic_trace(network).graph.nodes:
        if node.op != "call_module" or node.target not in masks:
            continue
        before = node.args[0]
        layer = network.get_submodule(before.target) if before.op == "call_module" else None
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            raise ValueError(
                f"batch norm {node.target} does not follow a convolution from which its channels could be removed: "
                "exclude it from the config_list"
            )
        kept: Any = masks[node.target]["weight"]
        weight = kept.reshape(-1, *[1] * (layer.weight.ndim - 1)).expand_as(layer.weight).clone()
        made[before.target] = {"weight": weight, "bias": None if layer.bias is None else kept.clone()}
    return made

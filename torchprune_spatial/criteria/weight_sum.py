"""Sum of absolute weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from ..graph.groups import members_that_produce, reduce_over_members
from ..graph.layers import CHANNEL_LAYERS
from ..graph.outputs import output_layers_in
from ..graph.private_names import graph_of
from .base import ChannelImportance
from .registry import register_criterion


@register_criterion
class WeightSumImportance(ChannelImportance):
    """Keep the filters with the largest sum of absolute weights.

    Li, Kadav, Durdanovic, Samet, Graf, "Pruning filters for efficient convnets", ICLR 2017, section 3.1:
    ``s_j = sum |F_j|``. Only the weights of the filter count, not its bias, its norm or the layers after it, which
    ``tp.importance.GroupMagnitudeImportance`` includes. If filters of several layers must be removed together (residual
    additions, depthwise convolutions), ``group_reduction`` combines their scores; for residual blocks, the paper uses
    the score of the shortcut.

    It needs no data. The outputs of the network are found in Torch-Pruning's graph; a feature map that is both returned
    and used inside the network is not recognized as an output.

    Args:
        group_reduction, normalizer: see `ChannelImportance`.
    """

    name: ClassVar[str] = "weight_sum"

    without_layers: ClassVar[str] = "no convolution or linear layer produces these channels"

    def output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        """The layers that produce outputs of the network, as far as Torch-Pruning's graph shows."""
        return output_layers_in(graph)

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Sums of ``|weight|`` of the filters."""
        members = members_that_produce(group, {m for m in graph_of(group).module2node if isinstance(m, CHANNEL_LAYERS)})
        sums = {member.layer: _filter_sums(member.layer).unsqueeze(0) for member in members}
        values = reduce_over_members(members, sums, self.group_reduction, len(group[0].idxs))
        return None if values is None else (self.normalized(values[0]), values[0])


def _filter_sums(layer: Any) -> torch.Tensor:
    """Sum of the absolute weights of each filter of a convolution or linear layer: ``[out_channels]`` float64."""
    weight = layer.weight.detach().double().abs().cpu()
    if not getattr(layer, "transposed", False):
        return weight.flatten(1).sum(1)
    return weight.flatten(2).sum(2).unflatten(0, (layer.groups, -1)).sum(1).flatten()  # [in, out / groups, ...]

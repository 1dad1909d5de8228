"""Taylor expansion by region."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch_pruning.dependency import DependencyGraph, Group

from torchprune_spatial.calibration.regions import RegionMasks, regions_from_mask
from torchprune_spatial.criteria.base import ChannelImportance
from torchprune_spatial.graph.groups import members_that_read, reduce_over_members
from torchprune_spatial.graph.layers import CHANNEL_LAYERS
from torchprune_spatial.graph.outputs import output_layers_in

from .union import Scored, union


class RegionTaylorImportance(ChannelImportance):
    """First-order Taylor expansion of the loss by region: ``|sum_cells activation x gradient|``, summed over images.

    After Molchanov et al., "Pruning convolutional neural networks for resource efficient inference", ICLR 2017,
    equation 8, with a sum over each region in place of one over all cells.

    Args:
        network: the network to prune.
        batches: ``(inputs, targets, masks)``.
        split_loss: whether the loss is split by region instead, and the gradient of each part multiplied with all
            cells.
    """

    def __init__(self, network: nn.Module, batches: Iterable, split_loss: bool = False):
        super().__init__(group_reduction="sum")
        self.split_loss = split_loss
        self.sums: dict[nn.Module, torch.Tensor] = {}
        device = next(network.parameters()).device
        for inputs, targets, masks in batches:
            regions = RegionMasks(regions_from_mask(masks).to(device))
            with _inputs_of_layers(network) as read:
                outputs = network(inputs.to(device))
            read = {layer: x for layer, x in read.items() if x.requires_grad}
            losses = F.binary_cross_entropy_with_logits(outputs, targets.to(device), reduction="none")
            for region in range(2):
                loss = self._loss(losses, regions.planes[:, region : region + 1])
                gradients = torch.autograd.grad(loss, [*read.values()], retain_graph=True)
                for (layer, x), gradient in zip(read.items(), gradients, strict=True):
                    terms = (x.detach() * gradient).flatten(2)
                    if not self.split_loss:
                        terms = terms * regions.weights(len(x), tuple(x.shape[2:]))[:, 1, region : region + 1]
                    sums = terms.sum(2).abs().sum(0, dtype=torch.float64).cpu()
                    self.sums.setdefault(layer, sums.new_zeros(2, len(sums)))[region] += sums

    def _loss(self, losses: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        if not self.split_loss:
            return losses.mean((1, 2, 3)).sum()
        return ((losses * pixels).sum((1, 2, 3)) / pixels.sum((1, 2, 3)).clamp_min(1)).sum()

    def output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        """The layers that produce outputs of the network."""
        return output_layers_in(graph)

    def score(self, group: Group) -> Scored | None:
        """Scores that keep the channels of the largest terms in each region."""
        members = members_that_read(group, self.sums)
        values = reduce_over_members(members, self.sums, self.group_reduction, len(group[0].idxs))
        return None if values is None else union(values)


@contextmanager
def _inputs_of_layers(network: nn.Module) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """The inputs of convolutions and linear layers in the calls inside the context, by layer."""
    inputs: dict[nn.Module, torch.Tensor] = {}
    layers = [layer for layer in network.modules() if isinstance(layer, CHANNEL_LAYERS)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: inputs.update({layer: args[0]})) for layer in layers]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()

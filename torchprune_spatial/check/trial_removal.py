"""The trial removal: remove one channel, run the network, compare the shapes of its outputs, put the channel back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import Dependency, DependencyGraph, Group

from resolution_scaling.ground.calls import Forward, sentence, tensors_in
from resolution_scaling.ground.put_back import restoring_attributes

from ..graph.attention import update_attention
from ..graph.private_names import graph_of, parameter_name_in


class TrialRemoval:
    """Removes a channel of a group from a network, runs the network, and puts the channel back.

    Args:
        model: the network, in evaluation mode.
        forward: ``(model, inputs)`` -> outputs.
        inputs: inputs of the network.
    """

    def __init__(self, model: nn.Module, forward: Forward, inputs: Any):
        self.model, self.forward, self.inputs = model, forward, inputs
        self._modules_of_model = set(model.modules())
        self._shapes_before = self._shapes()

    @torch.no_grad()
    def failure(self, group: Group, channel_groups: int) -> str | None:
        """What goes wrong when one channel of each channel group is removed, in words; None if nothing does.

        Args:
            group: a group of the network.
            channel_groups: number of Torch-Pruning's ``channel_groups`` in the group, 1 if it has none.
        """
        graph, dep, idxs = graph_of(group), group[0].dep, list(group[0].idxs)
        with restoring_attributes(self.model):
            try:
                removed = graph.get_pruning_group(dep.target.module, dep.handler, idxs[:: len(idxs) // channel_groups])
                if not graph.check_pruning_group(removed):
                    return None
                for dep, idxs in removed:
                    self._remove(dep, idxs, graph)
                update_attention(self.model, {})
                shapes = self._shapes()
            except Exception as error:
                return f"with one channel less the network fails ({sentence(error)})"
        changed = [f"{old} to {new}" for old, new in zip(self._shapes_before, shapes, strict=True) if old != new]
        return f"with one channel less the output changes from {', '.join(changed)}" if changed else None

    def _remove(self, dep: Dependency, idxs: list[int], graph: DependencyGraph) -> None:
        if isinstance(dep.target.module, nn.Parameter):
            path, _, name = parameter_name_in(graph, dep.target.module).rpartition(".")
            setattr(self.model.get_submodule(path), name, dep(idxs))
        elif dep.target.module in self._modules_of_model:  # not the graph's own operations, which keep a state
            dep(idxs)

    @torch.no_grad()
    def _shapes(self) -> list[tuple[int, ...]]:
        return [tuple(tensor.shape) for tensor in tensors_in(self.forward(self.model, self.inputs))]

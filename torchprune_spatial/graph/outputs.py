"""Which layers write the outputs of a network: their channels must not be pruned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph
from torch_pruning.dependency.node import Node

from resolution_scaling.ground.calls import tensors_in

from .groups import CHANNEL_LAYERS


def _nothing(_: Any) -> Any:
    """What the autograd graph keeps of a tensor: only its nodes are looked at."""
    return None


class OutputTrace:
    """Finds the layers whose channels are the network's outputs, so that they are never pruned.

    Torch-Pruning marks an output only where the last operation is not a layer, and loses it where another output is
    computed from it. So the autograd graph is followed instead, from each output down to the first convolution or
    linear layer on every path. `recording` keeps the graph without its activations: the forward costs no more memory
    than under ``no_grad``.
    """

    def __init__(self, layers: Iterable[nn.Module]):
        self._layers = list(layers)
        self._layer_of: dict[torch.autograd.graph.Node, nn.Module] = {}

    @contextlib.contextmanager
    def recording(self, model: nn.Module) -> Iterator[None]:
        """Record which layer made which node of the autograd graph. Frozen parameters take part; all is restored."""
        frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
        handles = []
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            handles = [layer.register_forward_hook(self._record) for layer in self._layers]
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_nothing, _nothing):
                yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in frozen:
                parameter.requires_grad_(False)

    def _record(self, layer: nn.Module, args: tuple[Any, ...], output: object) -> None:
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                self._layer_of[tensor.grad_fn] = layer

    def layers_behind(self, outputs: object) -> set[nn.Module]:
        """Layers whose output channels reach an output of the network without passing through another layer."""
        found, seen = set(), set()
        pending = [tensor.grad_fn for tensor in tensors_in(outputs)]
        while pending:
            node = pending.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            layer = self._layer_of.get(node)
            if layer is not None:
                found.add(layer)
            if layer is None or _is_depthwise(layer):
                pending.extend(parent for parent, _ in node.next_functions)
        return found


def output_layers_in(graph: DependencyGraph) -> set[nn.Module]:
    """Layers that write outputs as far as Torch-Pruning's graph shows: without running the network again.

    A feature map that is returned and also used inside the network is not seen.
    """
    return {
        layer
        for layer, node in graph.module2node.items()
        if isinstance(layer, CHANNEL_LAYERS) and _ends_in_output(node)
    }


def _ends_in_output(node: Node) -> bool:
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        if node.type == tp.ops.OPTYPE.OUTPUT or not node.outputs:
            return True
        for following in node.outputs:
            stops = isinstance(following.module, CHANNEL_LAYERS) and not _is_depthwise(following.module)
            if following not in seen and not stops:
                seen.add(following)
                pending.append(following)
    return False


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels > 1

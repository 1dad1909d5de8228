"""Which layers produce the outputs of a network: their channels must not be pruned."""

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
from resolution_scaling.ground.put_back import requiring_gradients

from .channel_graph import ChannelGraph
from .layers import CHANNEL_LAYERS, is_depthwise


def _nothing(_: Any) -> Any:
    """Stands in the autograd graph for a saved tensor: only the graph's nodes are looked at."""
    return None


class OutputTrace:
    """Finds the layers whose channels are outputs of the network.

    Torch-Pruning marks an output only where the last operation is not a layer, and loses the mark where another output
    is computed from this one. Therefore the autograd graph is followed instead, from each output back to the first
    layer on every path; depthwise convolutions are passed over. `recording` keeps the graph without its activations, so
    that the forward pass takes no more memory than under ``no_grad``.

    Args:
        layers: the layers that can be found.
    """

    def __init__(self, layers: Iterable[nn.Module]):
        self._layers = list(layers)
        self._layer_of: dict[torch.autograd.graph.Node, nn.Module] = {}

    @contextlib.contextmanager
    def recording(self, model: nn.Module) -> Iterator[None]:
        """Record inside which layer makes which node of the autograd graph.

        Frozen parameters require gradients inside, because the graph lacks them otherwise; afterwards the model is as
        it was.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(requiring_gradients(model.parameters()))
            for layer in self._layers:
                stack.callback(layer.register_forward_hook(self._record).remove)
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_nothing, _nothing))
            yield

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
            if layer is None or is_depthwise(layer):
                pending.extend(parent for parent, _ in node.next_functions)
        return found


def output_layers_in(graph: DependencyGraph) -> set[nn.Module]:
    """Layers that produce outputs, as far as Torch-Pruning's graph shows. The network is not run.

    A feature map that is returned, and that another layer reads too, is not seen. Groups of a `ChannelGraph` never hold
    outputs: for such a graph there are none.
    """
    if isinstance(graph, ChannelGraph):
        return set()
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
            stops = isinstance(following.module, CHANNEL_LAYERS) and not is_depthwise(following.module)
            if following not in seen and not stops:
                seen.add(following)
                pending.append(following)
    return False

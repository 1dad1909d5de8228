"""The zeroing test: set channels to zero where they are produced, and compare what the layers after them read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from ..graph.layers import CHANNEL_LAYERS, channel_dimension, watching_inputs
from ..graph.private_names import graph_of, parameter_name_in, roots_of

Places = dict[nn.Module | nn.Parameter, set[int]]
"""Channels, by the layer or parameter that reads or produces them."""

Zeroed = dict[nn.Module | nn.Parameter, list[int]]
"""Channels that are set to zero, by the layer or parameter that produces them."""

NORMS_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm)


class ZeroingTest:
    """Sets channels to zero where they are produced, and compares what the layers that read channels then read.

    Every convolution and linear layer returns its output of the first run again. A change therefore reaches the next of
    these layers and no further: channels that become zero later in the network do not count.

    Args:
        graph: Torch-Pruning's graph of the network, which is in evaluation mode.
        forward: ``(model, inputs)`` -> outputs.
        inputs: two inputs of the network.
    """

    def __init__(self, graph: DependencyGraph, forward: Callable[[nn.Module, Any], Any], inputs: Sequence[Any]):
        self.graph, self.forward, self.inputs = graph, forward, inputs
        self.names = {module: name for name, module in graph.model.named_modules()}
        self._outputs: list[dict[nn.Module, list[torch.Tensor]]] = [{}, {}]
        self._unchanged = [self._run(i, None) for i in (0, 1)]

    def failure(self, group: Group, channels: int) -> str | None:
        """What Torch-Pruning gets wrong about some of the group's channels, in a sentence, or None."""
        dep, readers = group[0].dep, list(self._readers(group))
        if failure := self._out_of_range(group):
            return failure
        read_as: dict[int, Places] = {root: {} for root in roots_of(group[0])}
        for reader, idxs, roots in readers:
            for idx, root in zip(idxs, roots, strict=True):
                if root in read_as and reader in self._unchanged[0] and self._unchanged[0][reader][idx] > 0:
                    read_as[root].setdefault(reader, set()).add(idx)
        nonzero = [root for root in read_as if read_as[root]]
        steps = max(1, min(channels, len(nonzero)) - 1)
        chosen = list(dict.fromkeys(nonzero[i * (len(nonzero) - 1) // steps] for i in range(steps + 1) if nonzero))
        for root in chosen:
            alone = graph_of(group).get_pruning_group(dep.target.module, dep.handler, [root])
            if failure := self._failure(root, read_as[root], alone):
                return failure
        if nonzero:  # not a first or last channel, which many wrong mappings leave in place
            root = nonzero[len(nonzero) // 3]
            return self._producer_failure(graph_of(group).get_pruning_group(dep.target.module, dep.handler, [root]))
        return None

    def _out_of_range(self, group: Group) -> str | None:
        for item in group.items:
            module, produces = item.dep.target.module, self.graph.is_out_channel_pruning_fn(item.dep.handler)
            if isinstance(module, nn.Parameter):
                dim, place = item.dep.target.pruning_dim, f"in {parameter_name_in(self.graph, module)!r}"
                count, advice = module.shape[dim], f" along dimension {dim} (see the pruner's unwrapped_parameters)"
            elif module in self.names:
                count = (self.graph.get_out_channels if produces else self.graph.get_in_channels)(module)
                place, advice = f"at the {'output' if produces else 'input'} of {self.names[module]!r}", ""
            else:
                continue
            if count is not None and max(item.idxs, default=0) >= count:
                return f"Torch-Pruning looks for channel {max(item.idxs)} {place}, which has {count}{advice}"
        return None

    def _failure(self, root: int, scored: Places, alone: Group) -> str | None:
        removed: Places = {}
        for layer, idxs, _ in self._readers(alone):
            removed.setdefault(layer, set()).update(idxs)
        for reader, together in scored.items():
            if together - removed.get(reader, set()):
                return (
                    f"Torch-Pruning maps channel {root} to inputs {sorted(together)} of {self.names[reader]!r} among "
                    f"all channels, but to {sorted(removed.get(reader, set()))} alone"
                )
        zeroed, others = self._produced(alone), None
        for reader, now in self._run(0, zeroed).items():
            before, is_zero = self._unchanged[0][reader], now <= 1e-6 * self._unchanged[0][reader].max()
            for idx in sorted(removed.get(reader, set())):
                if not is_zero[idx]:
                    others = self._run(1, zeroed) if others is None else others
                    if not torch.isclose(others[reader][idx], now[idx], rtol=1e-6):  # else a constant, as sigmoid(0)
                        return (
                            f"with channel {root} at zero, input {idx} of {self.names[reader]!r} should vanish, "
                            "but does not"
                        )
            if any(isinstance(item.dep.target.module, NORMS_OVER_CHANNELS) for item in alone.items):
                continue  # the statistics change, so that a ReLU can set other channels to zero
            is_zero[list(removed.get(reader, set()))] = False
            if others_at_zero := (is_zero & (before > 1e-3 * before.mean())).nonzero().flatten().tolist():
                return (
                    f"with channel {root} at zero, input {others_at_zero[0]} of {self.names[reader]!r} vanishes, "
                    "but Torch-Pruning would keep it"
                )
        return None

    def _producer_failure(self, alone: Group) -> str | None:
        """What is wrong with a layer of the group whose channel is not that of the other producers; None if nothing is.

        Such a layer gates another channel: `_failure` misses it, because there both factors of the product are zero.
        """
        produced = {m: idxs for m, idxs in self._produced(alone).items() if isinstance(m, CHANNEL_LAYERS)}
        removed = [(reader, idxs) for reader, idxs, _ in self._readers(alone)]
        for producer, channels in produced.items() if len(produced) > 1 else ():
            now = self._run(0, {producer: channels})
            changed = {
                reader: ~torch.isclose(now[reader], before, rtol=1e-4, atol=1e-6 * before.max().item())
                for reader, before in self._unchanged[0].items()
            }
            if any(flags.any() for flags in changed.values()) and not any(
                changed[reader][idxs].any() for reader, idxs in removed if reader in changed
            ):
                return (
                    f"channel {channels[0]} of {self.names[producer]!r} does not reach the inputs that Torch-Pruning "
                    "removes with it"
                )
        return None

    def _readers(self, group: Group) -> Iterator[tuple[nn.Module, list[int], list[int]]]:
        """Layers that read the group's channels: ``(layer, its input channels, their root channels)``."""
        for item in group.items:
            layer = item.dep.target.module
            if isinstance(layer, CHANNEL_LAYERS) and self.graph.is_in_channel_pruning_fn(item.dep.handler):
                yield layer, list(item.idxs), roots_of(item)

    def _produced(self, group: Group) -> Zeroed:
        """Channels of a group, by the layers and parameters that produce them."""
        return {
            item.dep.target.module: list(item.idxs)
            for item in group.items
            if isinstance(item.dep.target.module, nn.Parameter)
            or (item.dep.target.module in self.names and self.graph.is_out_channel_pruning_fn(item.dep.handler))
        }

    @torch.no_grad()
    def _run(self, number: int, zeroed: Zeroed | None) -> dict[nn.Module, torch.Tensor]:
        """What each layer that reads channels reads: the mean of ``|input|`` by channel, ``[channels]``.

        Args:
            number: of the inputs.
            zeroed: channels to set to zero. None for the first run, which keeps the outputs of the layers.
        """
        reads: dict[nn.Module, torch.Tensor] = {}
        calls = dict.fromkeys(self.names, 0)

        def read(layer: nn.Module, x: torch.Tensor) -> None:
            reads[layer] = reads.get(layer, 0) + x.abs().transpose(channel_dimension(layer), 0).flatten(1).mean(1)

        def produce(layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if isinstance(layer, CHANNEL_LAYERS):
                if zeroed is None:
                    self._outputs[number].setdefault(layer, []).append(output.clone())
                output = self._outputs[number][layer][calls[layer]].clone()  # an activation may change it in place
                calls[layer] += 1
            if zeroed and layer in zeroed:
                first = output[0] if isinstance(output, tuple) else output
                first.transpose(channel_dimension(layer), 0)[zeroed[layer]] = 0
            return output

        with contextlib.ExitStack() as stack:
            for parameter, idxs in (zeroed or {}).items():
                if isinstance(parameter, nn.Parameter):
                    values = parameter.data.transpose(self.graph.module2node[parameter].pruning_dim, 0)
                    stack.callback(values.index_copy_, 0, torch.tensor(idxs, device=values.device), values[idxs])
                    values[idxs] = 0
            stack.enter_context(watching_inputs([m for m in self.names if isinstance(m, CHANNEL_LAYERS)], read))
            for module in self.names:
                if isinstance(module, CHANNEL_LAYERS) or (zeroed and module in zeroed):
                    stack.callback(module.register_forward_hook(produce).remove)
            self.forward(self.graph.model, self.inputs[number])
        return reads

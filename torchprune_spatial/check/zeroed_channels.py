"""The kill test: where does a channel of the network really go, and does Torch-Pruning know?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from ..graph.layers import CHANNEL_LAYERS
from ..graph.private_names import graph_of, parameter_name_in

Places = dict[nn.Module | nn.Parameter, set[int]]
"""Channels, by the layer or parameter that reads or writes them."""

CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
)

NORMS_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm)


class KillTest:
    """Sets channels to zero where they are written, and watches the inputs of the layers that read channels.

    Each convolution and linear layer gives its output of the first run again, so that a change goes exactly as far as
    the next of these layers: channels that fall silent further down do not count.

    Args:
        graph: Torch-Pruning's graph of the network, in evaluation mode.
        forward: ``(model, inputs)`` -> outputs.
        inputs: two inputs of the network.
    """

    def __init__(self, graph: DependencyGraph, forward: Callable[[nn.Module, Any], Any], inputs: Sequence[Any]):
        self.graph, self.forward, self.inputs = graph, forward, inputs
        self.names = {module: name for name, module in graph.model.named_modules()}
        self._outputs: list[dict[nn.Module, list[torch.Tensor]]] = [{}, {}]
        self._alive = [self._run(i, None) for i in (0, 1)]

    def failure(self, group: Group, channels: int) -> str | None:
        """What Torch-Pruning gets wrong about some of the group's channels, in a sentence, or None."""
        dep, readers = group[0].dep, list(self._readers(group))
        if failure := self._out_of_range(group):
            return failure
        read_as: dict[int, Places] = {root: {} for root in group[0].root_idxs}
        for reader, idxs, roots in readers:
            for idx, root in zip(idxs, roots, strict=True):
                if root in read_as and reader in self._alive[0] and self._alive[0][reader][idx] > 0:
                    read_as[root].setdefault(reader, set()).add(idx)
        alive = [root for root in read_as if read_as[root]]
        steps = max(1, min(channels, len(alive)) - 1)
        chosen = list(dict.fromkeys(alive[i * (len(alive) - 1) // steps] for i in range(steps + 1) if alive))
        for root in chosen:
            alone = graph_of(group).get_pruning_group(dep.target.module, dep.handler, [root])
            if failure := self._failure(root, read_as[root], alone):
                return failure
        if alive:  # not a first or last channel, which many wrong mappings leave in place
            root = alive[len(alive) // 3]
            return self._writer_failure(graph_of(group).get_pruning_group(dep.target.module, dep.handler, [root]))
        return None

    def _out_of_range(self, group: Group) -> str | None:
        for item in group.items:
            module, writes = item.dep.target.module, self.graph.is_out_channel_pruning_fn(item.dep.handler)
            if isinstance(module, nn.Parameter):
                dim, place = item.dep.target.pruning_dim, f"in {parameter_name_in(self.graph, module)!r}"
                count, advice = module.shape[dim], f" along dimension {dim} (see the pruner's unwrapped_parameters)"
            elif module in self.names:
                count = (self.graph.get_out_channels if writes else self.graph.get_in_channels)(module)
                place, advice = f"at the {'output' if writes else 'input'} of {self.names[module]!r}", ""
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
        killed, others = self._run(0, self._silenced(alone)), None
        for reader, now in killed.items():
            before, gone = self._alive[0][reader], now <= 1e-6 * self._alive[0][reader].max()
            for idx in sorted(removed.get(reader, set())):
                if not gone[idx]:
                    others = self._run(1, self._silenced(alone)) if others is None else others
                    if not torch.isclose(others[reader][idx], now[idx], rtol=1e-6):  # else a constant, as sigmoid(0)
                        return (
                            f"with channel {root} at zero, input {idx} of {self.names[reader]!r} should vanish, "
                            "but does not"
                        )
            if any(isinstance(item.dep.target.module, NORMS_OVER_CHANNELS) for item in alone.items):
                continue  # other channels change with the statistics, and may fall silent behind a ReLU
            gone[list(removed.get(reader, set()))] = False
            if len(lost := (gone & (before > 1e-3 * before.mean())).nonzero().flatten().tolist()):
                return (
                    f"with channel {root} at zero, input {lost[0]} of {self.names[reader]!r} vanishes, "
                    "but Torch-Pruning would keep it"
                )
        return None

    def _writer_failure(self, alone: Group) -> str | None:
        """A layer that does not write what the others write: a gate of another channel, which zero times zero hides."""
        written = {m: idxs for m, idxs in self._silenced(alone).items() if isinstance(m, CHANNEL_LAYERS)}
        removed = [(reader, idxs) for reader, idxs, _ in self._readers(alone)]
        for writer, channels in written.items() if len(written) > 1 else ():
            now = self._run(0, {writer: channels})
            changed = {
                reader: ~torch.isclose(now[reader], before, rtol=1e-4, atol=1e-6 * before.max().item())
                for reader, before in self._alive[0].items()
            }
            if any(flags.any() for flags in changed.values()) and not any(
                changed[reader][idxs].any() for reader, idxs in removed if reader in changed
            ):
                return (
                    f"channel {channels[0]} of {self.names[writer]!r} does not reach the inputs that Torch-Pruning "
                    "removes with it"
                )
        return None

    def _readers(self, group: Group) -> Iterator[tuple[nn.Module, list[int], list[int]]]:
        """Layers that read the group's channels, the channels, and the root channels that they are."""
        for item in group.items:
            layer = item.dep.target.module
            if isinstance(layer, CHANNEL_LAYERS) and self.graph.is_in_channel_pruning_fn(item.dep.handler):
                yield layer, list(item.idxs), list(item.root_idxs)

    def _silenced(self, group: Group) -> dict[nn.Module | nn.Parameter, list[int]]:
        """Channels of a group, by the layers and parameters that write them."""
        return {
            item.dep.target.module: list(item.idxs)
            for item in group.items
            if isinstance(item.dep.target.module, nn.Parameter)
            or (item.dep.target.module in self.names and self.graph.is_out_channel_pruning_fn(item.dep.handler))
        }

    @torch.no_grad()
    def _run(
        self, which: int, killed: dict[nn.Module | nn.Parameter, list[int]] | None
    ) -> dict[nn.Module, torch.Tensor]:
        """Mean of |input| by channel of each layer that reads channels, with these channels at zero."""
        reads: dict[nn.Module, torch.Tensor] = {}
        calls = dict.fromkeys(self.names, 0)
        zeroed = killed or {}

        def read(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], torch.Tensor):
                reads[layer] = reads.get(layer, 0) + args[0].abs().transpose(channel_dim(layer), 0).flatten(1).mean(1)

        def write(layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if isinstance(layer, CHANNEL_LAYERS):
                if killed is None:
                    self._outputs[which].setdefault(layer, []).append(output.clone())
                output = self._outputs[which][layer][calls[layer]].clone()  # an activation may change it in place
                calls[layer] += 1
            if layer in zeroed:
                first = output[0] if isinstance(output, tuple) else output
                first.transpose(channel_dim(layer), 0)[zeroed[layer]] = 0
            return output

        with contextlib.ExitStack() as stack:
            for parameter, idxs in zeroed.items():
                if isinstance(parameter, nn.Parameter):
                    values = parameter.data.transpose(self.graph.module2node[parameter].pruning_dim, 0)
                    stack.callback(values.index_copy_, 0, torch.tensor(idxs, device=values.device), values[idxs])
                    values[idxs] = 0
            for module in self.names:
                if isinstance(module, CHANNEL_LAYERS):
                    stack.callback(module.register_forward_pre_hook(read).remove)
                if isinstance(module, CHANNEL_LAYERS) or module in zeroed:
                    stack.callback(module.register_forward_hook(write).remove)
            self.forward(self.graph.model, self.inputs[which])
        return reads


def channel_dim(layer: nn.Module) -> int:
    """The dimension of a layer's inputs and outputs that the channels run along."""
    return 1 if isinstance(layer, CHANNELS_FIRST) or type(layer).__name__.endswith("2d") else -1

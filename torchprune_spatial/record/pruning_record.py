"""What pruning removed: which original channels every layer keeps, as indices, masks, a table and a plot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
import torch_pruning as tp
from tabulate import tabulate
from torch_pruning.dependency import DependencyGraph, Group

from resolution_scaling.ground.calls import Forward, call_model

from ..graph.attention import update_attention
from ..graph.channel_graph import ChannelGraph
from ..graph.private_names import graph_of
from ..residuals.channel_scatter import dead_channel_groups
from .channel_bars import channel_bars
from .flops import flops_by_module, parameters_by_module
from .saving import save_tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
"""Layers that `PruningRecord.plot` leaves out, because they keep the channels of the layer before them."""


class PruningRecord:
    """Prunes like ``pruner.step()``, and keeps the original index of every channel that remains.

    After several steps, too, indices are those of the network as it was when the record was made.

    Args:
        model: the network before pruning.
        example_inputs: as for Torch-Pruning. If given, FLOPs and the speed-up are reported too; they are counted
            without running the network.
        forward: ``(model, example_inputs)`` -> outputs, if the network is not called in Torch-Pruning's way.

    Attributes:
        kept_out: by layer, in the order of the network, the original indices of the output channels that it keeps,
            ascending, ``[channels kept]`` int64. Layers are convolutions, linear layers, norms and whatever else
            Torch-Pruning prunes; customized layers are included from the first step on.
        kept_in: the same for input channels. Layers whose input channels are pruned with their output channels (norms,
            depthwise convolutions) are missing.

    Example:
        >>> record = PruningRecord(model, example_inputs)
        >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance, pruning_ratio=0.7)
        >>> record.step(pruner)  # instead of pruner.step()
        >>> record.kept_out["encoder.0"]
        tensor([0, 3, 4])
        >>> print(record)  # a table of all the layers
    """

    def __init__(self, model: nn.Module, example_inputs: Any = None, forward: Forward | None = None):
        self.model = model
        self.kept_out: dict[str, torch.Tensor] = {}
        self.kept_in: dict[str, torch.Tensor] = {}
        self._example_inputs, self._forward = example_inputs, forward or call_model
        self._before = self._after = self._costs()
        self._steps = 0
        self._begin(DependencyGraph())

    def step(self, pruner: tp.pruner.BasePruner, fold: Callable[[Group], None] | None = None) -> None:
        """Do one step of the pruner, and record it.

        Afterwards the channels of mixed residual additions that no branch feeds any more are removed too, and the sizes
        that attention modules hold are updated. Frozen parameters stay frozen.

        Args:
            pruner: a pruner of the same model.
            fold: called with each group of channels just before they are removed: it changes the next layers so that
                they make up for these channels. `SpatialMaskImportance.fold` is one.

        Raises:
            ValueError: the pruner is for another model.
        """
        if pruner.model is not self.model:
            raise ValueError("pruner is for another model than this record: make both for the same model")
        if self._steps == 0:
            self._begin(pruner.DG)  # which knows the customized layers too
        self._steps += 1
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        names = {module: name for name, module in self.model.named_modules()}
        for group in pruner.step(interactive=True):
            if fold is not None:
                fold(group)
            self._prune(group, names)
        for group in dead_channel_groups(pruner.DG):
            self._prune(group, names)
        if not isinstance(pruner.DG, ChannelGraph) or pruner.num_heads:
            update_attention(self.model, pruner.num_heads)
        for name, parameter in self.model.named_parameters():
            if name in frozen:  # Torch-Pruning makes new parameters, all of which require gradients
                parameter.requires_grad_(False)
        self._after = self._costs()

    def _prune(self, group: Group, names: Mapping[nn.Module, str]) -> None:
        for dep, channels in group:
            name = None if isinstance(dep.target.module, nn.Parameter) else names.get(dep.target.module)
            if name not in self._channels:
                continue
            for kept, prunes in (
                (self.kept_out, graph_of(group).is_out_channel_pruning_fn),
                (self.kept_in, graph_of(group).is_in_channel_pruning_fn),
            ):
                if name in kept and prunes(dep.handler):
                    left = torch.ones(len(kept[name]), dtype=torch.bool)
                    left[channels] = False
                    kept[name] = kept[name][left]
        group.prune()

    @property
    def compression(self) -> float:
        """Parameters before over parameters after."""
        return self._before["parameters"][""] / self._after["parameters"][""]

    @property
    def speedup(self) -> float | None:
        """FLOPs before over FLOPs after; None without ``example_inputs``."""
        return self._before["flops"][""] / self._after["flops"][""] if "flops" in self._before else None

    def rows(self) -> list[dict[str, Any]]:
        """One dict a layer, in the order of the network.

        Its keys are ``name`` and ``type``; ``in_before``, ``in_after``, ``out_before`` and ``out_after``, in channels;
        ``parameters_before`` and ``parameters_after``; and with ``example_inputs`` also ``flops_before`` and
        ``flops_after``.
        """
        modules, rows = dict(self.model.named_modules()), []
        for name, (inputs, outputs) in self._channels.items():
            out = len(self.kept_out[name])
            row = {"name": name, "type": type(modules[name]).__name__, "in_before": inputs}
            row |= {"in_after": len(self.kept_in.get(name, self.kept_out[name]))}
            row |= {"out_before": outputs, "out_after": out}
            rows.append(row | self._costs_of(name))
        return rows

    def __str__(self) -> str:
        total = {"name": "total", "type": ""} | self._costs_of("")
        table = []
        for row in [*self.rows(), total]:
            line = {"layer": row["name"], "type": row["type"]}
            line |= {key: _change(row, key) for key in ("in", "out", "parameters")}
            if self.speedup is not None:
                line["MFLOPs"] = _change(row, "flops", 1e6)
            table.append(line)
        alignment = ("left", "left", *("right",) * (len(table[0]) - 2))
        speedup = "" if self.speedup is None else f", {self.speedup:.2f} times fewer FLOPs"
        return (
            tabulate(table, "keys", disable_numparse=True, colalign=alignment)
            + f"\n\n{self.compression:.2f} times fewer parameters{speedup}"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Bars of the output channels that each layer had and keeps; norms are left out.

        Args:
            path: where to save the figure; the ending specifies the format.

        Returns:
            A figure that is not registered with ``pyplot``.

        Raises:
            ImportError: matplotlib is not installed.
        """
        modules = dict(self.model.named_modules())
        rows = [row for row in self.rows() if not isinstance(modules[row["name"]], NORMS)]
        before, after = [row["out_before"] for row in rows], [row["out_after"] for row in rows]
        return channel_bars([row["name"] for row in rows], before, after, path)

    def masks(self) -> dict[str, torch.Tensor]:
        """The kept channels as masks over the original ones: ``"layer.out"`` and ``"layer.in"`` -> ``[channels]`` bool.

        ``"layer.in"`` is missing for the layers that `kept_in` leaves out.
        """
        masks: dict[str, torch.Tensor] = {}
        for name, (inputs, outputs) in self._channels.items():
            sides = ((f"{name}.out", outputs, self.kept_out[name]), (f"{name}.in", inputs, self.kept_in.get(name)))
            masks |= {
                key: torch.zeros(channels, dtype=torch.bool).index_fill_(0, kept, True)
                for key, channels, kept in sides
                if kept is not None
            }
        return masks

    def save_masks(self, path: str | os.PathLike[str]) -> None:
        """Save `masks` in a file for ``torch.load(path, weights_only=True)``.

        Raises:
            OSError: the file cannot be written.
        """
        save_tensors(self.masks(), path)

    def _begin(self, graph: DependencyGraph) -> None:
        """Start with all channels of the layers that the graph knows how to prune."""
        layers = dict(_layers(self.model, graph))
        self._channels = {name: channels for name, (channels, _) in layers.items()}
        self.kept_out = {name: torch.arange(out) for name, ((_, out), _) in layers.items()}
        self.kept_in = {name: torch.arange(inputs) for name, ((inputs, _), two_sided) in layers.items() if two_sided}

    def _costs(self) -> dict[str, dict[str, int]]:
        """Parameters, and FLOPs if known, of each module by its name; ``""`` is the network."""
        costs: dict[str, dict[str, int]] = {"parameters": parameters_by_module(self.model)}
        if self._example_inputs is not None:
            costs["flops"] = flops_by_module(self.model, self._example_inputs, self._forward)
        return costs

    def _costs_of(self, name: str) -> dict[str, int]:
        both = (("before", self._before), ("after", self._after))
        return {f"{cost}_{when}": costs[cost][name] for cost in self._before for when, costs in both}


def _layers(model: nn.Module, graph: DependencyGraph) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Layers that a graph knows how to prune: ``(name, ((in, out) channels, whether inputs are pruned on their own))``.

    Layers inside such a layer, as the projections of ``nn.MultiheadAttention``, are not listed.
    """
    inside = None
    for name, module in model.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        pruner = graph.get_pruner_of_module(module)
        channels = pruner.get_in_channels(module), pruner.get_out_channels(module)
        if None not in channels:
            inside = f"{name}." if name else ""
            yield name, (channels, pruner.prune_in_channels != pruner.prune_out_channels)


def _change(row: dict[str, Any], key: str, scale: float = 1) -> str:
    if f"{key}_before" not in row:
        return ""
    before, after = (f"{row[f'{key}_{when}'] / scale:,.{2 * (scale > 1)}f}" for when in ("before", "after"))
    return before if before == after else f"{before} → {after}"

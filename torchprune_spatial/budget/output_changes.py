"""How much the outputs of a network change when channels of one group are removed; all regions weigh the same."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves, tree_leaves_with_path
from torch_pruning.dependency import Group

from resolution_scaling.ground.put_back import restoring_values

from ..calibration.batches import refusing_single_items, run_alike
from ..calibration.measurements import pad
from ..calibration.regions import RegionMasks
from ..calibration.statistics import Calibration, some_batches
from ..graph.channel_graph import ChannelGraph
from ..graph.groups import Member, channel_layers, members_that_read, producers_in
from ..graph.layers import CHANNEL_LAYERS, channel_dimension, watching_inputs
from ..graph.outputs import OutputTrace
from ..graph.private_names import graph_of
from .probabilities import READINGS, reading_of, target_of

Loss = Callable[[Any, Any], torch.Tensor]
"""``(outputs, target)`` -> the user's training loss: a scalar, or one value per pixel, ``[batch, ..., *grid]``."""

IMAGES = 32
"""Batches are read until they hold at least this number of images."""

REMEDY = (
    ", so that allocation='sensitivity' cannot compare them: give the importance a forward that returns tensors of "
    "fixed shapes, or use allocation='cost'"
)


class OutputChanges:
    """Measures how much the outputs change when channels of one group are removed and the other groups are unpruned.

    The change is the mean squared difference from the outputs of the unpruned network in each region, summed over the
    regions and divided by the mean square of the output. The changes of several outputs are added. Logits are compared
    as probabilities; whether outputs are logits follows from the targets of the calibration data (see `reading_of`).
    An output without positions counts as one region, and so do all outputs if the data have no regions.

    With a loss, the change is the increase of the loss. If the loss gives one value per pixel, its mean is taken in
    each region, and the means are added.

    Args:
        model: the network, in evaluation mode. It is left unchanged.
        calibration: images and regions. Whole batches are used, until they hold at least 32 images.
        fold: called before channels are removed, so that only what folding does not make up for is measured.
        loss: ``(outputs, target)`` -> the loss. Where the loader yields no target, the outputs of the unpruned network
            take its place.

    Raises:
        ValueError: the outputs hold no real numbers, their shapes depend on values, it is not known whether they are
            logits, or the loss of the unpruned network is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        calibration: Calibration,
        fold: Callable[[Group], None] | None = None,
        loss: Loss | None = None,
    ):
        self.model, self.forward, self.fold, self.loss = model, calibration.forward, fold, loss
        self._batches = some_batches(calibration, model, IMAGES)
        self._output_layers = self._find_output_layers()
        outputs = [*self._outputs()]
        if loss is not None:
            self._targets = [o if b.target is None else b.target for o, b in zip(outputs, self._batches, strict=True)]
            self._whole_loss = self._losses(iter(outputs))
            if not math.isfinite(self._whole_loss):
                raise ValueError(
                    f"loss gives {self._whole_loss} for the unpruned network on the calibration data; expected finite "
                    "numbers: leave out batches for which it is not defined, such as those that are entirely void"
                )
            return
        self._readings = self._read_as(outputs)
        self._expected = [self._read(self._real(found)) for found in outputs]

    def produces_output(self, group: Group) -> bool:
        """Whether channels of the group are outputs of the network, whose number must not change."""
        return bool(producers_in(group) & self._output_layers)

    def _find_output_layers(self) -> set[nn.Module]:
        trace = OutputTrace(module for module in self.model.modules() if isinstance(module, CHANNEL_LAYERS))
        batch = self._batches[0]
        with trace.recording(self.model), refusing_single_items(self.model, batch.inputs):
            outputs = run_alike(self.model, self.forward, batch.inputs)
        return trace.layers_behind(outputs)

    def change(self, group: Group, positions: Sequence[int]) -> float:
        """Measure the change when some channels of a group are removed.

        Args:
            group: the group, with all its channels.
            positions: which channels are removed, as positions among the group's root channels.
        """
        dep = group[0].dep
        idxs = [group[0].idxs[position] for position in positions]
        graph = graph_of(group)
        removed = graph.get_pruning_group(dep.target.module, dep.handler, idxs)
        tensors = (*self.model.parameters(), *self.model.buffers())
        with restoring_values(tensors) if self.fold else contextlib.nullcontext(), torch.no_grad():
            if self.fold:
                self.fold(removed)
            with _without(removed):
                if self.loss is not None:
                    return max(0.0, _finite(self._losses(self._outputs())) - self._whole_loss)
                return _finite(self._difference(self._read(self._real(found)) for found in self._outputs()))

    @torch.no_grad()
    def _outputs(self) -> Iterator[Any]:
        for batch in self._batches:
            yield run_alike(self.model, self.forward, batch.inputs)

    def _real(self, outputs: Any) -> list[torch.Tensor]:
        """Find the floating-point tensors among the outputs: ``[batch, channels, *grid]`` or another shape."""
        leaves = tree_leaves(outputs)
        found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        if not found:
            raise ValueError(f"{type(self.model).__name__} returns no tensor of real numbers{REMEDY}")
        return found

    def _read_as(self, outputs: list[Any]) -> list[str]:
        """Decide how each output is read: a key of `READINGS` for each."""
        real = [self._real(found) for found in outputs]
        if len({len(found) for found in real}) > 1:
            raise ValueError(f"{type(self.model).__name__} returns outputs whose shapes depend on values{REMEDY}")
        paths = [path for path, leaf in tree_leaves_with_path(outputs[0]) if any(leaf is x for x in real[0])]
        readings = [
            reading_of(batches, [target_of(paths, i, batch.target) for batch in self._batches])
            for i, batches in enumerate(zip(*real, strict=True))
        ]
        if None in readings:
            values = torch.cat([x.flatten() for x, reading in zip(real[0], readings, strict=True) if reading is None])
            raise ValueError(
                f"{type(self.model).__name__} returns values from {values.min():.3g} to {values.max():.3g}, and the "
                "calibration data have no target that decides what they are, so that allocation='sensitivity' cannot "
                "know whether they are logits. Let the loader yield targets that fit, or pass loss, a callable "
                "(outputs, target). "
                "Without targets in the loader, target is what the unpruned network returns. Examples: "
                "torch.nn.functional.mse_loss if the outputs are values, "
                "lambda outputs, target: (outputs.sigmoid() - target.sigmoid()).square().mean() if they are logits"
            )
        return [str(reading) for reading in readings]

    def _read(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [READINGS[reading](output) for reading, output in zip(self._readings, outputs, strict=False)]

    def _losses(self, outputs: Iterator[Any]) -> float:
        """Compute the loss of the outputs: its mean over the batches, or the sum of its means in the regions."""
        loss, total = cast(Loss, self.loss), _RegionSums()
        for batch, found, target in zip(self._batches, outputs, self._targets, strict=True):
            value = loss(found, target)
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                raise ValueError(
                    f"loss gave {type(value).__name__}; expected a tensor: a scalar, or one value per pixel"
                )
            total.add(value.double(), batch.regions)
        return total.mean()

    def _difference(self, outputs: Iterator[list[torch.Tensor]]) -> float:
        sums: list[_RegionSums] = [_RegionSums() for _ in self._readings]
        energies = [0.0] * len(sums)
        for batch, found, expected in zip(self._batches, outputs, self._expected, strict=True):
            if [output.shape for output in found] != [whole.shape for whole in expected]:
                raise ValueError(f"{type(self.model).__name__} returns outputs whose shapes depend on values{REMEDY}")
            for i, (output, whole) in enumerate(zip(found, expected, strict=True)):
                sums[i].add((output - whole).double().square(), batch.regions)
                energies[i] += float(whole.double().square().mean()) / len(self._batches)
        return sum(total.mean() / max(energy, 1e-300) for total, energy in zip(sums, energies, strict=True))


class _RegionSums:
    """Running sums in each region, of values and of the weights of their cells."""

    def __init__(self) -> None:
        self._sums = torch.zeros(2, 0, dtype=torch.float64)  # [values and weights, regions]

    def add(self, values: torch.Tensor, regions: RegionMasks | None) -> None:
        """Add ``[batch, channels, *grid]``, or a tensor without positions, which counts as one region."""
        weights = regions.weights_of_output(values) if regions and values.ndim > 2 else None
        if weights is None:
            part = values.new_tensor([[values.sum()], [values.numel()]])
        else:
            coverage = weights[:, 1].double()  # [batch, regions, cells]
            of_regions = (values.flatten(2).mean(1, keepdim=True) * coverage).sum((0, 2))
            part = torch.stack([of_regions, coverage.sum((0, 2))])
        part = part.cpu()
        self._sums = pad(self._sums, part.shape[1]) + pad(part, self._sums.shape[1])

    def mean(self) -> float:
        """The sum of the regions' means; regions without a cell are left out."""
        values, weights = self._sums
        return float((values / weights)[weights > 0].sum())


def _finite(change: float) -> float:
    """The change; a very large number where the pruned network gives NaN or infinity."""
    return change if math.isfinite(change) else 1e30


@contextlib.contextmanager
def _without(group: Group) -> Iterator[None]:
    """A context in which the channels of a group are removed, or read as zero where they are only Torch-Pruning's."""
    graph = graph_of(group)
    if isinstance(graph, ChannelGraph):
        with graph.trying():
            group.prune(record_history=False)
            yield
    else:
        with _held_at_zero(members_that_read(group, channel_layers(graph))):
            yield


@contextlib.contextmanager
def _held_at_zero(members: list[Member]) -> Iterator[None]:
    """A context in which the members' layers read zeros in the members' channels."""
    channels: dict[nn.Module, torch.Tensor] = {}
    for member in members:
        known = channels.get(member.layer)
        channels[member.layer] = member.channels if known is None else torch.cat([known, member.channels])

    def zeroed(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x.index_fill(channel_dimension(layer), channels[layer].to(x.device), 0)

    with watching_inputs(channels, zeroed):
        yield

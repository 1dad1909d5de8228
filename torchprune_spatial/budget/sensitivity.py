"""What a network loses when channels of one group alone are held at zero, with every region of the same weight."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves
from torch_pruning.dependency import Group

from ..calibration.measurements import pad
from ..calibration.regions import RegionMasks
from ..calibration.statistics import Calibration
from ..graph.groups import Member, channel_layers, members_that_read
from ..graph.private_names import graph_of
from .removal import ScoredGroup

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)
"""Of a group's channels, that are kept where its error is measured; one is at least."""
IMAGES = 32
"""Calibration images that are enough, in whole batches."""

_REMEDY = (
    ", so that allocation='sensitivity' cannot compare them: give the importance a forward that returns tensors of "
    "fixed shapes, or use allocation='cost'"
)


class Sensitivity:
    """How much the outputs change when a group keeps so many channels, and all other groups are whole.

    The error is the mean squared difference from the outputs of the whole network in each region, and its sum over the
    regions; over the mean square of the output where there are several. Outputs without positions count as one region.

    Ours. Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2, measure the sensitivity of single
    layers by accuracy, after which a person chooses their ratios.

    Args:
        model: the network, in evaluation mode. It is left as it was.
        calibration: images and regions.
        fold: what is called before channels go (``before_removal`` of `prune_to`), so that what it makes up for is no
            error.

    Raises:
        ValueError: the outputs hold no real numbers, or their number depends on what is seen.
    """

    def __init__(self, model: nn.Module, calibration: Calibration, fold: Callable[[Group], None] | None = None):
        self.model, self.forward, self.fold = model, calibration.forward, fold
        self._batches: list[tuple[Any, RegionMasks | None]] = []
        images = 0
        for batch in calibration.batches(model):
            self._batches.append(batch)
            images += next((len(leaf) for leaf in tree_leaves(batch[0]) if isinstance(leaf, torch.Tensor)), 1)
            if images >= IMAGES:
                break
        self._expected = [*self._outputs()]

    def losses(self, group: Group, scored: ScoredGroup) -> list[float]:
        """The error by the number of channels that each block of the group keeps, from 0 (infinite) to all (0).

        Between the counts that are measured it is interpolated, and made convex: each further channel costs more.
        """
        channels = len(scored.block_scores)
        order = scored.block_scores.argsort(descending=True, stable=True)
        least = max(1, int(scored.block_scores.isposinf().sum()))
        counts = sorted({max(least, round(share * channels)) for share in SHARES} - {channels})
        errors = []
        for count in counts:
            goes = [block + order[count:] for block in range(0, len(scored.scores), channels)]
            errors.append(self._error(group, torch.cat(goes).tolist()))
        curve = np.interp(range(1, channels + 1), [*counts, channels], [*np.minimum.accumulate(errors), 0.0])
        rises = np.sort(-np.diff(curve)).cumsum()
        return [np.inf, *rises[::-1].tolist(), 0.0]

    def _error(self, group: Group, goes: list[int]) -> float:
        """Of the outputs without these channels of the group, by position."""
        dep = group[0].dep
        removed = graph_of(group).get_pruning_group(dep.target.module, dep.handler, [group[0].idxs[i] for i in goes])
        with _restoring(self.model) if self.fold else contextlib.nullcontext(), torch.no_grad():
            if self.fold:
                self.fold(removed)
            with _held_at_zero(members_that_read(removed, channel_layers(graph_of(removed)))):
                return self._difference(self._outputs())

    @torch.no_grad()
    def _outputs(self) -> Iterator[list[torch.Tensor]]:
        """Of each batch, what is a real number in the outputs: ``[batch, channels, *grid]`` or another shape."""
        for inputs, _ in self._batches:
            leaves = tree_leaves(self.forward(self.model, inputs))
            outputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
            if not outputs:
                raise ValueError(f"{type(self.model).__name__} returns no tensor of real numbers{_REMEDY}")
            yield outputs

    def _difference(self, outputs: Iterator[list[torch.Tensor]]) -> float:
        sums: dict[int, torch.Tensor] = {}  # of each output: squared errors and weights by region, [2, regions]
        energies: dict[int, float] = {}
        for (_, regions), found, expected in zip(self._batches, outputs, self._expected, strict=True):
            if [output.shape for output in found] != [whole.shape for whole in expected]:
                raise ValueError(f"{type(self.model).__name__} returns outputs whose shapes depend on values{_REMEDY}")
            for i, (output, whole) in enumerate(zip(found, expected, strict=True)):
                part = _by_region((output - whole).double().square(), regions)
                known = sums.get(i, part.new_zeros(2, 0))
                sums[i] = pad(known, part.shape[1]) + pad(part, known.shape[1])
                energies[i] = energies.get(i, 0.0) + float(whole.double().square().mean())
        error = 0.0
        for i, (squares, weights) in sums.items():
            relative = (squares / weights)[weights > 0].sum() / max(energies[i] / len(self._batches), 1e-300)
            error += float(relative.nan_to_num(nan=1e30, posinf=1e30))
        return error


def _by_region(squares: torch.Tensor, regions: RegionMasks | None) -> torch.Tensor:
    """Sums of ``[batch, channels, *grid]`` over the cells of each region, and of the weights: ``[2, regions]``."""
    weights = regions.weights(len(squares), tuple(squares.shape[2:])) if regions and squares.ndim > 2 else None
    if weights is None:
        return squares.new_tensor([[squares.sum()], [squares.numel()]])
    coverage = weights[:, 1].double()  # [batch, regions, cells]
    return torch.stack([(squares.flatten(2).mean(1, keepdim=True) * coverage).sum((0, 2)), coverage.sum((0, 2))])


@contextlib.contextmanager
def _held_at_zero(members: list[Member]) -> Iterator[None]:
    """Inside, the layers read their channels of the members as zeros."""

    def zeroed(channels: torch.Tensor, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        dimension = -1 if isinstance(layer, nn.Linear) else 1

        def of(x: Any) -> Any:
            return x.index_fill(dimension, channels.to(x.device), 0) if isinstance(x, torch.Tensor) else x

        if args:
            return (of(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, kwargs | {first: of(kwargs[first])}

    with contextlib.ExitStack() as hooks:
        for member in members:
            handle = member.layer.register_forward_pre_hook(
                lambda layer, args, kwargs, channels=member.channels: zeroed(channels, layer, args, kwargs),
                with_kwargs=True,
            )
            hooks.callback(handle.remove)
        yield


@contextlib.contextmanager
def _restoring(model: nn.Module) -> Iterator[None]:
    """Put the parameters and buffers back to what they were."""
    tensors = [*itertools.chain(model.parameters(), model.buffers())]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)

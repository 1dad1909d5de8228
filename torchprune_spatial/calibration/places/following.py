"""Following the places of a network's feature maps, for some of the images of a batch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from resolution_scaling.ground.calls import copied, sentence
from resolution_scaling.ground.put_back import restoring_attributes

from ...graph.labels.following import tensors_in
from ...graph.labels.parameters import has_storage
from ...graph.labels.trace import Plain
from ...graph.layers import channel_dimension, watching_inputs
from .cells import Cells, Frame, Placed, cells_of, first_known
from .places import Places
from .placing import Placing

IMAGES = 2
"""How many images of a batch are followed; the others lie like these."""


@torch.no_grad()
def follow_places(
    model: nn.Module,
    inputs: Any,
    forward: Callable[[nn.Module, Any], Any],
    layers: Iterable[nn.Module],
    size: tuple[int, ...],
) -> Placed:
    """Run a network and follow where in its images the maps lie that layers read.

    Args:
        model: in evaluation mode. Afterwards it is as it was.
        inputs: a batch; images are the tensors ``[batch, channels, *size]`` with the most dimensions.
        forward: ``(model, inputs)`` -> outputs.
        layers: the layers.
        size: of the regions, which can be larger or smaller than the images.
    """
    images = [leaf for leaf in tensors_in(inputs) if leaf.dim() == len(size) + 2 and has_storage(leaf)]
    sizes = [list(image.shape[2:]) for image in images]
    largest = [max(lengths) for lengths in zip(*sizes, strict=True)] if sizes else [1] * len(size)
    pixels = tuple(own if own > whole and own % whole == 0 else whole for own, whole in zip(size, largest, strict=True))
    frame = Frame(tuple(2 * number for number in pixels))
    held = Places(frame)
    for image in images:
        held.set(image, frame.even(len(image), image.shape[2:]).unsqueeze(1))
    reads: dict[nn.Module, list[Cells | None]] = {}
    known: list[tuple[torch.Tensor, tuple[int, ...], Cells | None]] = []

    def cells(x: torch.Tensor, dim: int) -> Cells | None:
        places = held.get(x)
        if places is None:
            return None
        grid = tuple(length for d, length in enumerate(x.shape) if d not in (0, dim % x.dim()))
        places = first_known(places, dim).movedim(dim, 1).squeeze(1).expand(len(x), *grid).reshape(len(x), -1)
        for others, other_grid, found in known:  # most layers of a stage have the same
            if grid == other_grid and torch.equal(places, others):
                return found
        known.append((places, grid, cells_of(places, frame, grid)))
        return known[-1][2]

    def read(layer: nn.Module, x: torch.Tensor) -> None:
        if x.dim() >= 2:
            reads.setdefault(layer, []).append(cells(x, channel_dimension(layer)))

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with (
            restoring_attributes(model),
            sdpa_kernel(SDPBackend.MATH),
            torch.random.fork_rng(range(torch.cuda.device_count())),
            watching_inputs(layers, read),
            Plain(),
            Placing(held),
        ):
            outputs = [out for out in tensors_in(forward(model, inputs)) if out.is_floating_point()]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    of_outputs = [cells(out, 1) if out.dim() >= 2 else None for out in outputs]
    found = zip(outputs, of_outputs, strict=True)
    of_regions = next((of for out, of in found if tuple(out.shape[2:]) == size and list(size) not in sizes), None)
    return Placed(frame, reads, of_outputs, of_regions)


class FollowedPlaces:
    """The places in the batches of a pass: two images are followed, once for each shape of them.

    Args:
        model, forward, layers: as for `follow_places`.
    """

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Any], Any], layers: Iterable[nn.Module] = ()):
        self._model, self._forward, self._layers = model, forward, list(layers)
        self._known: dict[str, Placed | None] = {}
        self._lost: set[str] = set()

    def of(self, inputs: Any, size: tuple[int, ...]) -> Placed | None:
        """The places in a batch whose regions have this size; None, with a warning, if they cannot be followed."""
        batch = max((len(leaf) for leaf in tensors_in(inputs) if leaf.dim()), default=1)
        shapes = _shapes(inputs, size)
        if shapes not in self._known:
            few = tree_map(partial(_first_images, batch=batch), inputs)
            with contextlib.suppress(Exception):  # networks can be made for one size of batches
                placed = self._followed(few, size)
                self._known[shapes] = placed.of_batch(min(IMAGES, batch), batch)
        if self._known.get(shapes) is None and shapes not in self._lost:
            try:
                self._followed(inputs, size)
            except Exception as error:  # of operations that other tensors than these have never met
                self._lost.add(shapes)
                warnings.warn(
                    f"it cannot be followed where the feature maps of {type(self._model).__name__} lie in the images "
                    f"({sentence(error)}): they are taken to cover these evenly",
                    stacklevel=2,
                )
        return self._known.get(shapes)

    def _followed(self, inputs: Any, size: tuple[int, ...]) -> Placed:
        shapes = _shapes(inputs, size)
        if (placed := self._known.get(shapes)) is None:
            placed = follow_places(self._model, copied(inputs), self._forward, self._layers, size)
            self._known[shapes] = placed
        return placed


def _shapes(inputs: Any, size: tuple[int, ...]) -> str:
    return str((size, tree_map(lambda leaf: getattr(leaf, "shape", leaf), inputs)))


def _first_images(leaf: Any, batch: int) -> Any:
    whole = isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and len(leaf) == batch
    return leaf[:IMAGES] if whole else leaf

"""One pass over the calibration data, which takes the measurements of all criteria."""

from __future__ import annotations

import contextlib
import math
import warnings
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn as nn
from torch.utils._pytree import tree_leaves
from torch_pruning.dependency import DependencyGraph

from resolution_scaling.ground.models import evaluating
from resolution_scaling.ground.progress import progress

from ..graph.channel_graph import ChannelGraph
from ..graph.groups import channel_layers, producers_of
from ..graph.layers import CHANNEL_LAYERS, channel_dimension, watching_inputs
from ..graph.outputs import OutputTrace
from .batches import Batch, CalibrationData, Forward, Masks, ReadBatch, call_model, refusing_single_items
from .measurements import Measurement, pad, readings
from .places.cells import Cells
from .places.following import FollowedPlaces
from .regions import RegionMasks


@dataclass(frozen=True)
class Statistics:
    """The result of one pass over the calibration data.

    Attributes:
        values: for each measurement, its values for each layer that reads channels; means are ``[values, channels]``.
        output_layers: layers whose channels are outputs of the network.
    """

    values: dict[Measurement, dict[nn.Module, Any]]
    output_layers: set[nn.Module]


class Calibration:
    """Calibration data that several criteria share: one pass takes the measurements of all of them.

    Args:
        loader, threshold, masks, forward: as in `SpatialMaskImportance`.
        batch: callable that makes ``(input, target)`` or ``(input, target, mask)`` of what the loader yields.

    Example:
        >>> calibration = torchprune_spatial.Calibration(loader, threshold="otsu")
        >>> spatial_mask = tp.importance.SpatialMaskImportance(calibration)
        >>> apoz = tp.importance.APoZImportance(calibration)

        Of a dataset of dicts, as those of MONAI and BasicSR:

        >>> calibration = torchprune_spatial.Calibration(loader, batch=lambda batch: (batch["lq"], batch["gt"]))
    """

    def __init__(
        self,
        loader: Iterable[Any],
        threshold: float | str = 0.5,
        *,
        masks: Masks | None = None,
        forward: Forward | None = None,
        batch: ReadBatch | None = None,
    ):
        self.data = CalibrationData(loader, threshold, masks, batch)
        self.forward = forward or call_model
        self._requested: dict[Measurement, None] = {}
        self._statistics: Statistics | None = None
        self._state: tuple[Any, ...] | None = None

    def batches(self, model: nn.Module) -> Iterator[Batch]:
        """The batches, on the model's device and in its dtype, with regions if these are known from the data.

        Raises:
            ValueError: see `CalibrationData.batches`.
        """
        return self.data.batches(*placement_of(model), "if known")

    def request(self, measurement: Measurement) -> None:
        """Add a measurement to the next pass."""
        self._requested[measurement] = None

    def statistics(self, graph: DependencyGraph, needed: Iterable[Measurement]) -> Statistics:
        """Statistics of the graph's network; a pass is made if the network has changed or measurements are missing.

        The network is left unchanged: hooks, training mode, gradients and device, also after an exception.

        Args:
            graph: the graph of the network.
            needed: the measurements that the caller needs. Those that others requested are taken in the same pass, if
                the data allow it.

        Raises:
            ValueError: see `collect_statistics`.
        """
        known = self._statistics.values if self._statistics and self._state == _state(graph) else {}
        missing = [measurement for measurement in needed if measurement not in known]
        if missing:
            others = [m for m in self._requested if m not in known and m not in missing]
            try:
                new = collect_statistics(graph, self.data, missing + others, self.forward)
            except ValueError:
                if not others:
                    raise
                new = collect_statistics(graph, self.data, missing, self.forward)  # as if nobody else had asked
            self._statistics = Statistics({**known, **new.values}, new.output_layers)
            self._state = _state(graph)
        return cast(Statistics, self._statistics)


def _state(graph: DependencyGraph) -> tuple[Any, ...]:
    """A value that changes when channels are removed, when parameters are trained or loaded in place, and when the
    graph contains other layers. Writing to ``.data`` of a parameter does not change it.
    """
    tensors = (*graph.model.parameters(), *graph.model.buffers())
    versions = [(t.shape, 0 if t.is_inference() else t._version) for t in tensors]
    return weakref.ref(graph.model), list(channel_layers(graph)), versions


def some_batches(calibration: Calibration, model: nn.Module, images: int) -> list[Batch]:
    """Whole batches, until they hold at least a number of images; their regions know where feature maps lie."""
    batches, found = list[Batch](), 0
    places = FollowedPlaces(model, calibration.forward, (m for m in model.modules() if isinstance(m, CHANNEL_LAYERS)))
    for batch in calibration.batches(model):
        if batch.regions is not None:
            batch.regions.placed = places.of(batch.inputs, tuple(batch.regions.planes.shape[2:]))
        batches.append(batch)
        tensors = [leaf for leaf in tree_leaves(batch.inputs) if isinstance(leaf, torch.Tensor)]
        found += max((len(tensor) for tensor in tensors if tensor.ndim), default=1)
        if found >= images:
            break
    return batches


class Collector:
    """Forward pre-hooks that measure the inputs of the layers that read channels.

    The inputs are measured, not the outputs of the producers, because the paper scores activated maps. The next layer
    reads the activated map in any case: after ``nn.ReLU`` or ``F.relu``, and after an addition or concatenation.
    """

    def __init__(self, layers: Iterable[nn.Module], measurements: Iterable[Measurement]):
        self.totals: dict[Measurement, dict[nn.Module, Any]] = {measurement: {} for measurement in measurements}
        self.areas = torch.zeros(0, dtype=torch.float64)
        self._layers = list(layers)
        self._batch = -1
        self._regions: RegionMasks | None = None
        self._last_reads: dict[tuple[Any, ...], tuple[weakref.ref[torch.Tensor], int, Any]] = {}
        self._calls: Counter[nn.Module] = Counter()
        self.without_places: list[nn.Module] = []

    @contextlib.contextmanager
    def reading(self, regions: RegionMasks | None) -> Iterator[None]:
        """A context in which the inputs of the layers are measured, for a batch with these regions."""
        self._batch, self._regions = self._batch + 1, regions
        self._calls.clear()
        try:
            with watching_inputs(self._layers, self._read):
                yield
        finally:
            self._last_reads.clear()
        if regions is not None:
            area = regions.planes.sum((0, *range(2, regions.planes.ndim)), dtype=torch.float64).cpu()
            self.areas = pad(self.areas, len(area)) + pad(area, len(self.areas))

    @torch.no_grad()
    def _read(self, layer: nn.Module, x: torch.Tensor) -> None:
        if x.ndim < 2:
            return
        if x.is_complex():
            raise ValueError(
                f"a {type(layer).__name__} reads complex activations, which are not measured: use a criterion that "
                "looks at weights, such as tp.importance.GroupMagnitudeImportance"
            )
        dimension = channel_dimension(layer)
        channels_first = x.detach().movedim(dimension, 1)
        cells = self._cells(layer, channels_first)
        last, version = self._last_reads, x._version
        keys = {m: (m, id(x), dimension, layer if m.depends_on_layer else None) for m in self.totals}
        new = [m for m, key in keys.items() if key not in last or last[key][0]() is not x or last[key][1] != version]
        if new:  # several layers often read one tensor: measure it once
            found: dict[Measurement, Any] = {}
            with torch.autocast(x.device.type, enabled=False):
                for reading in readings(layer, channels_first, self._regions, self._batch, cells):
                    for measurement in new:
                        _add(found, measurement, measurement.measure(reading))
            last.update((keys[m], (weakref.ref(x), version, found[m])) for m in new)
        for measurement, totals in self.totals.items():
            _add(totals, layer, last[keys[measurement]][2])

    def ran(self, layer: nn.Module) -> bool:
        """Whether a layer has read anything."""
        return any(layer in totals for totals in self.totals.values())

    def _cells(self, layer: nn.Module, x: torch.Tensor) -> Cells | None:
        """Where the cells of a layer's input lie; None if evenly, or if that is not known."""
        self._calls[layer] += 1
        if self._regions is None or self._regions.placed is None:
            return None
        reads = self._regions.placed.reads.get(layer, [])
        cells = reads[self._calls[layer] - 1] if len(reads) >= self._calls[layer] else None
        grid = tuple(x.shape[2:])
        if cells is not None and cells.image.shape == (len(x), math.prod(grid)):
            return cells
        if math.prod(grid) > 1 and self._regions.weights(len(x), grid) is None:
            self.without_places.append(layer)
        return None


def _add(totals: dict[Any, Any], key: Any, value: Any) -> None:
    totals[key] = totals[key] + value if key in totals else value


@torch.no_grad()
def collect_statistics(
    graph: DependencyGraph, data: CalibrationData, measurements: Iterable[Measurement], forward: Forward = call_model
) -> Statistics:
    """Run the calibration data through the network once and return its statistics.

    The network is left unchanged: hooks, training mode, gradients and device, also after an exception.

    Args:
        graph: Torch-Pruning's dependency graph of the network.
        data: the calibration data.
        measurements: what to measure.
        forward: ``(model, inputs)`` -> outputs.

    Raises:
        ValueError: the calibration data are not usable (see `CalibrationData.batches`), or single items; fewer than two
            regions have a pixel; activations are NaN, infinite or complex; no layer can be pruned; ``cells="pure"``,
            and a region has no pure cell.
    """
    model, layers, measurements = graph.model, channel_layers(graph), list(measurements)
    with_regions = any(measurement.needs_regions for measurement in measurements)
    collector, trace = Collector(layers, measurements), OutputTrace(layers)
    output_layers: set[nn.Module] | None = None
    with evaluating(model):
        batches = data.batches(*placement_of(model), "required" if with_regions else "none")
        places = FollowedPlaces(model, forward, layers)
        for inputs, _, regions in progress(batches, "calibration", total=_length(data.loader)):
            if regions is not None:
                regions.placed = places.of(inputs, tuple(regions.planes.shape[2:]))
            with collector.reading(regions), contextlib.ExitStack() as stack:
                if output_layers is None:
                    stack.enter_context(trace.recording(model))
                    stack.enter_context(refusing_single_items(model, inputs))
                outputs = forward(model, inputs)
            if output_layers is None:
                output_layers = trace.layers_behind(outputs)

    writers = output_layers or set()  # there was a batch
    ran = [layer for layer in layers if collector.ran(layer)]
    missing = _not_followed(graph, [layers[layer] for layer in ran if layer not in graph.module2node])
    if not any(layer in graph.module2node and layer not in writers for layer in layers):
        why = "every layer writes an output of the network" if layers else "it has no convolution or linear layer"
        raise ValueError(f"model {type(model).__name__} has no prunable layer: {missing or why}")
    if missing:
        warnings.warn(missing, stacklevel=2)
    if without := list(dict.fromkeys(layers[layer] for layer in collector.without_places)):
        warnings.warn(
            f"where in the image the maps lie that {', '.join(map(repr, without[:3]))}{', ...' * (len(without) > 3)} "
            "read cannot be followed, so that they count the same in every region",
            stacklevel=2,
        )
    present = collector.areas > 0
    if with_regions:
        _check_regions(present, data)
    values = {}
    for measurement, totals in collector.totals.items():
        values[measurement] = {
            layer: measurement.result(total, present, layers[layer]) for layer, total in totals.items()
        }
        for layer, found in values[measurement].items():  # in the order of the forward
            if not measurement.is_finite(found):
                raise ValueError(_non_finite_message(graph, layer, layers))
    return Statistics(values, writers)


def _not_followed(graph: DependencyGraph, names: list[str]) -> str:
    """What is wrong if layers that ran are missing in Torch-Pruning's graph; empty if none are."""
    if not names or isinstance(graph, ChannelGraph):
        return ""
    some = ", ".join(map(repr, names[:3])) + ", ..." * (len(names) > 3)
    return (
        f"{len(names)} layers that ran in calibration are not in Torch-Pruning's graph ({some}), so that they are not "
        "pruned. If example_inputs is a tensor, Torch-Pruning first calls the model with its rows: pass "
        "example_inputs=(x,), or a forward_fn; or follow the channels themselves, with prune_to or following_channels"
    )


def placement_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the floating-point dtype of a network."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return parameter.device, parameter.dtype


def _length(loader: Iterable[Any]) -> int | None:
    """The number of batches, if the loader has a length."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:  # an iterable dataset
        return None


def _check_regions(present: torch.Tensor, data: CalibrationData) -> None:
    if present.sum() >= 2:
        return
    if data.masks is None and len(present) == 2:
        missing, side = ("object", "above") if not present[0] else ("background", "below")
        raise ValueError(
            f"threshold={data.threshold!r} leaves every image without {'an ' * (missing == 'object')}{missing} (no "
            f"target pixel lies {side} it, or no mask has one): "
            + ("" if data.threshold == "otsu" else "choose a threshold inside the range of the targets, or 'otsu', or ")
            + "let `loader` yield masks that hold both"
        )
    raise ValueError(
        f"the masks hold {int(present.sum())} region{'s' * (present.sum() != 1)} with any pixel; at least two are "
        "needed to rank filters by region. Labels below 0 and 255 are void: scale 0/255 masks to 0/1"
    )


def _non_finite_message(graph: DependencyGraph, reader: nn.Module, layers: dict[nn.Module, str]) -> str:
    names = [repr(layers[layer]) for layer in producers_of(graph, reader)] if reader in graph.module2node else []
    source = f"layer {' or '.join(names)} gives" if names else "the loader's inputs have"
    return (
        f"{source} NaN or infinite activations, seen at the input of {layers[reader]!r}: check the model's weights and "
        "the calibration data; in float16, use bfloat16 or float32 for calibration"
    )

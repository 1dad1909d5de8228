"""Where in the image the cells of feature maps lie: followed from the inputs through the network.

Networks pad their inputs to a multiple, crop them, cut them into windows or tokens, shift these, and fold frames into
the batch. Beside each activation goes therefore a tensor of the same shape, which says in which pixel each element's
cell begins. What moves elements moves these numbers by the same operation, as the labels of channels are moved in
`graph.labels`; convolutions and pooling pick those of the cells that they look at, and a matrix product those of its
rows (the queries of attention) or columns.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from resolution_scaling.ground.calls import copied, sentence
from resolution_scaling.ground.put_back import restoring_attributes

from ..graph.labels.classes import LabelClasses, compressed
from ..graph.labels.following import on_cpu, tensors_in
from ..graph.labels.moving_rules import reduced_dims
from ..graph.labels.parameters import has_storage
from ..graph.labels.rules import Call
from ..graph.labels.steps import base_name
from ..graph.labels.storages import LabelledStorages, storage_key
from ..graph.labels.trace import Plain, defaults
from ..graph.layers import channel_dimension, watching_inputs

IMAGES = 2
"""How many images of a batch are followed; the others lie like these."""

UNKNOWN = 0
"""The place of elements that belong to no pixel, such as a class token."""


@dataclass(frozen=True)
class Frame:
    """The pixels of a batch of images, with a margin of the size of an image around each; places are their numbers.

    Attributes:
        size: of an image, in half pixels, so that a convolution can look between two cells.
    """

    size: tuple[int, ...]

    @property
    def strides(self) -> list[int]:
        """By how much the place grows from one half pixel to the next along each dimension."""
        wide = [3 * size for size in self.size]
        return [math.prod(wide[dim + 1 :]) for dim in range(len(wide))]

    def even(self, batch: int, grid: Sequence[int]) -> torch.Tensor:
        """The places of the cells of a map ``[batch, *grid]`` that covers the images evenly."""
        places = 1 + torch.arange(batch).view(-1, *[1] * len(grid)) * math.prod(3 * size for size in self.size)
        for dim, (cells, size, stride) in enumerate(zip(grid, self.size, self.strides, strict=True)):
            begins = torch.arange(cells) * size // cells + size
            places = places + begins.view(-1, *[1] * (len(grid) - 1 - dim)) * stride
        return places

    def split(self, places: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The image of each place, and its coordinates in half pixels; those of the image go from 0 to ``size``."""
        rest, coordinates = places - 1, []
        image = rest // math.prod(3 * size for size in self.size)
        for size, stride in zip(self.size, self.strides, strict=True):
            coordinates.append(rest // stride % (3 * size) - size)
        return image, coordinates


@dataclass(frozen=True, eq=False)
class Cells:
    """Where the cells of a feature map lie, if they do not cover the images evenly.

    Attributes:
        image: of each cell, ``[maps, cells]``; -1 if its place is unknown.
        begins: the first pixel of each cell along each dimension, ``[maps, cells]`` each.
        size: of the cells, in pixels.
    """

    image: torch.Tensor
    begins: tuple[torch.Tensor, ...]
    size: tuple[int, ...]

    def of_batch(self, images: int, batch: int) -> Cells | None:
        """The cells of a batch of another size; None if not each of the images has maps of its own, all alike.

        Args:
            images: the number of images here.
            batch: the number of images there.
        """
        whose, maps = self.image.amax(1), len(self.image)
        changes = (whose != whose[0]).nonzero()
        inner = int(changes[0]) if len(changes) else maps  # so many maps of an image stand beside each other
        outer = maps // (images * inner)
        if not torch.equal(whose, torch.arange(images).repeat_interleave(inner).repeat(outer)):
            return None
        known = self.image >= 0
        places = [known, *(begin.masked_fill(~known, 0) for begin in self.begins)]
        by_image = [part.unflatten(0, (outer, images, inner)) for part in places]
        mixed = bool((known & (self.image != whose.unsqueeze(1))).any())
        if mixed or any(not torch.equal(part, part[:, :1].expand_as(part)) for part in by_image):
            return None
        known, *begins = (part[:, :1].expand(-1, batch, -1, -1).flatten(0, 2) for part in by_image)
        image = torch.arange(batch).repeat_interleave(inner).repeat(outer).unsqueeze(1)
        return Cells(torch.where(known, image, -1), tuple(begins), self.size)


def cells_of(places: torch.Tensor, frame: Frame, grid: Sequence[int]) -> Cells | None:
    """The cells with these places; None for single cells, if none is known, or if they cover the images evenly.

    Evenly means up to half a cell: strided convolutions look up to half a cell to the side.

    Args:
        places: ``[maps, cells]``.
        frame: what the places refer to.
        grid: the spatial size of the maps.
    """
    if places.shape[1] == 1 or not bool((places != UNKNOWN).any()):
        return None
    if len(grid) == len(frame.size):
        places = _spread(places.unflatten(1, grid), frame).flatten(1)
    image, begins = frame.split(places)
    image = image.masked_fill(places == UNKNOWN, -1)
    steps = [_step(begin[image >= 0], size) for begin, size in zip(begins, frame.size, strict=True)]
    if len(grid) == len(frame.size):
        whose, evenly = frame.split(frame.even(len(places), grid).flatten(1))
        off = [(b - e).abs() * 2 < max(step, 2) for b, e, step in zip(begins, evenly, steps, strict=True)]
        if torch.equal(whose, image) and all(bool(part.all()) for part in off):
            return None
    pixels = tuple(begin.div(2, rounding_mode="floor") for begin in begins)
    return Cells(image, pixels, tuple(max(1, step // 2) for step in steps))


def _step(coordinates: torch.Tensor, size: int) -> int:
    """The distance between neighbouring cells: the usual one between different coordinates."""
    different = coordinates.unique()
    return int(different.diff().mode().values) if len(different) > 1 else size


def _spread(places: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Move apart cells ``[maps, *grid]`` that have one place because they were made of one cell."""
    for dim, (stride, size) in enumerate(zip(frame.strides, frame.size, strict=True), start=1):
        line = places.movedim(dim, -1).flatten(0, -2)
        line = line[int((line != UNKNOWN).sum(1).argmax())]
        starts = torch.cat([torch.ones(1, dtype=torch.bool), line.diff() != 0])
        if bool(starts.all()) or int(starts.sum()) == 1:
            continue
        run = starts.cumsum(0) - 1
        lengths = torch.bincount(run)
        within = torch.arange(len(line)) - starts.nonzero().flatten()[run]
        step = _step(frame.split(line[line != UNKNOWN])[1][dim - 1], size)
        offsets = (within * step // lengths[run] * stride).view(-1, *[1] * (places.dim() - 1 - dim))
        places = torch.where(places == UNKNOWN, places, places + offsets)
    return places


class _Numbers(LabelClasses):
    """Places are numbers, and not labels: nothing unites them."""

    @property
    def are_watched(self) -> bool:
        """Nothing is frozen."""
        return True

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """The places themselves."""
        return labels


class Placing(TorchDispatchMode):
    """Follows the places through the operations that run inside."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self._frame = frame
        self._storages = LabelledStorages(_Numbers())

    def get(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The places of a tensor's elements, with size 1 along dimensions along which they do not vary."""
        tracks = self._storages.get(tensor) if has_storage(tensor) else []
        return tracks[0] if tracks else None

    def set(self, tensor: torch.Tensor, places: torch.Tensor | None) -> None:
        """Note the places of a tensor's elements."""
        if has_storage(tensor) and (places is not None or tensor in self._storages):
            self._storages.set(tensor, [] if places is None else [places])

    def spread(self, places: torch.Tensor) -> torch.Tensor:
        """Move apart cells ``[maps, 1, *grid]`` that have one place because they were made of one cell."""
        grid = places.dim() == len(self._frame.size) + 2 and places.shape[1] == 1
        return _spread(places.squeeze(1), self._frame).unsqueeze(1) if grid else places

    def snapped(self, places: torch.Tensor) -> torch.Tensor:
        """Places ``[maps, 1, *grid]``; evenly if they are less than half a cell to one side of that, but for edges."""
        if places.dim() != len(self._frame.size) + 2:
            return places
        even = self._frame.even(len(places), places.shape[2:]).unsqueeze(1)
        (image, begins), (whose, evenly) = self._frame.split(places), self._frame.split(even)
        if bool((places == UNKNOWN).any()) or not torch.equal(image, whose):
            return places
        for begin, other, size in zip(begins, evenly, self._frame.size, strict=True):
            off = begin - other
            usual = (off == off.flatten().mode().values).double().mean()
            if usual < 0.5 or 2 * int(off.abs().max()) >= _step(begin, size):
                return places
        return even

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, base_name(function._schema.name.split("::")[1])
        if name not in RULES and function._can_decompose():
            with self:
                return function.decompose(*args, **kwargs)
        result = function(*args, **kwargs)
        inputs, outputs = tensors_in((args, kwargs)), [t for t in tensors_in(result) if has_storage(t)]
        if outputs and inputs and not all(storage_key(out) == storage_key(inputs[0]) for out in outputs):
            args = (*args, *defaults(function._schema.arguments[len(args) :], kwargs))
            call = Call(name, args, kwargs, result, function)
            places = RULES.get(name, same)(self, call)
            for output in outputs:
                fits = places is not None and places.dim() == output.dim()
                self.set(output, places if fits else None)
        elif name == "copy":
            self.set(inputs[0], copy(self, Call(name, args, kwargs, result, function)))
        return result


Rule = Callable[[Placing, Call], torch.Tensor | None]
"""The places of the result of an operation; None if they are unknown."""

RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def same(placing: Placing, call: Call) -> torch.Tensor | None:
    """What works element by element, or along the channels, leaves places as they are; the first that is known counts.

    Also the rule of all operations without one: where the shape of the result is another one, places are unknown.
    """
    result, shape = None, call.output.shape
    for tensor in call.inputs:
        places = placing.get(tensor)
        if places is None or tensor.dim() > len(shape):
            continue
        places = places.reshape([1] * (len(shape) - places.dim()) + list(places.shape))
        if any(size not in (1, whole) for size, whole in zip(places.shape, shape, strict=True)):
            continue
        result = places if result is None else torch.where(result == UNKNOWN, places, result)
    return result


@_rule("copy")
def copy(placing: Placing, call: Call) -> torch.Tensor | None:
    """The target takes the places of the source."""
    target, source = call.inputs[:2]
    places = placing.get(source)
    return None if places is None else places.reshape([1] * (target.dim() - places.dim()) + list(places.shape))


@_rule(
    *("roll", "flip", "repeat", "pixel_unshuffle", "rot90", "repeat_interleave", "channel_shuffle"),
    *("native_channel_shuffle", "index", "index_select", "gather", "take_along_dim", "reflection_pad1d", "im2col"),
    *("reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d"),
    *("_reshape_copy", "view_copy", "expand_copy", "permute_copy", "diagonal_copy", "unfold_copy", "_unsafe_index"),
)
def move(placing: Placing, call: Call) -> torch.Tensor | None:
    """Places move as the elements do."""
    x, *rest = call.args
    places = placing.get(x)
    if places is None:
        return None
    whole = places.expand(x.shape).contiguous().double()  # some operations know no integers
    return compressed(call.function(whole, *on_cpu(rest), **call.kwargs).long())


@_rule("pixel_shuffle")
def pixel_shuffle(placing: Placing, call: Call) -> torch.Tensor | None:
    """Each cell becomes a block of cells."""
    places = move(placing, call)
    return None if places is None else placing.spread(places)


@_rule("cat", "stack")
def join(placing: Placing, call: Call) -> torch.Tensor | None:
    """Places stand beside each other; along the channels, those of the first tensor count for all."""
    dim = (call.args[1] if len(call.args) > 1 else 0) % call.output.dim()
    parts = [(tensor, placing.get(tensor)) for tensor in call.args[0] if tensor.numel()]
    if call.name == "stack":
        parts = [(t.unsqueeze(dim), None if places is None else places.unsqueeze(dim)) for t, places in parts]
    known = [places for _, places in parts if places is not None]
    if not known:
        return None
    alike = len(known) == len(parts) and all(torch.equal(known[0], places) for places in known)
    if alike and known[0].shape[dim] == 1:
        return known[0]
    shape = torch.broadcast_shapes(*([1 if d == dim else size for d, size in enumerate(p.shape)] for p in known))
    sizes = [[tensor.shape[d] if d == dim else size for d, size in enumerate(shape)] for tensor, _ in parts]
    pieces = [torch.tensor(UNKNOWN) if places is None else places for _, places in parts]
    return compressed(torch.cat([piece.expand(size) for piece, size in zip(pieces, sizes, strict=True)], dim))


@_rule("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv")
def matrix_product(placing: Placing, call: Call) -> torch.Tensor | None:
    """``[..., m, k] @ [..., k, n]``: the rows' places, if each row has one; else the columns'."""
    one, other = call.inputs[-2:]
    rows, columns = placing.get(one), placing.get(other)
    if rows is not None and rows.shape[-1] == 1:
        return rows
    if columns is not None and other.dim() > 1 and columns.shape[-2] == 1:
        return columns
    return None


@_rule("sum", "mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "max", "min", "logsumexp", "norm",
       "linalg_vector_norm", "prod", "any", "all", "median", "argmax", "argmin")  # fmt: skip
def reduce(placing: Placing, call: Call) -> torch.Tensor | None:
    """What is reduced over channels has their place; what is reduced over several places has none."""
    places = placing.get(call.inputs[0])
    if places is None or len(call.inputs) > 1:
        return same(placing, call)
    dims = reduced_dims(call, call.inputs[0])
    if any(places.shape[dim] > 1 for dim in dims):
        return None
    if call.output.dim() == places.dim():
        return places
    return places.reshape([size for dim, size in enumerate(places.shape) if dim not in dims])


def _first(places: torch.Tensor, dim: int) -> torch.Tensor:
    """The smallest place that is known along a dimension, which then has size 1."""
    if places.shape[dim] == 1:
        return places
    largest = torch.iinfo(torch.long).max
    first = places.masked_fill(places == UNKNOWN, largest).amin(dim, keepdim=True)
    return first.masked_fill(first == largest, UNKNOWN)


def _picked(places: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """The places at an index along a dimension, in half steps; outside of the map they go on as at its edge."""
    size = places.shape[dim]
    if size == 1:
        return places
    below = index.div(2, rounding_mode="floor")
    inside = below.clamp(0, size - 2)
    begin, following = places.index_select(dim, inside), places.index_select(dim, inside + 1)
    steps = following - begin
    usual = steps.flatten().mode().values
    column = (-1, *[1] * (places.dim() - 1 - dim))
    whole, half = (below - inside).view(column), (index % 2).view(column)
    moved = begin + whole * steps + torch.where(steps == usual, half * steps, 0).div(2, rounding_mode="floor")
    known = torch.where(whole == 1, following, begin) != UNKNOWN
    outside = (whole != 0) & (whole != 1) | (half == 1)
    moved = torch.where(outside & ((begin == UNKNOWN) | (following == UNKNOWN)), begin, moved)
    return torch.where(known, torch.where(whole == 1, torch.where(half == 1, moved, following), moved), UNKNOWN)


def _windows(
    placing: Placing, call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any, transposed: bool = False
) -> torch.Tensor | None:
    """The places of what looks at windows of ``kernel`` cells: the middle of a window is the middle of its cell.

    But with strides, maps that cover the input cover it evenly, as in the paper: that windows look half a step to the
    side does not add up.
    """
    x, out = call.inputs[0], call.output
    places = placing.get(x)
    if places is None or out.dim() != x.dim():
        return None
    count = len(kernel)
    channels = x.dim() - count - 1
    places = _first(places, channels)
    settings = (_each(value, count) for value in (kernel, stride or kernel, padding, dilation))
    for dim, k, s, p, d in zip(range(channels + 1, x.dim()), *settings, strict=True):
        cells, reach = torch.arange(out.shape[dim]), d * (k - 1)
        if transposed:
            index = (2 * cells + 2 * p - reach + s - 1).div(s, rounding_mode="floor")
            index = index - index % 2
        else:
            covers = s > 1 and out.shape[dim] == -(-x.shape[dim] // s)
            index = 2 * cells * s + (0 if covers else reach + 1 - s - 2 * p)
        places = _picked(places, dim, index)
    return placing.spread(places) if transposed else placing.snapped(places)


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return values * count if len(values) == 1 else values


@_rule("convolution", "_convolution", "convolution_overrideable")
def convolution(placing: Placing, call: Call) -> torch.Tensor | None:
    """A convolution, transposed or not."""
    _, weight, _, stride, padding, dilation, transposed = call.args[:7]
    return _windows(placing, call, list(weight.shape[2:]), stride, padding, dilation, transposed)


@_rule("torchvision::deform_conv2d", "deform_conv2d")
def deformable_convolution(placing: Placing, call: Call) -> torch.Tensor | None:
    """A convolution at positions that are moved a little."""
    args = call.args
    return _windows(placing, call, list(args[1].shape[2:]), args[5:7], args[7:9], args[9:11])


@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pooling(placing: Placing, call: Call) -> torch.Tensor | None:
    """Average pooling."""
    _, kernel, stride, padding = call.args[:4]
    return _windows(placing, call, _each(kernel, call.output.dim() - 2), stride, padding, 1)


@_rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
       "mkldnn_max_pool2d")  # fmt: skip
def max_pooling(placing: Placing, call: Call) -> torch.Tensor | None:
    """Maximum pooling."""
    _, kernel, stride, padding, dilation = call.args[:5]
    return _windows(placing, call, _each(kernel, call.output.dim() - 2), stride, padding, dilation)


def resize(placing: Placing, call: Call) -> torch.Tensor | None:
    """Upsampling, and pooling to a given size."""
    x, out = call.inputs[0], call.output
    places = placing.get(x)
    if places is None:
        return None
    for dim in range(2, x.dim()):
        index = torch.arange(out.shape[dim]) * x.shape[dim] // out.shape[dim]
        places = _picked(places, dim, 2 * index)
    return placing.spread(places)


for _name, _dims in itertools.product(
    ("adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest", "_upsample_nearest_exact"),
    ("1d", "2d", "3d"),
):
    _rule(_name + _dims)(resize)
_rule("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
      "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")(resize)  # fmt: skip


@_rule("constant_pad_nd")
def pad(placing: Placing, call: Call) -> torch.Tensor | None:
    """Padding lies around the image."""
    x, padding = call.args[:2]
    places = placing.get(x)
    if places is None:
        return None
    for i in range(len(padding) // 2):
        dim = x.dim() - 1 - i
        places = _picked(places, dim, 2 * torch.arange(-padding[2 * i], x.shape[dim] + padding[2 * i + 1]))
    return places


@_rule("grid_sampler_2d", "grid_sampler_3d", "_fft_r2c", "_fft_c2r", "_fft_c2c", "col2im", "nonzero", "sort", "topk",
       "scatter", "scatter_add", "index_put", "_unsafe_index_put", "_index_put_impl")  # fmt: skip
def unknown(placing: Placing, call: Call) -> torch.Tensor | None:
    """Where the elements of the result lie is not known."""
    return None


@dataclass(frozen=True)
class Placed:
    """Where the cells of the maps lie that layers read, in one forward pass.

    Attributes:
        frame: the images.
        reads: for each layer, for each of its calls, the cells; None if these cover the images evenly or are unknown.
        outputs: the same for each floating-point tensor among the outputs.
        regions: where the regions' pixels lie that belong to an output of the same size, such as a cropped one; None if
            they cover the images.
    """

    frame: Frame
    reads: dict[nn.Module, list[Cells | None]]
    outputs: list[Cells | None]
    regions: Cells | None

    def of_batch(self, images: int, batch: int) -> Placed | None:
        """The places in a batch of another size; None if they do not follow from these. See `Cells.of_batch`."""
        if images == batch:
            return self
        made: dict[Cells | None, Cells | None] = {None: None}
        for cells in itertools.chain(*self.reads.values(), self.outputs, [self.regions]):
            if cells is not None and cells not in made:
                made[cells] = cells.of_batch(images, batch)
                if made[cells] is None:
                    return None
        reads = {layer: [made[cells] for cells in calls] for layer, calls in self.reads.items()}
        return Placed(self.frame, reads, [made[cells] for cells in self.outputs], made[self.regions])


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
    placing = Placing(frame)
    for image in images:
        placing.set(image, frame.even(len(image), image.shape[2:]).unsqueeze(1))
    reads: dict[nn.Module, list[Cells | None]] = {}
    known: list[tuple[torch.Tensor, tuple[int, ...], Cells | None]] = []

    def cells(x: torch.Tensor, dim: int) -> Cells | None:
        places = placing.get(x)
        if places is None:
            return None
        grid = tuple(length for d, length in enumerate(x.shape) if d not in (0, dim % x.dim()))
        places = _first(places, dim).movedim(dim, 1).squeeze(1).expand(len(x), *grid).reshape(len(x), -1)
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
            placing,
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

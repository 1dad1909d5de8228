"""Region masks, from targets or segmentations, and the share of each cell of a feature map that a region covers.

Regions are a float tensor ``[batch, regions, *size]``; a value is the share of the pixel that belongs to the region.
From a binary mask, region 0 is the object (``M = 0`` in the paper) and region 1 the background (``M = 1``).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from .places.cells import Cells, Placed

VOID_LABEL = 255
"""Label that belongs to no region, as in PASCAL VOC and Cityscapes; negative labels are void too."""

GREY_ABOVE = 127
"""The largest value of a uint8 mask that is surely a label: the image of a mask goes up to 255."""


def otsu_threshold(images: torch.Tensor, bins: int = 256) -> torch.Tensor:
    """Find the threshold that best separates the grey levels of each image into two classes.

    Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 1979: the bin is chosen that
    maximises the between-class variance, the first such bin if there are several. The threshold is its upper edge, so
    that all its pixels lie below the threshold; scikit-image returns its centre.

    Args:
        images: ``[batch, *size]``, any real dtype. NaN and infinite values do not count.
        bins: number of histogram bins between the minimum and the maximum of each image.

    Returns:
        ``[batch]`` thresholds, float64. The threshold of a constant image is its value, so no pixel lies above it.
    """
    pixels = images.flatten(1).double()
    valid = pixels.isfinite()
    low = pixels.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
    high = pixels.masked_fill(~valid, -torch.inf).amax(1, keepdim=True)
    width = (high - low).clamp_min(torch.finfo(torch.float64).tiny) / bins
    index = ((pixels - low) / width).nan_to_num(0).clamp(0, bins - 1).long()
    histogram = torch.zeros(len(pixels), bins, dtype=torch.float64, device=pixels.device)
    histogram.scatter_add_(1, index, valid.double())
    centres = low + width * (torch.arange(bins, device=pixels.device) + 0.5)

    below, first_moment = histogram.cumsum(1), (histogram * centres).cumsum(1)
    above = below[:, -1:] - below
    mean_below = first_moment / below.clamp_min(1)
    mean_above = (first_moment[:, -1:] - first_moment) / above.clamp_min(1)
    variance = (below * above * (mean_below - mean_above) ** 2)[:, :-1]
    threshold = low + width * (variance.argmax(1, keepdim=True) + 1)
    return torch.where(high > low, threshold, high).squeeze(1)


def regions_from_target(target: torch.Tensor, threshold: float | str, spatial_dims: int = 2) -> torch.Tensor:
    """Binarise targets (section 3 of the paper): the object is where the target exceeds the threshold.

    Args:
        target: ``[batch, *size]`` or ``[batch, channels, *size]``. What it holds follows from its type and values:

            - planes, bool or with no values but 0 and 1, more than one, one for each structure: they may overlap, and
              the object is where any of them exceeds the threshold;
            - planes that are the shares or probabilities of classes (they add up to 1 everywhere, one-hot for
              instance): the first is the background, and the object is the share of the others;
            - any other image: its channels are averaged;
            - integers other than uint8, in one plane: labels, of which those below 0 and 255 are void.

            Pixels with NaN or infinity are void: they belong neither to the object nor to the background.
        threshold: a number in the target's units, or ``"otsu"`` for one threshold per image.
        spatial_dims: number of dimensions of ``size``.

    Returns:
        ``[batch, 2, *size]``, object and background.

    Raises:
        ValueError: the target is not an image, or it is not known whether it holds labels or grey levels.
    """
    if target.ndim not in (spatial_dims + 1, spatial_dims + 2):
        raise ValueError(
            f"target has shape {list(target.shape)}, which is not a batch of images with {spatial_dims} spatial "
            "dimensions, so it cannot be thresholded: let `loader` yield (input, target, mask), or pass `masks`, a "
            "callable (input, target) -> mask"
        )
    planes = target.unsqueeze(1) if target.ndim == spatial_dims + 1 else target
    if not _holds_labels(planes) and threshold != "otsu" and float(threshold) < 1 and bool((planes == 255).any()):
        raise ValueError(
            f"target is {str(target.dtype).removeprefix('torch.')} and holds 255, with threshold={threshold}: if it "
            "holds labels, of which 255 is void, yield target.long(); if it is an image, give a threshold in its "
            "units, or threshold='otsu'"
        )
    image = _grey(planes)
    valid = image.isfinite()
    level = otsu_threshold(image) if isinstance(threshold, str) else image.new_full((len(image),), float(threshold))
    inside = image > level.view(-1, *[1] * spatial_dims)
    return torch.stack([inside & valid, ~inside & valid], 1).float()


def _grey(planes: torch.Tensor) -> torch.Tensor:
    """One plane ``[batch, *size]`` from several, in float64; void is NaN."""
    values = planes.double()
    if planes.shape[1] == 1:
        is_void = _void(planes) if _holds_labels(planes) else torch.zeros_like(planes, dtype=torch.bool)
        return values.masked_fill(is_void, torch.nan)[:, 0]
    if bool(((values >= 0) & ((values.sum(1, keepdim=True) - 1).abs() < 1e-3)).all()):
        return 1 - values[:, 0]
    if bool(((values == 0) | (values == 1)).all()):
        return values.amax(1)
    return values.mean(1)


def _holds_labels(planes: torch.Tensor) -> bool:
    return not (planes.is_floating_point() or planes.dtype in (torch.bool, torch.uint8))


def _void(labels: torch.Tensor) -> torch.Tensor:
    """Where a label map belongs to no region."""
    return (labels < 0) | (labels == VOID_LABEL)


def regions_from_mask(mask: torch.Tensor, spatial_dims: int = 2) -> torch.Tensor:
    """Convert a mask, in any of the usual forms, to regions.

    Args:
        mask: one of

            - bool, or float in 0..1, ``[batch, *size]`` or ``[batch, 1, *size]``: the object is 1, the rest background;
            - bool, or float in 0..1, ``[batch, regions, *size]``: one plane per region;
            - integer ``[batch, *size]`` or ``[batch, 1, *size]``: a label map, region r is where the label is r.
              Negative labels and 255 are void. As uint8, labels are at most 127: larger values could be grey levels.
        spatial_dims: number of dimensions of ``size``.

    Returns:
        ``[batch, regions, *size]``. A label map has planes for the labels from 0 to the largest one in this batch.

    Raises:
        ValueError: the mask has none of these forms.
    """
    if mask.ndim == spatial_dims + 1:
        mask = mask.unsqueeze(1)
    if mask.ndim != spatial_dims + 2:
        raise ValueError(
            f"mask has shape {list(mask.shape)}; expected [batch, *size] or [batch, regions, *size] with "
            f"{spatial_dims} spatial dimensions"
        )
    if mask.dtype == torch.bool or mask.is_floating_point():
        planes = mask.float()
        if not (planes.ge(0) & planes.le(1)).all():
            raise ValueError(
                f"mask has values from {planes.min():g} to {planes.max():g}; a float mask must lie in 0..1: scale it, "
                "or give labels as integers"
            )
        return torch.cat([planes, 1 - planes], 1) if planes.shape[1] == 1 else planes
    if mask.shape[1] != 1:
        raise ValueError(
            f"mask is an integer label map with {mask.shape[1]} channels (shape {list(mask.shape)}); expected one, or "
            "one bool plane per region"
        )
    if mask.dtype == torch.uint8 and int(mask.max()) > GREY_ABOVE:
        raise ValueError(
            f"mask is uint8 with values up to {int(mask.max())}, which could be grey levels as well as labels: yield "
            "mask > 127 for an object and its background, or mask.long() for labels, of which 255 is void"
        )
    labels = mask[:, 0].long()
    nowhere = _void(labels)
    top = int(labels.masked_fill(nowhere, 0).max())
    if top > VOID_LABEL:
        raise ValueError(f"mask holds the label {top}; label maps go from 0 to {VOID_LABEL - 1}")
    return F.one_hot(labels.masked_fill(nowhere, top + 1), top + 2).movedim(-1, 1)[:, : top + 1].float()


class RegionMasks:
    """The regions of one batch, which can be resampled to the grid of any feature map.

    Args:
        planes: ``[batch, regions, *size]`` in 0..1.

    Attributes:
        placed: where the feature maps lie in the images; None if they all cover the images evenly.
    """

    def __init__(self, planes: torch.Tensor):
        self.planes = planes
        self.placed: Placed | None = None
        self._weights: dict[tuple[int, ...], torch.Tensor | None] = {}
        self._of_cells: dict[Cells, torch.Tensor] = {}
        self._sums: torch.Tensor | None = None

    def weights_of(self, cells: Cells) -> torch.Tensor:
        """Compute the weight of each cell of a feature map that does not cover the images evenly.

        Returns:
            ``[maps, 2, regions, cells]``, as `weights` gives them. What lies outside of the image is in no region.
        """
        if cells not in self._of_cells:
            self._of_cells[cells] = self._weigh_cells(cells)
        return self._of_cells[cells]

    def weights_of_output(self, output: torch.Tensor) -> torch.Tensor | None:
        """The weights of the cells of an output ``[batch, channels, *grid]``, as `weights` gives them."""
        maps, grid = len(output), tuple(output.shape[2:])
        if self.placed is not None and grid != tuple(self.planes.shape[2:]):
            for cells in self.placed.outputs:
                if cells is not None and cells.image.shape == (maps, math.prod(grid)):
                    return self.weights_of(cells)
        return self.weights(maps, grid)

    def _weigh_cells(self, cells: Cells) -> torch.Tensor:
        if self._sums is None:
            self._sums = self._placed_planes().movedim(1, 0).double()
            for dim in range(2, self._sums.dim()):
                self._sums = F.pad(self._sums.cumsum(dim).movedim(dim, -1), (1, 0)).movedim(-1, dim)
        sizes, total = self._sums.shape[2:], torch.zeros((), dtype=torch.float64)
        ends = [
            [(begin + step).clamp(0, whole - 1) for step in (0, size)]
            for begin, size, whole in zip(cells.begins, cells.size, sizes, strict=True)
        ]
        for corner in itertools.product((0, 1), repeat=len(sizes)):
            index = cells.image.clamp(0)
            for side, end, whole in zip(corner, ends, sizes, strict=True):
                index = index * whole + end[side]
            sums = self._sums.flatten(1)[:, index.to(self.planes.device)]
            total = total + (-1) ** (len(sizes) - sum(corner)) * sums
        coverage = (total / math.prod(cells.size)).masked_fill((cells.image < 0).to(self.planes.device), 0)
        coverage = coverage.movedim(0, 1).float()
        return torch.stack([(coverage >= 1 - 1e-6).float(), coverage], 1)

    def _placed_planes(self) -> torch.Tensor:
        """The regions on the pixels of the images' frame, ``[batch, regions, *pixels]``."""
        placed = cast("Placed", self.placed)
        pixels = [size // 2 for size in placed.frame.size]
        if placed.regions is None and any(p % own for p, own in zip(pixels, self.planes.shape[2:], strict=True)):
            return F.interpolate(self.planes, size=pixels, mode="area")
        planes, count = self.planes, len(pixels)
        begins = [0] * count if placed.regions is None else [int(b.min()) for b in placed.regions.begins]
        for dim, (begin, whole) in enumerate(zip(begins, pixels, strict=True)):
            pitch = whole // planes.shape[2 + dim] if placed.regions is None else placed.regions.size[dim]
            planes = planes.repeat_interleave(pitch, 2 + dim).movedim(2 + dim, -1)
            planes = F.pad(planes, (begin, whole - begin - planes.shape[-1])).movedim(-1, 2 + dim)
        return planes

    def weights(self, batch: int, grid: tuple[int, ...]) -> torch.Tensor | None:
        """Compute the weight of each cell of a feature map in the mean of each region.

        Each plane is resampled to the grid by average pooling (section 3 of the paper). This gives the coverage: the
        share of each cell that lies in the region. A cell is pure if its coverage is 1.

        Args:
            batch: the batch size of the feature map.
            grid: its spatial size. One number, where regions have two dimensions, is a number of tokens (`token_grid`).

        Returns:
            ``[batch, 2, regions, cells]``: first 1 for pure cells and 0 for others, then the coverage. None if the
            positions of the cells in the image are unknown, as after global pooling, flattening or window partitioning.
        """
        if batch != len(self.planes) or math.prod(grid) == 1:
            return None
        if grid not in self._weights:
            self._weights[grid] = self._weigh(grid)
        return self._weights[grid]

    def _weigh(self, grid: tuple[int, ...]) -> torch.Tensor | None:
        size, prefix_tokens = self.planes.shape[2:], 0
        if len(grid) == 1 and len(size) == 2:
            prefix_tokens, grid = token_grid(grid[0], size)
        if len(grid) != len(size):
            return None
        coverage = F.interpolate(self.planes, size=grid, mode="area").flatten(2)
        coverage = F.pad(coverage, (prefix_tokens, 0))
        return torch.stack([(coverage >= 1 - 1e-6).float(), coverage], 1)


def token_grid(tokens: int, size: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Split a transformer's number of tokens into prefix tokens (class, distillation, up to four registers) and a grid.

    The grid has the proportions of the image, ``size``. It is empty if no such grid has this number of tokens.
    """
    for prefix in range(6):
        height = math.isqrt(max(tokens - prefix, 0) * size[0] // size[1])
        for rows in (height, height + 1):
            columns = rows * size[1] // size[0]
            if rows * columns == tokens - prefix > 1 and rows * size[1] == columns * size[0]:
                return prefix, (rows, columns)
    return 0, ()

"""The contributions of the input channels of a layer to sampled outputs, for ThiNet."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn as nn

from ..calibration.measurements import Measurement, Reading
from ..graph.layers import mixes_channels
from .grams import Gram


@dataclass(frozen=True)
class Contributions(Measurement):
    """The Gram matrix of the contributions of a layer's input channels to its outputs.

    A row of ``X`` is one sampled output value (image, position, filter) without its bias, split into the contributions
    of the input channels: ``y = sum_c x_c``, ``x_c = sum_k W[filter, c, k] input[c, position + k]``. Both forms of
    ThiNet need only the Gram matrix ``X' X`` of the samples.

    For a layer that does not mix channels (depthwise convolution, customized layer), the matrix is diagonal and holds
    the energies of the input channels.

    Attributes:
        locations: number of samples per image (10 in the authors' code).
        seed: seeds the sampling.
    """

    locations: int = 10
    seed: int = 0
    depends_on_layer: ClassVar[bool] = True

    def measure(self, reading: Reading) -> Gram:
        """Sampled rows, or energies."""
        if not mixes_channels(reading.layer):
            energies = reading.magnitude.square().sum(2).sum(0, dtype=torch.float64)
            return Gram(reading.x.new_zeros(0, len(energies), dtype=torch.float32), energies.diag())
        generator = torch.Generator().manual_seed(hash((self.seed, *reading.number)))
        return Gram(contributions(reading.layer, reading.x, self.locations, generator))

    def result(self, total: Gram, present: torch.Tensor, reader: str) -> Gram:
        """The Gram matrix."""
        return total.cpu()

    @staticmethod
    def is_finite(values: Gram) -> bool:
        """Whether the matrix is free of NaN and infinity."""
        return values.is_finite()


def contributions(layer: Any, x: torch.Tensor, locations: int, generator: torch.Generator) -> torch.Tensor:
    """Compute the contributions of the input channels to sampled outputs of a convolution or linear layer.

    Args:
        layer: convolution (of one to three dimensions, strided, dilated, grouped, transposed) or linear layer.
        x: its input, ``[batch, channels, *grid]``; the features of a linear layer are dimension 1 too.
        locations: number of samples per image.
        generator: draws filters and positions uniformly.

    Returns:
        ``[batch * locations, channels]`` float32; the sum over channels is the output without its bias.
    """
    convolution = isinstance(layer, nn.modules.conv._ConvNd)
    groups, transposed = getattr(layer, "groups", 1), getattr(layer, "transposed", False)
    batch, channels, *grid = x.shape
    count = batch * locations
    out_channels = layer.out_channels if convolution else layer.out_features
    image = torch.arange(batch, device=x.device).repeat_interleave(locations)
    filters = torch.randint(out_channels, (count,), generator=generator).to(x.device)
    group = filters // (out_channels // groups)

    weight = layer.weight.detach().flatten(2) if convolution else layer.weight.detach().unsqueeze(2)
    if transposed:  # [in, out / groups, kernel]
        weight = weight.unflatten(0, (groups, -1))[group, :, filters % (out_channels // groups)]
    else:  # [out, in / groups, kernel]
        weight = weight[filters]
    cells, valid = _cells_under(layer, grid, count, generator) if convolution else _any_cell(grid, count, generator)
    cells, valid = cells.to(x.device), valid.to(x.device)
    inputs = x.flatten(2) if grid else x.unsqueeze(2)
    inputs = inputs.unflatten(1, (groups, -1))[image[:, None], group[:, None], :, cells]  # [count, kernel, in / groups]
    sums = torch.einsum("nkc,nck->nc", inputs.float() * valid.unsqueeze(2), weight.float())
    rows = sums.new_zeros(count, groups, channels // groups)
    rows[torch.arange(count, device=x.device), group] = sums
    return rows.flatten(1)


def _any_cell(grid: list[int], count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    cells = torch.randint(max(1, torch.Size(grid).numel()), (count, 1), generator=generator)
    return cells, torch.ones_like(cells, dtype=torch.bool)


def _cells_under(
    layer: Any, grid: list[int], count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input cells that random output positions of a convolution read: indices and validity, ``[count, kernel]``."""
    offsets = torch.tensor(list(itertools.product(*map(range, layer.kernel_size))))  # [kernel, dimensions]
    flat, valid = torch.zeros(count, len(offsets), dtype=torch.long), torch.ones(count, len(offsets), dtype=torch.bool)
    for d, size in enumerate(grid):
        stride, dilation, kernel = layer.stride[d], layer.dilation[d], layer.kernel_size[d]
        before, after = layer._reversed_padding_repeated_twice[-2 * d - 2 : len(grid) * 2 - 2 * d]
        reach = dilation * (kernel - 1)
        if layer.transposed:
            outputs = (size - 1) * stride - before - after + reach + layer.output_padding[d] + 1
            position = torch.randint(outputs, (count, 1), generator=generator) + before - dilation * offsets[:, d]
            inside = (position % stride == 0) & (position >= 0) & (position < size * stride)
            position = position // stride
        else:
            outputs = (size + before + after - reach - 1) // stride + 1
            position = torch.randint(outputs, (count, 1), generator=generator) * stride - before
            position = position + dilation * offsets[:, d]
            inside = (position >= 0) & (position < size)
            if layer.padding_mode == "circular":
                position, inside = position % size, torch.ones_like(inside)
            elif layer.padding_mode == "reflect":
                position = (size - 1) - ((size - 1) - position.abs()).abs()
                inside = torch.ones_like(inside)
            elif layer.padding_mode == "replicate":
                inside = torch.ones_like(inside)
        flat = flat * size + position.clamp(0, size - 1)
        valid &= inside
    return flat, valid

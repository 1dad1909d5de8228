"""The figure of channels.md: labels that go through a window partition and a pixel shuffle.

A small network is followed by the rules of `torchprune_spatial.graph.labels`, and its tensors are
drawn with the labels that they carry. Takes seconds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from resolution_scaling.ground.figures import SMALL, TEXT, new_figure, saved
from torchprune_spatial import ChannelGraph
from torchprune_spatial.graph.labels.classes import LabelClasses
from torchprune_spatial.graph.labels.following import Following
from torchprune_spatial.graph.labels.parameters import label_parameters
from torchprune_spatial.graph.labels.trace import Dispatch

CHANNELS, SIZE, WINDOW, FACTOR = 8, 4, 2, 2
SHADES = ("#08519c", "#3182bd", "#6baed6", "#9ecae1", "#a63603", "#e6550d", "#fd8d3c", "#fdbe85")
"""A colour for each channel of the first layer: those that become one channel are of one hue."""

Look = Callable[[str, torch.Tensor], None]


class Windows(nn.Module):
    """Convolution; windows, in which a linear layer is added; pixel shuffle; convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False)
        self.proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.conv2 = nn.Conv2d(CHANNELS // FACTOR**2, 1, 3, padding=1, bias=False)

    def forward(self, image: torch.Tensor, look: Look = lambda *_: None) -> torch.Tensor:
        """Show some tensors to ``look`` on the way."""
        x = self.conv1(image)
        look("made", x)
        n, c, h, w = x.shape
        x = x.view(n, c, h // WINDOW, WINDOW, w // WINDOW, WINDOW)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(-1, WINDOW * WINDOW, c)
        look("windows", x)
        x = x + self.proj(x)
        look("added", x)
        x = x.view(n, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c)
        x = x.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        x = x.view(n, -1, FACTOR, FACTOR, h, w).permute(0, 1, 4, 2, 5, 3)
        x = x.reshape(n, -1, FACTOR * h, FACTOR * w)
        look("shuffled", x)
        y = self.conv2(x)
        look("united", x)
        return y


def followed(model: Windows, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """The labels of the tensors that the model shows, as channels of its first layer."""
    following, seen = Following(LabelClasses()), {}
    axes = label_parameters(model, following, None)
    channel_of = {int(label): i for i, label in enumerate(axes["conv1.weight", 0])}

    def look(name: str, tensor: torch.Tensor) -> None:
        (track,) = following.get(tensor)
        seen[name] = track.expand(tensor.shape).clone().apply_(channel_of.__getitem__)

    with torch.no_grad(), Dispatch(following):
        model(image, look)
    return seen


def coordinates(model: Windows, image: torch.Tensor) -> dict[tuple[str, int], torch.Tensor]:
    """The classes of a `ChannelGraph` as channels of the first layer, for each dimension."""
    found = {}
    for members in ChannelGraph().build_dependency(model, image).classes():
        first = min(index for name, dim, index in members if (name, dim) == ("conv1.weight", 0))
        for name, dim, index in members:
            size = model.get_parameter(name).shape[dim]
            found.setdefault((name, dim), torch.zeros(size, dtype=torch.long))[index] = first
    return found


def cells(axes: Axes, labels: torch.Tensor, write: bool = False) -> None:
    """Draw labels ``[rows, columns]`` as cells, with their numbers if asked."""
    colors = ListedColormap(SHADES)
    axes.imshow(labels.numpy(), cmap=colors, vmin=-0.5, vmax=CHANNELS - 0.5)
    for edge, lines in ((axes.axhline, labels.shape[0]), (axes.axvline, labels.shape[1])):
        for line in range(1, lines):
            edge(line - 0.5, color="white", linewidth=0.5)
    for (row, column), label in np.ndenumerate(labels.numpy()):
        if write:
            color = "white" if label % 4 < 2 else "black"
            axes.text(
                column, row, str(label), color=color, fontsize=SMALL - 1, ha="center", va="center"
            )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw(path: Path) -> Figure:
    """Follow, and draw."""
    torch.manual_seed(0)
    model, image = Windows(), torch.rand(1, 1, SIZE, SIZE)
    seen, classes = followed(model, image), coordinates(model, image)
    assert torch.equal(classes["proj.weight", 1], classes["conv1.weight", 0])
    assert torch.equal(seen["united"][0, :, 0, 0], classes["conv2.weight", 1])
    figure = new_figure(11, 4.8)
    top, bottom = figure.subfigures(2, 1, height_ratios=[3, 1])
    parts = top.subfigures(1, 4, width_ratios=[1.25, 1.25, 1, 1])

    grid = parts[0].subplots(2, CHANNELS // 2)
    for channel, axes in enumerate(grid.flat):
        cells(axes, seen["made"][0, channel])
        axes.set_title(f"channel {channel}", fontsize=SMALL)
    grid = parts[1].subplots(2, 2)
    for window, axes in enumerate(grid.flat):
        cells(axes, seen["windows"][window], write=True)
        axes.set_title(f"window {window}", fontsize=SMALL)
        axes.set_ylabel("tokens" if window % 2 == 0 else "", fontsize=SMALL)
        axes.set_xlabel("channels" if window > 1 else "", fontsize=SMALL)
    for part, name in ((parts[2], "shuffled"), (parts[3], "united")):
        for channel, axes in enumerate(part.subplots(2, 1)):
            cells(axes, seen[name][0, channel], write=True)
            axes.set_title(f"channel {channel}", fontsize=SMALL)
    titles = (
        "1. made by conv1\n[8, 4, 4]: a label each",
        "2. moved into windows\n[4, 4, 8]: a label a column",
        "3. moved by the shuffle\n[2, 8, 8]",
        "4. when conv2 has read it\n[2, 8, 8]: a class each",
    )
    for part, title in zip(parts, titles, strict=True):
        part.suptitle(title, fontsize=TEXT)

    shown = (
        ("conv1.weight\ndimension 0", classes["conv1.weight", 0][None]),
        ("proj.weight\ndimension 0", classes["proj.weight", 0][None]),
        ("proj.weight\ndimension 1", classes["proj.weight", 1][None]),
        ("conv2.weight\ndimension 1", classes["conv2.weight", 1][None]),
    )
    bottom.suptitle(
        "the classes: coordinates of parameters that are removed together", fontsize=TEXT
    )
    for (name, labels), axes in zip(
        shown, bottom.subplots(1, 4, width_ratios=[8, 8, 8, 2]), strict=True
    ):
        cells(axes, labels)
        axes.set_xticks(
            range(labels.shape[1]), [str(i) for i in range(labels.shape[1])], fontsize=SMALL
        )
        axes.tick_params(length=0)
        axes.set_title(name, fontsize=SMALL)
    return saved(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("docs/pictures/labels.png"), help="file of the figure"
    )
    draw(parser.parse_args().output)

"""Patterns of real networks between two layers: how many of eight channels are left, and that this is right."""

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
import torchvision
from torch import nn

from torchprune_spatial import following_channels
from torchprune_spatial.check.masked_run import MaskedRun

IMAGES = torch.rand(2, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))


class Blur(nn.Module):
    """A fixed filter, applied to each channel as an image of its own."""

    def forward(self, x):
        b, c, h, w = x.shape
        kernel = torch.full((1, 1, 3, 3), 1 / 9, dtype=x.dtype)
        return F.conv2d(x.reshape(b * c, 1, h, w), kernel, padding=1).view(b, c, h, w)


class EachChannelAsImage(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        return self.narrow(self.wide(x.reshape(b * c, 1, h, w)).relu()).view(b, c, h, w)


class WeightedStack(nn.Module):
    """CoaT's aggregation: a convolution of kernel size 1 along the channels, of which the input channels are parts."""

    def __init__(self):
        super().__init__()
        self.aggregate = nn.Conv1d(3, 1, 1)

    def forward(self, x):
        y = x.mean((2, 3))
        return x * self.aggregate(torch.stack([y, y.sin(), y.cos()], 1)).squeeze(1)[..., None, None]


class EfficientChannelAttention(nn.Module):
    """A convolution over neighbouring channels: without one of them, others would be neighbours."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        return x * self.conv(x.mean((2, 3))[:, None])[:, 0][..., None, None].sigmoid()


class Windows(nn.Module):
    """HAT's windows of keys and values: a product of four numbers is compared with the size of the tensor."""

    def __init__(self):
        super().__init__()
        self.window, self.parts = 4, nn.Conv2d(8, 16, 1)

    def forward(self, x):
        c = x.shape[1]
        y = F.unfold(self.parts(x), self.window, stride=self.window)
        if y.shape[1] != 2 * c * self.window * self.window:
            raise ValueError("the windows do not fit")
        keys, values = y.view(len(x), 2, c, self.window * self.window, -1).unbind(1)
        return x + (keys * values).mean((2, 3))[..., None, None]


class Distances(nn.Module):
    """A soft choice among the vectors of a code book."""

    def __init__(self):
        super().__init__()
        self.book = nn.Parameter(torch.rand(6, 8))

    def forward(self, x):
        tokens = x.flatten(2).mT
        return ((-torch.cdist(tokens, self.book)).exp() @ self.book).mT.reshape(x.shape)


class PlainTable(nn.Module):
    """A table that is a plain attribute, as the positions of vit-pytorch's SimpleViT."""

    def __init__(self):
        super().__init__()
        self.table = torch.rand(8, 1, 1)

    def forward(self, x):
        return x + self.table


class LargestValue(nn.Module):
    """A number that is read from a tensor: it changes, but not because of any number of channels."""

    def forward(self, x):
        return x / float(x.abs().max())


class Regions(nn.Module):
    """A region of each image, as in Mask R-CNN."""

    def forward(self, x):
        boxes = [torch.tensor([[1.0, 1, 6, 6]], dtype=x.dtype)] * len(x)
        return torchvision.ops.roi_align(x, boxes, 8)


class Recurrent(nn.Module):
    """A convolutional LSTM whose first state is made by ``zeros``.

    Args:
        zeros: ``(module, x)`` -> the state.
    """

    def __init__(self, zeros):
        super().__init__()
        self.hidden, self.zeros = 8, zeros
        self.gates = nn.Conv2d(16, 32, 3, padding=1)

    def forward(self, x):
        h = c = self.zeros(self, x)
        for _ in range(2):
            i, f, o, g = self.gates(torch.cat([x, h], 1)).split(self.hidden, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


STATES = {
    "new_zeros": lambda m, x: x.new_zeros(x.shape[0], m.hidden, *x.shape[2:]),
    "zeros": lambda m, x: torch.zeros(x.shape[0], m.hidden, x.shape[2], x.shape[3], dtype=x.dtype),
    "zeros of a size": lambda m, x: torch.zeros(size=(x.shape[0], m.hidden, *x.shape[2:])).to(x),
    "from a layer": lambda m, x: torch.zeros([x.shape[0], m.gates.out_channels // 4, *x.shape[2:]]).to(x),
}
PATTERNS = {
    "blur": (Blur, 4),
    "each channel as an image": (EachChannelAsImage, 4),
    "weighted stack": (WeightedStack, 4),
    "efficient channel attention": (EfficientChannelAttention, 8),
    "windows": (Windows, 4),
    "distances": (Distances, 4),
    "plain table": (PlainTable, 4),
    "largest value": (LargestValue, 4),
    "regions": (Regions, 4),
    **{f"recurrent, {name}": (lambda zeros=zeros: Recurrent(zeros), 4) for name, zeros in STATES.items()},
}


@pytest.mark.parametrize("name", PATTERNS)
def test_half_of_the_channels_go_and_what_is_left_is_right(name):
    build, expected = PATTERNS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), build(), nn.Conv2d(8, 2, 1)).double().eval()
    with following_channels():
        pruner = tp.pruner.BasePruner(model, IMAGES, importance=tp.importance.RandomImportance(), pruning_ratio=0.5)
    before = MaskedRun(pruner.DG)
    pruner.step()
    assert model[0].out_channels == expected
    assert before.difference(IMAGES) < 1e-12


@pytest.mark.parametrize(("groups", "outputs"), [(4, 8), (4, 16), (2, 8)])
def test_scores_of_transposed_convolutions_with_groups(groups, outputs):
    """Torch-Pruning alone fails with an IndexError. Each output channel counts with all its weights."""
    torch.manual_seed(0)
    make, read = nn.ConvTranspose2d(8, outputs, 2, 2, groups=groups), nn.Conv2d(outputs, 2, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), make, nn.ReLU(), read)
    of_group = [weight.square().sum((0, 2, 3)) for weight in make.weight.chunk(groups)]
    expected = torch.cat(of_group) + read.weight.square().sum((0, 2, 3))
    importance = tp.importance.GroupMagnitudeImportance(group_reduction="sum", normalizer=None)
    with following_channels():
        pruner = tp.pruner.BasePruner(model, IMAGES.float(), importance=importance, pruning_ratio=0.5)
    scores = [
        importance(group)
        for group in pruner.DG.get_all_groups()
        if any(dep.target.module is read and not pruner.DG.is_out_channel_pruning_fn(dep.handler) for dep, _ in group)
    ]
    torch.testing.assert_close(scores[0].sort().values, expected.detach().sort().values)

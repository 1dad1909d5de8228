"""What networks do with their weights and positions can be followed, and is pruned as it would be masked."""

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from torchprune_spatial.check.masked_run import MaskedRun
from torchprune_spatial.graph.channel_graph import ChannelGraph
from torchprune_spatial.graph.pruners import following_channels

WIDTH = 24


class Filtered(nn.Module):
    """Convolutions around a filter that all channels share, or that each has of its own."""

    def __init__(self, code, out=WIDTH):
        super().__init__()
        self.code, self.width = code, WIDTH
        self.first, self.last = nn.Conv2d(3, WIDTH, 3), nn.Conv2d(out, 2, 1)
        self.register_buffer("own", torch.rand(WIDTH, 1, 3, 3))
        self.register_buffer("one", torch.rand(1, 1, 3, 3))
        self.register_buffer("bank", torch.rand(4, 1, 2, 2))

    def forward(self, x):
        return self.last(torch.relu(self.code(self, torch.relu(self.first(x)))))


FILTERS = {
    "a filter a channel, groups from an attribute": (lambda m, y: F.conv2d(y, m.own, groups=m.width), WIDTH),
    "a filter a channel, groups from a shape": (lambda m, y: F.conv2d(y, m.own, None, 1, 0, 1, y.shape[1]), WIDTH),
    "repeated": (lambda m, y: F.conv2d(y, m.one.repeat(m.width, 1, 1, 1), groups=m.width), WIDTH),
    "repeated by a shape": (lambda m, y: F.conv2d(y, m.one.repeat(y.size(1), 1, 1, 1), groups=y.size(1)), WIDTH),
    "tiled": (lambda m, y: F.conv2d(y, torch.tile(m.one, (m.width, 1, 1, 1)), groups=m.width), WIDTH),
    "expanded": (lambda m, y: F.conv2d(y, m.one.expand(m.width, -1, -1, -1), groups=m.width), WIDTH),
    "wavelets": (lambda m, y: F.conv2d(y, m.bank.repeat(m.width, 1, 1, 1), stride=2, groups=m.width), 4 * WIDTH),
}


def layers(change, kind=nn.Conv2d):
    """Two layers that are changed, a third that is not."""
    sizes = {} if kind is nn.Linear else {"kernel_size": 3}
    return nn.Sequential(
        change(kind(3, 16, **sizes)), nn.ReLU(), change(kind(16, 24, **sizes)), nn.ReLU(), kind(24, 2, **sizes)
    )


def grouped(change):
    return nn.Sequential(
        change(nn.Conv2d(3, 16, 3)),
        change(nn.Conv2d(16, 16, 3, groups=16)),
        change(nn.Conv2d(16, 24, 3, groups=4)),
        nn.ReLU(),
        nn.Conv2d(24, 2, 1),
    )


class LowRank(nn.Module):
    """A weight with a product of two matrices added to it."""

    def __init__(self, weight):
        super().__init__()
        self.down = nn.Parameter(torch.randn(4, weight[0].numel()))
        self.up = nn.Parameter(torch.randn(len(weight), 4))

    def forward(self, weight):
        return weight + (self.up @ self.down).view(weight.shape)


def low_rank(layer):
    return parametrize.register_parametrization(layer, "weight", LowRank(layer.weight))


CHANGES = {
    "spectral norm by hooks": nn.utils.spectral_norm,
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "low rank": low_rank,
}


class Rotary(nn.Module):
    """Attention whose queries and keys are rotated by tables of their positions."""

    def __init__(self, rotated, heads=4, width=8):
        super().__init__()
        self.rotated, self.num_heads, self.head_dim = rotated, heads, width
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(16, heads * width) for _ in range(3))
        self.out = nn.Linear(heads * width, 16)
        self.register_buffer("angles", torch.rand(5, width), persistent=False)

    def forward(self, x):
        x = self.first(x)
        shape = (*x.shape[:2], self.num_heads, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (t * self.angles.cos() + self.rotated(t) * self.angles.sin() for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.last(torch.relu(x + self.out(y.reshape(*x.shape[:2], -1))))


ROTATIONS = {
    "halves": lambda t: torch.cat([-t[..., t.shape[-1] // 2 :], t[..., : t.shape[-1] // 2]], -1),
    "chunks": lambda t: torch.cat([-t.chunk(2, -1)[1], t.chunk(2, -1)[0]], -1),
    "pairs": lambda t: torch.stack([-t[..., 1::2], t[..., ::2]], -1).flatten(-2),
}


def prune(model, x):
    """Remove half at random; the layers that were left alone, and the difference to the masked network."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model, x = model.double().eval(), x.double()
    with following_channels():
        pruner = tp.pruner.BasePruner(model, x, tp.importance.RandomImportance(), pruning_ratio=0.5)
    before = MaskedRun(pruner.DG)
    pruner.step()
    return set(pruner.DG.left_alone), before.difference(x)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_which_the_groups_are_counted(name):
    torch.manual_seed(0)
    model = Filtered(*FILTERS[name])
    left, difference = prune(model, torch.rand(2, 3, 8, 8))
    assert left == {"last"}
    assert len(model.first.weight) == WIDTH // 2
    assert difference < 1e-12


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d, nn.Linear])
def test_weights_that_are_computed(name, kind):
    if name == "low rank" and kind is nn.ConvTranspose2d:
        pytest.skip("its first dimension are its inputs")
    torch.manual_seed(0)
    model = layers(CHANGES[name], kind)
    left, difference = prune(model, torch.rand(2, 3) if kind is nn.Linear else torch.rand(2, 3, 8, 8))
    assert left == {"4"}
    assert tuple(model[2].weight.shape[:2]) == ((8, 12) if kind is nn.ConvTranspose2d else (12, 8))
    assert difference < 1e-12


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "low rank"])
def test_grouped_convolutions_whose_weights_are_computed(name):
    torch.manual_seed(0)
    left, difference = prune(grouped(CHANGES[name]), torch.rand(2, 3, 12, 12))
    assert left == {"4"}
    assert difference < 1e-12


def test_a_spectral_norm_counts_as_an_average():
    graph = ChannelGraph().build_dependency(layers(parametrizations.spectral_norm), torch.rand(2, 3, 8, 8))
    assert graph.averages == ["dot product"]


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotated_heads_are_removed_as_a_whole(name):
    torch.manual_seed(0)
    model = Rotary(ROTATIONS[name])
    left, difference = prune(model, torch.rand(2, 5, 3))
    assert left == {"last"}
    assert (model.num_heads, model.head_dim) == (2, 8)
    assert [layer.out_features for layer in (model.q_proj, model.k_proj, model.v_proj)] == [16, 16, 16]
    assert model.out.in_features == 16
    assert difference < 1e-12


def test_scores_fit_a_group_whose_root_is_a_depthwise_convolution():
    """Both halves of the channels are tied to the root, and Torch-Pruning scores no depthwise convolutions."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 2, 1)
            self.one, self.other = (nn.Conv2d(8, 8, 3, padding=1, groups=8) for _ in range(2))

        def forward(self, x):
            one, other = self.first(x).chunk(2, 1)
            return self.last(self.one(one) * self.other(other))

    graph = ChannelGraph().build_dependency(Gate(), torch.rand(2, 3, 8, 8))
    (group,) = graph.get_all_groups()
    assert len(tp.importance.GroupMagnitudeImportance()(group)) == len(group[0].idxs) == 8


def test_a_square_layer_keeps_its_two_singular_vectors_apart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.utils.spectral_norm(nn.Linear(16, 16)), nn.Linear(16, 2))
    left, difference = prune(model, torch.rand(2, 3))
    assert left == {"2"}
    assert difference < 1e-12

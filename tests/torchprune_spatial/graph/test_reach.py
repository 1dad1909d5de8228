"""What networks do with their weights and positions can be followed, and is pruned as it would be masked."""

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils._pytree import tree_map

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


class TalkingHeads(nn.Module):
    """Attention whose heads are mixed by linear layers, before and after the softmax."""

    def __init__(self, heads=4, width=16):
        super().__init__()
        self.num_heads = heads
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.behind = nn.Linear(heads, heads), nn.Linear(heads, heads)

    def forward(self, x):
        x = self.first(x)
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        scores = self.before((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).softmax(-2)
        y = self.behind(scores).permute(0, 3, 1, 2) @ v
        return self.last(torch.relu(x + self.out(y.transpose(1, 2).reshape(n, tokens, width))))


class Standardized(nn.Conv2d):
    """A convolution in groups, whose weights are changed before they are used."""

    def forward(self, x):
        return F.conv2d(x, self.weight.tanh(), self.bias, groups=self.groups)


class Modulated(nn.Module):
    """Scales and shifts of a block, from a table and from an embedding, as in diffusion transformers."""

    def __init__(self, width=16):
        super().__init__()
        self.first, self.embed, self.last = nn.Linear(3, width), nn.Linear(5, 3 * width), nn.Linear(width, 2)
        self.table = nn.Parameter(torch.randn(3, width))

    def forward(self, x, time):
        scales = self.table[None] + self.embed(time).reshape(len(x), 3, -1)
        shift, scale, gate = scales.chunk(3, dim=1)
        x = self.first(x)
        return self.last(torch.relu(x + gate * (x * (1 + scale) + shift)))


class Restored(nn.Module):
    """Tokens that are put back in their places among mask tokens, as in masked autoencoders."""

    def __init__(self, code, width=16):
        super().__init__()
        self.code, self.first, self.last = code, nn.Linear(3, width), nn.Linear(width, 2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.register_buffer("places", torch.tensor([[5, 0, 2], [1, 2, 3]]))

    def forward(self, x):
        return self.last(torch.relu(self.code(self, self.first(x))))


def by_indices(model, y):
    whole = model.token.repeat(len(y), 6, 1)
    whole[torch.arange(len(y))[:, None], model.places] = y
    return whole


def by_a_mask(model, y):
    whole = y.new_zeros(len(y), 6, y.shape[-1])
    whole[torch.zeros(len(y), 6, dtype=torch.bool).scatter(1, model.places, True)] = y.flatten(0, 1)
    return whole + model.token


def by_value(model, y):
    y = y.clone()
    y[y < 0] = 0.0
    return y + model.token


WRITES = {"indices": by_indices, "a mask": by_a_mask, "its own values": by_value}


class Decoder(nn.Module):
    """A layer whose outputs are seen as an image, of a size that attributes hold."""

    def __init__(self):
        super().__init__()
        self.channels, self.size = [3, 8], [4, 4]
        self.first, self.make, self.last = nn.Linear(3, 6), nn.Linear(6, 8 * 16), nn.Conv2d(8, 2, 3)

    def forward(self, x):
        return self.last(torch.relu(self.make(self.first(x)).view(len(x), self.channels[-1], *self.size)))


def prune(model, x):
    """Remove half at random; the layers that were left alone, and the difference to the masked network."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model, x = model.double().eval(), tree_map(torch.Tensor.double, x)
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


def test_heads_that_are_mixed_stay_and_their_width_shrinks():
    torch.manual_seed(0)
    model = TalkingHeads()
    left, difference = prune(model, torch.rand(2, 5, 3))
    assert left == {"behind", "last"}  # what `before` makes is read by `behind` alone
    assert (model.first.out_features, model.qkv.out_features, model.out.in_features) == (8, 24, 8)
    assert difference < 1e-12


def test_numbers_of_groups_that_are_not_the_channels_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Standardized(16, 24, 3, groups=4), nn.Conv2d(24, 2, 1))
    left, difference = prune(model, torch.rand(2, 3, 8, 8))
    assert left == {"2"}
    assert (model[1].weight.shape, model[1].groups) == ((12, 2, 3, 3), 4)
    assert difference < 1e-12


@pytest.mark.parametrize("groups", ["as many", "given"])
def test_group_norms_of_single_channels(groups):
    class Given(nn.Module):
        def forward(self, x):
            return F.group_norm(x, 16)

    torch.manual_seed(0)
    norm = nn.GroupNorm(16, 16) if groups == "as many" else Given()
    model = nn.Sequential(nn.Conv2d(3, 16, 3), norm, nn.ReLU(), nn.Conv2d(16, 2, 1))
    left, difference = prune(model, torch.rand(2, 3, 8, 8))
    assert left == ({"3"} if groups == "as many" else {"0", "3"})
    assert difference < 1e-12
    if groups == "as many":
        assert (norm.num_groups, norm.num_channels, len(norm.weight)) == (8, 8, 8)


def test_parts_of_a_bias_by_its_number_of_elements():
    class Biased(nn.Module):
        """Its keys have no bias, as in torchvision's Swin V2."""

        def __init__(self):
            super().__init__()
            self.qkv, self.last = nn.Linear(6, 3 * 16), nn.Linear(16, 2)

        def forward(self, x):
            bias = self.qkv.bias.clone()
            length = bias.numel() // 3
            bias[length : 2 * length].zero_()
            q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, -1)
            return self.last(torch.relu(q) * torch.relu(k) + v)

    torch.manual_seed(0)
    model = Biased()
    left, difference = prune(model, torch.rand(2, 6))
    assert left == {"last"}
    assert model.qkv.out_features == 24
    assert difference < 1e-12


def test_rows_of_a_table_are_added_to_parts_of_an_embedding():
    torch.manual_seed(0)
    model = Modulated()
    left, difference = prune(model, (torch.rand(2, 4, 3), torch.rand(2, 5)))
    assert left == {"last"}
    assert (model.table.shape, model.embed.out_features, model.first.out_features) == ((3, 8), 24, 8)
    assert difference < 1e-12


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_to_positions_keeps_these(name):
    torch.manual_seed(0)
    model = Restored(WRITES[name])
    left, difference = prune(model, torch.rand(2, 3, 3))
    assert left == {"last"}
    assert (model.first.out_features, model.token.shape[-1]) == (8, 8)
    assert difference < 1e-12


def test_channels_of_an_image_that_a_linear_layer_makes():
    torch.manual_seed(0)
    model = Decoder()
    left, difference = prune(model, torch.rand(2, 3))
    assert left == {"last"}
    assert (model.channels, model.size, model.make.out_features) == ([3, 4], [4, 4], 4 * 16)
    assert difference < 1e-12

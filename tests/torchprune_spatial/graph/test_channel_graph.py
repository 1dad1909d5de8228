"""`ChannelGraph`: its groups, and what it says of a network."""

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from torchprune_spatial import following_channels
from torchprune_spatial.check.masked_run import MaskedRun
from torchprune_spatial.check.network import check_network
from torchprune_spatial.graph.channel_graph import ChannelGraph


def test_layers_whose_outputs_are_joined_have_groups_of_their_own():
    """A norm and a depthwise convolution after a concatenation do not make one group of it."""

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
            self.norm, self.depthwise, self.last = (
                nn.BatchNorm2d(24),
                nn.Conv2d(24, 24, 3, groups=24),
                nn.Conv2d(24, 2, 1),
            )

        def forward(self, x):
            return self.last(self.depthwise(self.norm(torch.cat([self.one(x), self.other(x)], 1))))

    net = Joined()
    graph = ChannelGraph().build_dependency(net, torch.rand(1, 3, 8, 8))
    assert {(group[0].dep.target.module, len(group[0].idxs)) for group in graph.get_all_groups()} == {
        (net.one, 8),
        (net.other, 16),
    }


class ScaledConv(nn.Module):
    """A convolution of the kind that code often has in place of PyTorch's."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(outputs, inputs, 3, 3)), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return F.conv2d(x, 0.1 * self.w, self.b, padding=1)


class Modulated(nn.Module):
    """A convolution whose weights depend on the image, as in StyleGAN2."""

    def __init__(self, inputs, outputs, styles):
        super().__init__()
        self.w, self.style = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3)), nn.Linear(styles, inputs)

    def forward(self, x, z):
        count, channels, *size = x.shape
        w = self.w * self.style(z).view(count, 1, channels, 1, 1)
        w = w / w.square().sum([2, 3, 4], keepdim=True).add(1e-8).sqrt()
        y = F.conv2d(x.reshape(1, -1, *size), w.view(-1, channels, 3, 3), padding=1, groups=count)
        return y.view(count, -1, *size)


class OwnWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.modulated = ScaledConv(3, 16), ScaledConv(16, 16), Modulated(16, 24, 8)
        self.z = nn.Parameter(torch.randn(1, 8))
        self.third, self.last = nn.Parameter(torch.randn(24, 12)), nn.Parameter(torch.randn(4, 12))

    def forward(self, x):
        x = self.first(x).relu()
        x = self.modulated(x + self.second(x), self.z.expand(len(x), -1))
        return F.linear((x.mean((2, 3)) @ self.third).relu(), self.last)


@pytest.mark.parametrize("importance", [tp.importance.GroupMagnitudeImportance(), tp.importance.RandomImportance()])
def test_weights_outside_of_layers_are_pruned(importance):
    torch.manual_seed(0)
    net, x = OwnWeights().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with following_channels():
        pruner = tp.pruner.BasePruner(net, x, importance, pruning_ratio=0.5)
    before = MaskedRun(pruner.DG)
    pruner.step()
    assert net.third.shape == (12, 6)
    assert net.last.shape == (4, 6)
    assert before.difference(x) < 1e-12


def test_scores_of_weights_outside_of_layers_are_those_of_a_layer():
    """The score of a channel is the norm of all its weights, as Torch-Pruning has it for a linear layer."""
    net, x = OwnWeights(), torch.rand(2, 3, 8, 8)
    (group,) = (g for g in ChannelGraph().build_dependency(net, x).get_all_groups() if len(g[0].idxs) == 12)
    scores = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None, group_reduction="sum")(group)
    assert torch.allclose(scores, net.third.detach().pow(2).sum(0))


def test_weights_outside_of_layers_can_be_outputs_and_ignored():
    net, x = OwnWeights(), torch.rand(2, 3, 8, 8)
    check = check_network(net, x)
    assert check.outputs == ["last"]
    assert check.ok
    graph = ChannelGraph().build_dependency(net, x)
    sizes = [len(group[0].idxs) for group in graph.get_all_groups(ignored_layers=[net.second])]
    assert sorted(sizes) == [12, 24]


@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (4, 1), (1, 2), (2, 4)])
def test_deformable_convolutions(groups, offset_groups):
    ops = pytest.importorskip("torchvision").ops

    class Deformable(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.offsets = nn.Conv2d(3, 16, 3), nn.Conv2d(16, offset_groups * 18, 3, padding=1)
            self.mask = nn.Conv2d(16, offset_groups * 9, 3, padding=1)
            self.deformable = ops.DeformConv2d(16, 24, 3, padding=1, groups=groups)
            self.last = nn.Conv2d(24, 2, 1)

        def forward(self, x):
            x = self.first(x).relu()
            return self.last(self.deformable(x, self.offsets(x), self.mask(x).sigmoid()))

    torch.manual_seed(0)
    net, x = Deformable().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with following_channels():
        pruner = tp.pruner.BasePruner(net, x, tp.importance.RandomImportance(), pruning_ratio=0.5)
    before = MaskedRun(pruner.DG)
    pruner.step()
    assert net.deformable.weight.shape == (12, 8 // groups, 3, 3)
    assert net.offsets.out_channels == offset_groups * 18
    assert before.difference(x) < 1e-12


class SamePadding(nn.Conv2d):
    """A class derived from PyTorch's, as timm has it."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, groups=self.groups)


def test_depthwise_convolutions_of_derived_classes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), SamePadding(8, 16, 3, groups=8), nn.Conv2d(16, 2, 1)).double()
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    with following_channels():
        pruner = tp.pruner.BasePruner(net, x, tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.5)
    before = MaskedRun(pruner.DG)
    pruner.step()
    assert (net[0].out_channels, net[1].groups, net[1].out_channels) == (4, 4, 8)
    assert before.difference(x) < 1e-12


def test_spectral_norms_of_a_network_in_training_mode_are_left_as_they_are():
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 1)), nn.Conv2d(8, 3, 1)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    check_network(net, torch.rand(2, 3, 6, 6))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_pairs_of_channels_that_were_removed_are_in_no_later_group():
    class Mirrored(nn.Module):
        """Channels 0 and 15, 1 and 14, ... belong together."""

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)

        def forward(self, x):
            x = self.first(x)
            return self.last(torch.relu(x + x.flip(1)))

    net = Mirrored()
    graph, weight = ChannelGraph().build_dependency(net, torch.rand(1, 3, 6, 6)), net.first.weight
    for pairs in (8, 7, 6):
        (group,) = graph.get_all_groups()
        assert len(group[0].idxs) == pairs
        graph.get_pruning_group(group[0].dep.target.module, group[0].dep.handler, [0]).prune()
    assert torch.equal(net.first.weight, weight[3:13])

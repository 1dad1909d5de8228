"""Whatever code computes from its numbers of channels stays what it is, or the channels stay."""

import math

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from torchprune_spatial.check.masked_run import MaskedRun
from torchprune_spatial.graph.channel_graph import ChannelGraph
from torchprune_spatial.graph.labels.steps import Step, difference
from torchprune_spatial.graph.pruners import following_channels

WIDTH = 16


class Network(nn.Module):
    """Convolutions around a piece of code."""

    def __init__(self, code):
        super().__init__()
        self.code = code
        self.first, self.second, self.last = nn.Conv2d(3, WIDTH, 3), nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, 2, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.code(self, torch.relu(self.first(x)))))


def half_of_ones(y):
    y = y.clone()
    y[:, : WIDTH // 2] = 1
    return y


CODE = {
    "reciprocal": lambda net, y: net.second(torch.sigmoid(y * (1.0 / y.shape[1]))),
    "logarithm": lambda net, y: net.second(torch.sigmoid(y * math.log(y.shape[1]))),
    "root of the number of elements": lambda net, y: net.second(torch.sigmoid(y * y[0].numel() ** -0.5)),
    "value in a tensor": lambda net, y: net.second(torch.sigmoid(y * torch.tensor(y.shape[1]))),
    "branch": lambda net, y: net.second(torch.sigmoid(y) if y.shape[1] > WIDTH - 3 else y),
    "branch by remainder": lambda net, y: net.second(torch.sigmoid(y) if y.shape[1] % 8 == 0 else y),
    "ratio of two widths": lambda net, y: net.second(y) * (net.second(y).shape[1] / y.shape[1]),
    "ratio in whole numbers": lambda net, y: net.second(y).sigmoid() ** (net.second(y).shape[1] // y.shape[1]),
    "number of groups": lambda net, y: net.second(F.group_norm(y, y.shape[1] // 4)),
    "shift by one": lambda net, y: net.second(y.roll(1, 1)),
    "shift by half": lambda net, y: net.second(y.roll(y.shape[1] // 2, 1)),
    "written to a slice": lambda net, y: net.second(half_of_ones(y)),
    "position of the largest": lambda net, y: net.second(y) * y.max(1, keepdim=True)[1],
    "smaller of two numbers": lambda net, y: net.second(y) / min(y.shape[1], WIDTH - 3),
    "rounded": lambda net, y: net.second(y * (1 + y.shape[1] // 10)),
    "greatest common divisor": lambda net, y: net.second(y * math.gcd(y.shape[1], 8)).sigmoid(),
    "equal widths": lambda net, y: net.second(y).sigmoid() if net.second(y).shape[1] == y.shape[1] else net.second(y),
    "equal shapes": lambda net, y: net.second(y).sigmoid() if net.second(y).shape == y.shape else net.second(y),
    "widths of a layer": lambda net, y: (
        net.second(y).sigmoid() if net.second.in_channels == net.second.out_channels else net.second(y)
    ),
    "one of several": lambda net, y: net.second(y * (2 if y.shape[1] in (4, WIDTH) else 1)),
    "non-zero difference": lambda net, y: net.second(y * (2 if y.shape[1] - WIDTH // 2 else 1)),
    "quotient": lambda net, y: net.second(torch.sigmoid(y * (y.shape[1] / 3.0))),
    "root of a quotient": lambda net, y: net.second(torch.sigmoid(y * math.sqrt(y.shape[1] / 2))),
    "quotient in a tensor": lambda net, y: net.second(torch.sigmoid(y * torch.tensor(y.shape[1] / 2))),
    "compared quotient": lambda net, y: net.second(torch.sigmoid(y) if y.shape[1] / 2 > WIDTH / 2 - 2 else y),
    "equal quotient": lambda net, y: net.second(torch.sigmoid(y) if y.shape[1] / 3 == WIDTH / 3 else y),
    "rounded quotient": lambda net, y: net.second(torch.sigmoid(y * round(y.shape[1] / 10))),
    "mean": lambda net, y: net.second(y - y.mean(1, keepdim=True)),
}


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pruned_as_masked(name, seed):
    torch.manual_seed(seed)
    net, x = Network(CODE[name]).double(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    graph = ChannelGraph().build_dependency(net, x)
    before = MaskedRun(graph)
    for group in list(graph.get_all_groups()):
        root, handler = group[0].dep.target.module, group[0].dep.handler
        blocks = torch.arange(len(group[0].idxs)).chunk(graph.out_channel_groups.get(root, 1))
        idxs = [i for block in blocks for i in block[torch.randperm(len(block))[: len(block) * 2 // 5]].tolist()]
        part = graph.get_pruning_group(root, handler, sorted(idxs))
        if graph.check_pruning_group(part):
            part.prune()
    assert before.difference(x) < 1e-12


HALVES = {
    "chunk": lambda y: torch.chunk(input=y, chunks=2, dim=1),
    "split": lambda y: torch.split(tensor=y, split_size_or_sections=y.shape[1] // 2, dim=1),
    "split of a tensor": lambda y: y.split(split_size=y.shape[1] // 2, dim=1),
    "sections": lambda y: torch.tensor_split(y, sections=2, dim=1),
    "narrow": lambda y: [y.narrow(dim=1, start=s, length=y.shape[1] // 2) for s in (0, y.shape[1] // 2)],
    "unflatten": lambda y: torch.unflatten(y, dim=1, sizes=(2, -1)).unbind(dim=1),
    "unflatten of a tensor": lambda y: y.unflatten(dim=1, sizes=(2, y.shape[1] // 2)).unbind(dim=1),
    "reshape": lambda y: torch.reshape(input=y, shape=(len(y), 2, -1, *y.shape[2:])).unbind(1),
    "roll": lambda y: (y, torch.roll(input=y, shifts=y.shape[1] // 2, dims=1)),
    "product": lambda y: (torch.mul(input=y, other=2), y),
    "norm": lambda y: (F.group_norm(input=y, num_groups=2), y),
    "expand": lambda y: (y, y[:1].expand(size=(len(y), *y.shape[1:]))),
    "named dimensions": lambda y: (y.flatten(start_dim=2).view(size=y.shape), y.select(dim=0, index=0)[None]),
}


@pytest.mark.parametrize("name", HALVES)
def test_arguments_by_name(name):
    torch.manual_seed(0)

    def code(net, y):
        one, other = HALVES[name](y)
        y = one * other.sigmoid()
        return net.second(y if y.shape[1] == net.second.weight.shape[1] else torch.cat([y, y], 1))

    net, x = Network(code).double(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    with following_channels():
        pruner = tp.pruner.BasePruner(net, x, tp.importance.RandomImportance(), pruning_ratio=0.5)
    before = MaskedRun(pruner.DG)
    pruner.step()
    assert net.first.out_channels == WIDTH // 2
    assert before.difference(x) < 1e-12


class Shortcut(nn.Module):
    """Has a shortcut with weights only where the widths differ, as many networks do."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.shortcut = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 1), nn.Conv2d(16, 24, 1)
        self.last = nn.Conv2d(24, 2, 1)

    def forward(self, x):
        x = self.first(x)
        y = self.second(x)
        return self.last(torch.relu(y + (x if x.shape[1] == y.shape[1] else self.shortcut(x))))


def test_what_would_take_another_branch_is_refused_and_nothing_is_changed():
    net, x = Shortcut().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    graph, state = ChannelGraph().build_dependency(net, x), {k: v.clone() for k, v in net.state_dict().items()}
    refused = graph.get_pruning_group(net.second, tp.prune_conv_out_channels, range(8))
    assert not graph.check_pruning_group(refused)
    with pytest.raises(ValueError, match=r"channels of second.*run otherwise.*test_numbers_in_code.py:\d+"):
        refused.prune()
    assert {k: v.tolist() for k, v in net.state_dict().items()} == {k: v.tolist() for k, v in state.items()}
    before = MaskedRun(graph)
    graph.get_pruning_group(net.second, tp.prune_conv_out_channels, range(9)).prune()
    assert net.second.out_channels == net.shortcut.out_channels == 15
    assert before.difference(x) < 1e-12


def test_pruners_pass_over_what_would_take_another_branch():
    net, x = Shortcut(), torch.rand(2, 3, 6, 6)
    with following_channels():
        pruner = tp.pruner.BasePruner(
            net, x, tp.importance.MagnitudeImportance(), pruning_ratio=0, pruning_ratio_dict={net.second: 1 / 3}
        )
    pruner.step()
    assert (net.first.out_channels, net.second.out_channels) == (16, 24)


def test_the_equal_stays_equal():
    """``num_features`` of a norm without weights is compared by PyTorch, which warns if it differs."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.Conv2d(8, 2, 3))
    graph = ChannelGraph().build_dependency(net, torch.rand(1, 3, 8, 8))
    graph.get_pruning_group(net[0], tp.prune_conv_out_channels, [1, 2]).prune()
    assert net[1].num_features == 6


def test_numbers_that_follow_from_each_other():
    """Two attributes that the code holds to be equal, of which one is a size in ``view``."""

    class Attributes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.width, self.inner = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), 8, 8

        def forward(self, x):
            y = self.first(x)
            y = y.view(len(y), self.inner, -1).sigmoid().view(y.shape)
            return self.last(y if self.width == self.inner else 2 * y)

    net, x = Attributes().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    graph = ChannelGraph().build_dependency(net, x)
    before = MaskedRun(graph)
    graph.get_pruning_group(net.first, tp.prune_conv_out_channels, [0, 5, 7]).prune()
    assert net.width == net.inner == 5
    assert before.difference(x) < 1e-12


def test_a_size_that_an_attribute_leaves_open():
    net = Network(lambda net, y: net.second(y * net.second.bias.view(net.shape)))
    net.shape = (1, -1, 1, 1)
    graph = ChannelGraph().build_dependency(net, torch.rand(1, 3, 6, 6))
    assert not {"first", "second"} & set(graph.left_alone)
    graph.get_pruning_group(net.second, tp.prune_conv_out_channels, [1, 2]).prune()
    assert net.shape == (1, -1, 1, 1)


def test_a_multiple_stays_one():
    def code(net, y):
        assert y.shape[1] % 4 == 0
        return net.second(y)

    net = Network(code)
    graph = ChannelGraph().build_dependency(net, torch.rand(1, 3, 6, 6))
    groups = {len(group[0].idxs): group for group in graph.get_all_groups()}
    assert graph.out_channel_groups[groups[WIDTH][0].dep.target.module] == 4


def test_an_average_by_hand_is_one():
    net = Network(lambda net, y: net.second(y - y.sum(1, keepdim=True) / y.shape[1]))
    graph = ChannelGraph().build_dependency(net, torch.rand(2, 3, 6, 6))
    assert not {"first", "second"} & set(graph.left_alone)


def test_difference_of_steps():
    before = [Step("mul", (0.5,)), Step("relu", ())]
    assert difference(before, before, []) == ""
    assert difference(before, [Step("mul", (0.25,)), before[1]], [0.5]) == ""
    assert difference(before, [Step("mul", (0.25,)), before[1]], [0.25]) == ""  # its root, in attention
    assert difference(before, [Step("mul", (0.25,)), before[1]], [2.0]) == ""  # a quotient
    assert "mul with 0.5, then 0.25" in difference(before, [Step("mul", (0.25,)), before[1]], [])
    assert "otherwise" in difference(before, before[:1], [])
    depends = [Step("nonzero", ())]
    assert difference([*before, *depends], depends, []) == ""


def test_a_quotient_that_is_only_compared_leaves_room():
    """As in diffusers' CogVideoX, which asks how much memory it needs."""

    def code(net, y):
        return net.second(y if y.shape[1] * y.shape[2] * 2 / 1024**3 > 2 else y.sigmoid())

    graph = ChannelGraph().build_dependency(Network(code), torch.rand(1, 3, 6, 6))
    assert graph.left_alone == {"last": "an output of the network"}

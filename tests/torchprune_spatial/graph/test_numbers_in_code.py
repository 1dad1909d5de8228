"""Whatever code computes from its numbers of channels stays what it is, or the channels stay."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchprune_spatial.check.masked_run import MaskedRun
from torchprune_spatial.graph.channel_graph import ChannelGraph
from torchprune_spatial.graph.labels.steps import Step, difference

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

"""Which groups are left alone after trials: as few as possible."""

import torch
from torch import nn

from torchprune_spatial import ChannelGraph
from torchprune_spatial.graph.trials import leave_wrong_groups_alone

IMAGE = torch.rand(2, 3, 8, 8)


class Branches(nn.Module):
    """Several branches; the code wants to know something about their widths."""

    def __init__(self, fails, count=6, width=6):
        super().__init__()
        self.make = nn.ModuleList(nn.Conv2d(3, width, 1) for _ in range(count))
        self.read = nn.ModuleList(nn.Conv2d(width, 2, 1) for _ in range(count))
        self.fails = fails

    def forward(self, x):
        if self.fails([len(range(layer.weight.shape[0])) for layer in self.make]):  # numbers that no one can follow
            raise RuntimeError("such widths are not known")
        return sum(read(make(x).relu()) for make, read in zip(self.make, self.read, strict=True))


def left_alone(model):
    graph = ChannelGraph().build_dependency(model, IMAGE)
    assert graph.verify() == []
    return {name: why for name, why in graph.left_alone.items() if name.startswith("make")}


def test_nothing_is_left_alone_if_nothing_is_wrong():
    assert left_alone(Branches(lambda widths: False)) == {}


def test_only_the_wrong_groups_are_left_alone():
    found = left_alone(Branches(lambda widths: widths[1] < 6 or widths[4] < 6))
    assert found.keys() == {"make.1", "make.4"}
    assert "such widths are not known" in found["make.1"]


def test_of_groups_that_fail_only_together_one_is_left_alone():
    found = left_alone(Branches(lambda widths: widths[0] < 6 and widths[5] < 6))
    assert len(found) == 1
    assert found.keys() <= {"make.0", "make.5"}


def test_of_three_groups_that_fail_only_together_one_is_left_alone():
    found = left_alone(Branches(lambda widths: sum(widths[i] < 6 for i in (1, 2, 4)) > 2))
    assert len(found) == 1
    assert found.keys() <= {"make.1", "make.2", "make.4"}


def test_all_but_one_are_left_alone_if_no_two_can_be_pruned():
    assert len(left_alone(Branches(lambda widths: sum(width < 6 for width in widths) > 1))) == 5


def test_groups_of_two_channels_are_tried():
    found = left_alone(Branches(lambda widths: widths[2] < 2, width=2))
    assert found.keys() == {"make.2"}


def test_the_number_of_trials_grows_with_the_logarithm_of_the_number_of_groups():
    runs = []
    graph = ChannelGraph().build_dependency(
        Branches(lambda widths: widths[9] < 6, count=64),
        IMAGE,
        forward_fn=lambda model, inputs: (runs.append(1), model(inputs))[1],
        verify=False,
    )
    steps = graph.followed_again().steps
    runs.clear()
    leave_wrong_groups_alone(graph, steps)
    assert "make.9" in graph.left_alone
    assert len(runs) <= 2 * (2 * 6 + 2)  # each trial runs twice if the first time nothing is wrong

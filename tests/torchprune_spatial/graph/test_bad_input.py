"""What cannot be followed is refused with its name and a remedy, and what can be mended works."""

import copy
import types

import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial import ChannelGraph, check_network, prune_to
from torchprune_spatial.check.masked_run import MaskedRun

IMAGE = torch.rand(2, 3, 8, 8)
IMPORTANCE = tp.importance.GroupMagnitudeImportance()


def build(model, inputs):
    return ChannelGraph().build_dependency(model, inputs)


def prune(model, inputs, **options):
    return prune_to(model, inputs, IMPORTANCE, compression=1.5, progress=False, **options)


def check(model, inputs):
    return check_network(model, inputs, progress=False)


EVERY_ENTRANCE = pytest.mark.parametrize("entrance", [build, prune, check])


class Chain(nn.Module):
    def __init__(self, result=lambda y: y):
        super().__init__()
        self.make, self.middle, self.read = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 9, 1), nn.Conv2d(9, 4, 1)
        self.result = result

    def forward(self, x):
        return self.result(self.read(self.middle(self.make(x).relu())))


@EVERY_ENTRANCE
def test_outputs_without_elements(entrance):
    with pytest.raises(ValueError, match=r"no elements.*example_inputs"):
        entrance(Chain(), IMAGE[:0])


@EVERY_ENTRANCE
@pytest.mark.parametrize("result", [lambda y: None, lambda y: 1.0, lambda y: [{}]])
def test_outputs_without_tensors(entrance, result):
    with pytest.raises(ValueError, match=r"no tensors.*forward_fn"):
        entrance(Chain(result), IMAGE)


def test_outputs_in_objects_stay():
    model = Chain(lambda y: types.SimpleNamespace(features=[types.SimpleNamespace(map=y)]))
    graph = build(model, IMAGE)
    assert graph.left_alone == {"read": "an output of the network"}


@EVERY_ENTRANCE
@pytest.mark.parametrize("script", [torch.jit.script, lambda m: torch.jit.trace(m, torch.rand(1, 12, 8, 8))])
def test_scripted_modules_are_named(entrance, script):
    model = Chain()
    model.middle = script(model.middle)
    with pytest.raises(TypeError, match=r"'middle' was made by torch[.]jit"):
        entrance(model, IMAGE)


@pytest.mark.parametrize("pruned_inside", [False, True])
def test_inference_mode(pruned_inside):
    model, image = Chain().double(), IMAGE.double()
    with torch.inference_mode():
        graph = build(model, image)
        before = MaskedRun(graph)
        group = graph.get_pruning_group(model.make, tp.prune_conv_out_channels, [0, 3])
        if pruned_inside:
            group.prune()
    if not pruned_inside:
        group.prune()
    assert graph.unknown == []
    assert model.make.out_channels == 10
    assert before.difference(image) < 1e-12
    model(image).sum().backward()  # its new parameters can be trained


def test_pruning_and_checking_in_inference_mode():
    model = Chain()
    with torch.inference_mode():
        assert check(model, IMAGE.clone()).ok
        assert prune(model, IMAGE.clone()).compression > 1.4
    model(IMAGE).sum().backward()


def test_parameters_of_inference_mode():
    with torch.inference_mode():
        model = Chain()
    assert build(model, IMAGE).unknown == []
    with pytest.raises(ValueError, match=r"'make.weight'.*deepcopy"):
        prune(model, IMAGE)
    assert prune(copy.deepcopy(model), IMAGE).compression > 1.4


def test_why_nothing_can_be_removed_is_quoted():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Unflatten(1, (8, 8, 8)), nn.Conv2d(8, 2, 1))
    with pytest.raises(
        ValueError, match=r"no channel to remove. Left alone are '0': .*; '3': an output of the network"
    ):
        prune(model, IMAGE)

"""A network is as it was after each context, also after an exception."""

import contextlib

import pytest
import torch
import torch.nn as nn

from resolution_scaling.ground.put_back import (
    requiring_gradients,
    restoring_attributes,
    restoring_hooks,
    restoring_values,
)


@pytest.fixture(params=[None, RuntimeError], ids=["returns", "raises"])
def ending(request):
    """How the work in a context ends: ``end()`` is its last line, ``expected`` surrounds the context."""

    def end():
        if request.param:
            raise request.param

    return end, contextlib.nullcontext() if request.param is None else pytest.raises(request.param)


def test_attributes_are_the_same_objects(ending):
    end, expected = ending
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    weight, mean = model[0].weight, model[1].running_mean
    with expected, restoring_attributes(model):
        model[0].weight = nn.Parameter(torch.zeros(1, 2, 1, 1))
        model[0].out_channels = 1
        model[0].new = 5
        model[1].running_mean = None
        end()
    assert model[0].weight is weight
    assert model[1].running_mean is mean
    assert model[0].out_channels == 3
    assert not hasattr(model[0], "new")


def test_values_are_the_same_numbers_in_the_same_tensors(ending):
    end, expected = ending
    layer = nn.Linear(2, 3)
    weight, before = layer.weight, layer.weight.detach().clone()
    with expected, restoring_values(layer.parameters()):
        layer.weight.data.zero_()
        end()
    assert layer.weight is weight
    assert torch.equal(layer.weight, before)
    assert layer.weight.requires_grad


def test_hooks_that_were_left_behind_are_removed(ending):
    end, expected = ending
    layer, calls = nn.Linear(2, 3), []
    layer.register_forward_hook(lambda *_: calls.append("own"))
    removed = layer.register_forward_hook(lambda *_: calls.append("removed inside"))
    with expected, restoring_hooks(nn.Sequential(layer)):
        layer.register_forward_hook(lambda *_: calls.append("left behind"))
        removed.remove()
        end()
    layer(torch.zeros(1, 2))
    assert calls == ["own"]


def test_frozen_parameters_are_frozen_again(ending):
    end, expected = ending
    layer = nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    numbers = nn.Parameter(torch.arange(3), requires_grad=False)  # integers cannot require gradients
    with expected, requiring_gradients([*layer.parameters(), numbers]):
        assert layer.bias.requires_grad
        assert not numbers.requires_grad
        end()
    assert not layer.bias.requires_grad
    assert layer.weight.requires_grad

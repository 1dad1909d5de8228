"""Kinds of layers, the dimension of their channels, and watching their inputs."""

import pytest
import torch
import torch.nn as nn

from torchprune_spatial.graph.layers import (
    channel_dimension,
    first_tensor,
    is_depthwise,
    mixes_channels,
    watching_inputs,
)


@pytest.mark.parametrize(
    ("layer", "depthwise", "mixes"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True, False),
        (nn.Conv2d(4, 8, 3, groups=4), False, False),  # a channel multiplier: two outputs of each input
        (nn.Conv2d(8, 4, 3, groups=4), True, True),  # Torch-Pruning takes it for depthwise; each output adds two inputs
        (nn.Conv2d(8, 8, 3, groups=4), False, True),
        (nn.Conv2d(1, 1, 3), False, True),  # one channel is no depthwise convolution
        (nn.ConvTranspose2d(4, 4, 3, groups=4), True, False),
        (nn.Linear(4, 4), False, True),
        (nn.BatchNorm2d(4), False, False),
    ],
    ids=str,
)
def test_kinds_of_layers(layer, depthwise, mixes):
    assert is_depthwise(layer) == depthwise
    assert mixes_channels(layer) == mixes


class LayerNorm2d(nn.LayerNorm):
    """As timm's and torchvision's: over the channels of ``[batch, channels, height, width]``."""


@pytest.mark.parametrize(
    ("layer", "dimension"),
    [
        (nn.Conv1d(3, 3, 1), 1),
        (nn.BatchNorm2d(3), 1),
        (nn.GroupNorm(1, 3), 1),
        (nn.PReLU(3), 1),
        (LayerNorm2d(3), 1),
        (nn.LayerNorm(3), -1),
        (nn.Linear(3, 3), -1),
        (nn.Embedding(3, 3), -1),
        (nn.MultiheadAttention(3, 1), -1),
    ],
    ids=str,
)
def test_the_dimension_of_channels(layer, dimension):
    assert channel_dimension(layer) == dimension


def test_the_first_tensor_of_a_call():
    first, second = torch.zeros(1), torch.ones(1)
    assert first_tensor((None, first), {"x": second}) is first
    assert first_tensor((3,), {"scale": 2.0, "x": second}) is second
    assert first_tensor((), {}) is None


def test_inputs_are_watched_while_the_context_lasts():
    layers, seen = [nn.Linear(2, 2), nn.Linear(2, 2)], []
    image = torch.rand(1, 2)
    with watching_inputs(layers[:1], lambda layer, x: seen.append((layer, x))):
        layers[0](image)
        layers[1](image)
        layers[0](input=image)
    layers[0](image)
    assert [(layer is layers[0], x is image) for layer, x in seen] == [(True, True)] * 2


@pytest.mark.parametrize("keyword", [False, True])
def test_what_watch_returns_is_read_instead(keyword):
    layer = nn.Linear(2, 2)
    with watching_inputs([layer], lambda _, x: torch.zeros_like(x)):
        found = layer(input=torch.rand(3, 2)) if keyword else layer(torch.rand(3, 2))
    torch.testing.assert_close(found, layer.bias.expand(3, 2))


def test_no_hook_stays_after_an_exception():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), watching_inputs([layer], lambda *_: None):
        raise RuntimeError
    assert not layer._forward_pre_hooks

"""Folding behind norms over channels, against least squares in numpy on what the layer reads."""

import copy

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial import ChannelGraph, InterpolativeImportance, prune_to
from torchprune_spatial.criteria.refitting import averages_channels

NORMS = {
    "group": lambda channels: nn.GroupNorm(2, channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
}


def network(norm, channels=16):
    torch.manual_seed(0)
    layers = []
    for inputs in (1, channels):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), NORMS[norm](channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, 2, 1)).eval()


def images(count=6, size=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 1, size, size, generator=generator)
    return x, (x > 0.6).float()


@pytest.mark.parametrize("norm", NORMS)
def test_weights_are_the_least_squares_of_what_is_read(norm):
    model, (x, y) = network(norm), images()
    importance = InterpolativeImportance([(x[:4], y[:4]), (x[4:], y[4:])])
    graph = ChannelGraph().build_dependency(model, x[:1])
    for group in graph.get_all_groups():
        importance(group)
    original = copy.deepcopy(model)
    removed, kept = [1, 5, 9, 13], [0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15]
    group = graph.get_pruning_group(model[0], tp.prune_conv_out_channels, removed)
    importance.fold(group)
    group.prune()

    def read(network):
        with torch.no_grad():
            return network[:3](x).movedim(1, -1).flatten(0, 2).double().numpy()

    whole, part = read(original), read(model)
    regions = [share.flatten().double().numpy()[:, None] ** 0.5 for share in (y, 1 - y)]
    regions = [region / np.linalg.norm(region * whole) for region in regions]
    rows, left = (np.concatenate([region * each for region in regions]) for each in (part, whole.copy()))
    left[:, kept] -= rows
    penalty = (0.01 * np.square(rows).sum(0).mean()) ** 0.5 * np.eye(12)
    factors = np.linalg.lstsq(np.concatenate([rows, penalty]), np.concatenate([left, np.zeros((12, 16))]), rcond=None)[
        0
    ]
    weight = original[3].weight.detach().double().numpy()
    expected = weight[:, kept] + np.einsum("ocij,kc->okij", weight, factors)
    np.testing.assert_allclose(model[3].weight.detach().numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("allocation", ["uniform", "sensitivity"])
@pytest.mark.parametrize("norm", NORMS)
def test_folding_helps(norm, allocation):
    x, y = images(16, 12)
    model = network(norm)
    errors = {}
    for fold in (True, False):
        pruned = copy.deepcopy(model)
        importance = InterpolativeImportance([(x, y)])
        prune_to(pruned, x[:1], importance, compression=2, fold=fold, allocation=allocation, loss=LOSS.get(allocation))
        with torch.no_grad():
            errors[fold] = float((pruned(x) - model(x)).square().mean())
    assert errors[True] < 0.8 * errors[False]


LOSS = {"sensitivity": lambda outputs, target: (outputs - target).square()}


def test_norms_that_average_over_channels():
    class LayerNorm2d(nn.Module):
        pass

    over_channels = [nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4), LayerNorm2d()]
    apart = [nn.GroupNorm(4, 4), nn.BatchNorm2d(4), nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 1)]
    assert [*map(averages_channels, over_channels + apart)] == [True] * 4 + [False] * 4

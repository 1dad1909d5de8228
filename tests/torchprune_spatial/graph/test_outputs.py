"""Channels that are outputs of the network are never pruned."""

import warnings

import pytest
import torch
import torch_pruning as tp
from torch import nn

from torchprune_spatial import SpatialMaskImportance

from ..networks import calibration, plain_net
from ..pruning import EXAMPLE, make_pruner, prune


class TwoOutputs(nn.Module):
    """Returns what it computes from its features, and a part of its features as well."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.a, self.b, self.c = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        features = self.b(hidden)
        if self.mode == "layer":
            return self.c(features), features
        activated = torch.relu(features)
        image = self.c(nn.functional.max_pool2d(activated, 2))
        return {"features": [activated], "image": image} if self.mode == "dict" else (image, activated)


@pytest.mark.parametrize("mode", ["layer", "tuple", "dict"])
def test_features_that_are_returned_are_not_pruned(mode):
    model = TwoOutputs(mode)
    pruner = make_pruner(model, SpatialMaskImportance(calibration()))
    with pytest.warns(UserWarning, match="outputs of the network, so they are not pruned") as caught:
        pruner.step()
    assert {name for name in ("'a'", "'b'", "'c'") if any(name in str(w.message) for w in caught)} == {"'b'", "'c'"}
    assert (model.a.out_channels, model.b.out_channels, model.c.out_channels) == (4, 8, 4)


def test_a_global_residual_keeps_the_output():
    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

        def forward(self, x):
            return x - self.last(torch.relu(self.inner(x)))

    model = Denoiser()
    prune(model, SpatialMaskImportance(calibration()))
    assert (model.inner.out_channels, model.last.out_channels) == (3, 2)


def test_channels_that_only_a_recurrent_layer_reads_are_left_with_a_warning():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.features = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
            self.rows, self.output = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, x):
            x = self.features(self.first(x)).mean(3).transpose(1, 2)
            return self.output(self.rows(x)[0])

    model = Recurrent()
    graph = tp.DependencyGraph().build_dependency(model, EXAMPLE)
    importance = SpatialMaskImportance(calibration())
    group = graph.get_pruning_group(model.features, tp.prune_conv_out_channels, list(range(6)))
    with pytest.warns(UserWarning, match="'features': no convolution or linear layer reads these channels"):
        assert importance(group) is None
    group = graph.get_pruning_group(model.first, tp.prune_conv_out_channels, list(range(4)))
    assert importance(group).shape == (4,)


def test_ignored_outputs_do_not_warn():
    model = plain_net()
    pruner = tp.pruner.BasePruner(
        model, EXAMPLE, importance=SpatialMaskImportance(calibration()), ignored_layers=[model[5]]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.step()


def test_frozen_layers_are_traced_and_stay_frozen():
    model = TwoOutputs("tuple")
    pruner = make_pruner(model, SpatialMaskImportance(calibration()))
    model.requires_grad_(False)
    with pytest.warns(UserWarning, match="outputs of the network, so they are not pruned"):
        pruner.step()
    assert model.b.out_channels == 8
    assert not any(p.requires_grad for p in (model.b.bias, model.c.bias))

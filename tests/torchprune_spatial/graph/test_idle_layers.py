"""Layers that do not run in evaluation mode, or not for these inputs: what is pruned must fit them, too."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn as nn
import torch_pruning as tp

import torchprune_spatial as ts
from torchprune_spatial.graph.channel_graph import ChannelGraph

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Trunk(nn.Module):
    """A trunk of eight channels and a head; sub-classes have more heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)


class AuxiliaryHead(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.Conv2d(6, 2, 1))

    def forward(self, x):
        y = self.trunk(x).relu()
        return (self.head(y), self.aux(y)) if self.training else self.head(y)


class DeepSupervision(Trunk):
    """Its second head runs always, but is only returned in training, as in MONAI's DynUNet."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        y = self.trunk(x).relu()
        outputs = [self.head(y), self.other(y)]
        return torch.stack(outputs, 1) if self.training else outputs[0]


class LearnsInTraining(AuxiliaryHead):
    """It keeps an average of what it has seen, as code books do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.average.lerp_(x.mean(), 0.1)
        return super().forward(x)


class FailsInTraining(AuxiliaryHead):
    def forward(self, x):
        if self.training:
            raise ValueError("in training mode, targets should be passed")
        return super().forward(x)


class Expert(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(8, width, 1), nn.ReLU(), nn.Conv2d(width, 8, 1))


class Mixture(Trunk):
    """One of the experts runs: which, is asked of the values."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(map(Expert, widths))

    def forward(self, x):
        y = self.trunk(x).relu()
        return self.head(y + self.experts[int(y.mean() * 1e6) % len(self.experts)](y))


@pytest.mark.parametrize("build", [AuxiliaryHead, DeepSupervision])
def test_heads_of_training_mode_fit_afterwards(build):
    model = build().eval()
    before = sum(p.numel() for p in model.parameters())
    ts.prune_to(model, IMAGES, tp.importance.GroupMagnitudeImportance(), compression=2)
    assert sum(p.numel() for p in model.parameters()) < 0.6 * before
    outputs = model.train()(IMAGES)
    assert [tensor.shape[1:] for tensor in outputs] == [(2, 8, 8), (2, 8, 8)]


def test_a_network_that_fails_in_training_mode_keeps_its_idle_layers():
    model = FailsInTraining().eval()
    with pytest.warns(
        UserWarning, match=r"did not run with these example_inputs: 'aux.0', 'aux.1', 'aux.4'\. They stay"
    ):
        graph = ChannelGraph().build_dependency(model, IMAGES)
    assert graph.left_alone["aux.0"] == "it did not run with these example_inputs"
    assert [group[0].dep.target.module for group in graph.get_all_groups()] == [model.trunk]


def test_following_heads_of_training_mode_leaves_no_trace():
    model = LearnsInTraining().eval()
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, of_python = torch.get_rng_state(), random.getstate()
    ChannelGraph().build_dependency(model, IMAGES)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert of_python == random.getstate()


@pytest.mark.parametrize("widths", [(4, 4, 4), (2, 4, 6)])
def test_each_expert_fits_after_pruning_whichever_ran(widths):
    torch.manual_seed(0)
    model = Mixture(*widths).double().eval()
    original = Mixture(*widths).double().eval()
    original.load_state_dict(model.state_dict())
    graph = ChannelGraph().build_dependency(model, IMAGES.double())
    gone = [1, 4, 6]
    graph.get_pruning_group(model.trunk, tp.prune_conv_out_channels, gone).prune()
    with torch.no_grad():
        original.trunk.weight[gone], original.trunk.bias[gone] = 0, 0
        y = torch.rand(1, 8, 8, 8, dtype=torch.double)
        y[:, gone] = 0
        kept = [i for i in range(8) if i not in gone]
        for expert, whole in zip(model.experts, original.experts, strict=True):
            assert torch.allclose(expert(y[:, kept]), whole(y)[:, kept], atol=1e-12)

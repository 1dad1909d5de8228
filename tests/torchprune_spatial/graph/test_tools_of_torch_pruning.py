"""Torch-Pruning's own importances and regularizers on groups of a `ChannelGraph`."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn
from torch_pruning.pruner import importance as importances

from torchprune_spatial import ChannelGraph, following_channels

IMAGE = torch.rand(2, 3, 8, 8)
REDUCTIONS = {
    "sum": lambda parts: sum(parts),
    "mean": lambda parts: sum(parts) / len(parts),
    "max": lambda parts: torch.stack(parts).amax(0),
    "prod": lambda parts: torch.stack(parts).prod(0),
    "first": lambda parts: parts[0],
    "gate": lambda parts: parts[-1],
}
NORMALIZERS = (None, "sum", "standarization", "mean", "max", "gaussian", "sentinel_0.5", "lamp")


class Net(nn.Module):
    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_()

    def forward(self, x):
        return self._forward(self, x)


def gate():
    def forward(m, x):
        a, b = m.norm(m.make(x)).chunk(2, 1)
        return m.read(a * b)

    return Net(forward, make=nn.Conv2d(3, 8, 1), norm=nn.BatchNorm2d(8), read=nn.Conv2d(4, 3, 1)).eval()


def pixel_shuffle():
    def forward(m, x):
        return m.read(m.norm(F.pixel_shuffle(m.make(x), 2)))

    return Net(forward, make=nn.Conv2d(3, 16, 1), norm=nn.BatchNorm2d(4), read=nn.Conv2d(4, 3, 1)).eval()


def summed_concatenation():
    def forward(m, x):
        return m.read(m.norm(torch.cat([m.one(x), m.other(x)], 1) + m.both(x)))

    return Net(
        forward,
        one=nn.Conv2d(3, 4, 1),
        other=nn.Conv2d(3, 2, 1),
        both=nn.Conv2d(3, 6, 1),
        norm=nn.BatchNorm2d(6),
        read=nn.Conv2d(6, 3, 1),
    ).eval()


def half_normed():
    """One half of a chunk passes through a batch norm: no batch norm has all channels of the first layer."""

    def forward(m, x):
        a, b = m.make(x).chunk(2, 1)
        return m.read(torch.cat([m.norm(a), b], 1))

    return Net(forward, make=nn.Conv2d(3, 8, 1), norm=nn.BatchNorm2d(4), read=nn.Conv2d(8, 3, 1)).eval()


def attention():
    def forward(m, x):
        tokens = m.embed(x.flatten(2).transpose(1, 2))
        tokens = m.norm(tokens + m.attention(tokens, tokens, tokens, need_weights=False)[0])
        return m.read(tokens)

    return Net(
        forward,
        embed=nn.Linear(3, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        norm=nn.LayerNorm(8),
        read=nn.Linear(8, 3),
    ).eval()


def grouped():
    def forward(m, x):
        return m.read(m.norm(m.groups(m.make(x))))

    return Net(
        forward,
        make=nn.Conv2d(3, 8, 1),
        groups=nn.Conv2d(8, 8, 1, groups=2),
        norm=nn.BatchNorm2d(8),
        read=nn.Conv2d(8, 3, 1),
    ).eval()


def chain():
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return Net(
        lambda m, x: m.layers(x),
        layers=nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    ).eval()


def residual():
    def forward(m, x):
        x = m.norm(m.make(x))
        return m.read(torch.cat([x + m.back(m.inner(x).relu()), m.side(x)], 1).mean((2, 3)))

    return Net(
        forward,
        make=nn.Conv2d(3, 6, 1),
        norm=nn.BatchNorm2d(6),
        inner=nn.Conv2d(6, 5, 3, padding=1),
        back=nn.Conv2d(5, 6, 1),
        side=nn.Conv2d(6, 4, 1),
        read=nn.Linear(10, 3),
    ).eval()


def transposed():
    def forward(m, x):
        return m.read(m.norm(m.up(m.make(x))))

    return Net(
        forward,
        make=nn.Conv2d(3, 6, 1),
        up=nn.ConvTranspose2d(6, 5, 2, 2),
        norm=nn.BatchNorm2d(5),
        read=nn.Conv2d(5, 3, 1),
    ).eval()


COUPLED = (gate, pixel_shuffle, summed_concatenation, half_normed, attention, grouped)
SAME_GROUPS = (chain, residual, transposed)


def with_gradients(make):
    torch.manual_seed(0)
    model = make()
    model(IMAGE).square().mean().backward()
    return model


def groups_of(model):
    graph = ChannelGraph().build_dependency(model, IMAGE)
    return list(graph.get_all_groups())


def all_importances(model):
    for reduction in REDUCTIONS:
        for normalizer in NORMALIZERS:
            yield importances.GroupMagnitudeImportance(2, reduction, normalizer)
    yield importances.GroupMagnitudeImportance(bias=True)
    yield importances.BNScaleImportance()
    yield importances.GroupTaylorImportance()
    yield importances.GroupTaylorImportance(multivariable=True, bias=True)
    hessian = importances.GroupHessianImportance()
    hessian.accumulate_grad(model)
    yield hessian
    yield importances.LAMPImportance()
    yield importances.FPGMImportance()
    yield importances.RandomImportance()


@pytest.mark.parametrize("make", [*COUPLED, *SAME_GROUPS])
def test_every_importance_gives_one_score_to_each_channel(make):
    model = with_gradients(make)
    groups = groups_of(model)
    assert groups
    for importance in all_importances(model):
        for group in groups:
            if make is grouped and isinstance(importance, importances.FPGMImportance):
                continue  # repeats the weights of groups as if they were scores, with Torch-Pruning's own graph too
            scores = importance(group)
            has_norms = any(isinstance(dep.layer, nn.BatchNorm2d) for dep, _ in group)
            if isinstance(importance, importances.BNScaleImportance) and not has_norms:
                assert scores is None
            else:
                assert scores.shape == (len(group[0].idxs),)
                assert scores.isfinite().all()


def outputs_squared(layer):
    return layer.weight.detach().flatten(1).square().sum(1)


def inputs_squared(layer):
    return layer.weight.detach().transpose(0, 1).flatten(1).square().sum(1)


def parts_of(make, model):
    """The squares of the weights of each channel of the only group, layer by layer."""
    if make is gate:
        return [
            outputs_squared(model.make).reshape(2, 4).sum(0),
            model.norm.weight.detach().square().reshape(2, 4).sum(0),
            inputs_squared(model.read),
        ]
    if make is pixel_shuffle:
        return [
            outputs_squared(model.make).reshape(4, 4).sum(1),
            model.norm.weight.detach().square(),
            inputs_squared(model.read),
        ]
    return [
        outputs_squared(model.both),  # the root
        torch.cat([outputs_squared(model.one), outputs_squared(model.other)]),
        model.norm.weight.detach().square(),
        inputs_squared(model.read),
    ]


@pytest.mark.parametrize("make", [gate, pixel_shuffle, summed_concatenation])
@pytest.mark.parametrize("reduction", ["sum", "first"])
def test_scores_of_coupled_channels_are_those_of_their_layers(make, reduction):
    model = with_gradients(make)
    (group,) = groups_of(model)
    scores = importances.GroupMagnitudeImportance(2, reduction, None)(group)
    torch.testing.assert_close(scores, REDUCTIONS[reduction](parts_of(make, model)))


def test_scores_of_norms_alone():
    model = with_gradients(gate)
    (group,) = groups_of(model)
    scores = importances.BNScaleImportance("sum", None)(group)
    torch.testing.assert_close(scores, model.norm.weight.detach().abs().reshape(2, 4).sum(0))


def test_channels_without_a_norm_count_for_nothing_in_scores_of_norms():
    model = with_gradients(half_normed)
    (group,) = groups_of(model)
    scores = importances.BNScaleImportance("sum", None)(group)
    by_channel = torch.cat([model.norm.weight.detach().abs(), torch.zeros(4)])
    torch.testing.assert_close(scores, by_channel)


@pytest.mark.parametrize("make", SAME_GROUPS)
def test_scores_are_those_with_torch_prunings_own_graph(make):
    model = with_gradients(make)
    theirs = tp.DependencyGraph().build_dependency(model, IMAGE)
    for group in groups_of(model):
        root = group[0].dep
        other = theirs.get_pruning_group(root.target.module, root.handler, list(group[0].idxs))
        for ours, same in zip(all_importances(model), all_importances(model), strict=True):
            if getattr(ours, "group_reduction", None) == "gate" or isinstance(ours, importances.RandomImportance):
                continue  # the last layer of a group depends on the way in which its layers were found
            scores, expected = ours(group), same(other)
            assert (scores is None) == (expected is None)
            if scores is not None:
                torch.testing.assert_close(scores, expected)


PRUNERS = (tp.pruner.GroupNormPruner, tp.pruner.GrowingRegPruner, tp.pruner.BNScalePruner)


def regularized(pruner_class, model, ours):
    model = copy.deepcopy(model)
    model(IMAGE).square().mean().backward()
    importance = importances.GroupMagnitudeImportance()
    with following_channels() if ours else contextlib.nullcontext():
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        pruner = pruner_class(model, IMAGE, importance, ignored_layers=last)
    if hasattr(pruner, "update_reg"):
        pruner.update_reg()
    pruner.regularize(model)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("make", [chain, residual])
@pytest.mark.parametrize("pruner_class", PRUNERS)
def test_regularized_gradients_are_those_with_torch_prunings_own_graph(make, pruner_class):
    torch.manual_seed(0)
    model = make()
    ours, theirs = regularized(pruner_class, model, True), regularized(pruner_class, model, False)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], msg=name)


@pytest.mark.parametrize("make", [gate, pixel_shuffle, summed_concatenation])
def test_every_weight_of_coupled_channels_is_regularized_once(make):
    torch.manual_seed(0)
    model = make()
    model(IMAGE).square().mean().backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    with following_channels():
        pruner = tp.pruner.GrowingRegPruner(model, IMAGE, importances.GroupMagnitudeImportance(), reg=0.1)
    pruner.regularize(model)
    for name, parameter in model.named_parameters():
        expected = before[name] + (0.1 * parameter.detach() if parameter.dim() > 1 else 0)  # not its biases and norms
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("make", [gate, pixel_shuffle, summed_concatenation, half_normed, attention])
@pytest.mark.parametrize("pruner_class", PRUNERS)
def test_regularizing_pruners_prune_coupled_channels(make, pruner_class):
    model = with_gradients(make)
    with following_channels():
        pruner = pruner_class(model, IMAGE, importances.GroupMagnitudeImportance(), pruning_ratio=0.5)
    count = sum(parameter.numel() for parameter in model.parameters())
    pruner.update_regularizer()
    pruner.regularize(model)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    pruner.step()
    assert model(IMAGE).isfinite().all()
    assert sum(parameter.numel() for parameter in model.parameters()) < count
    assert pruner.DG.verify() == []


def test_group_lasso_of_norms():
    model = with_gradients(gate)
    before = model.norm.weight.grad.clone()
    with following_channels():
        pruner = tp.pruner.BNScalePruner(
            model, IMAGE, importances.GroupMagnitudeImportance(), reg=0.1, group_lasso=True
        )
    pruner.regularize(model)
    weight = model.norm.weight.detach()
    norms = weight.reshape(2, 4).square().sum(0).sqrt().repeat(2)
    torch.testing.assert_close(model.norm.weight.grad, before + 0.1 * weight / norms, rtol=1e-4, atol=1e-5)

"""The paper's selection: `pruning_ratio_dict` makes a pruner keep exactly the union that Algorithm 1 names."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from torchprune_spatial import SpatialMaskImportance

from ..networks import ProgramNet, calibration, networks, plain_net
from ..pruning import EXAMPLE, make_pruner
from .test_bad_input import assert_untouched, snapshot
from .test_spatial_mask import best_filters_of_layers, plain_scores, plain_union_scores

FRACTIONS = [0.0, 0.1, 0.3, 0.5, 0.75, 1.0]


def algorithm_1(imp_obj, imp_back, overall, fract):
    """The pseudo-code in plain loops; where values are equal, their places in (value, overall mean, -index)."""

    def places(importance):
        order = sorted(range(len(importance)), key=lambda i: (importance[i], overall[i], -i))
        return {i: place for place, i in enumerate(order)}

    filters_to_keep = set()
    for importance in (places(imp_obj), places(imp_back)):
        threshold = np.quantile(list(importance.values()), 1 - fract)
        for i, value in importance.items():
            if value >= threshold - 1e-9:
                filters_to_keep.add(i)
    return filters_to_keep


def kept_by_pruner(model, pruner):
    """Channels that stay, by the layer that the group is rooted in. Only groups that lose any."""
    names = {module: name for name, module in model.named_modules()}
    kept = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outputs of the network.*")
        for group in pruner.step(interactive=True):
            layer = group[0].dep.target.module
            kept[names[layer]] = set(range(layer.out_channels)) - set(group[0].idxs)
            group.prune()
    return kept


@settings(max_examples=40)
@given(
    model=networks,
    fract=st.sampled_from(FRACTIONS),
    options=st.sampled_from([{}, {"global_pruning": True}, {"isomorphic": True, "global_pruning": True}]),
)
def test_keeps_exactly_the_union(model, fract, options):
    model.eval()
    data = calibration()
    expected, identities = plain_scores(model, data), model.channel_identities()
    importance = SpatialMaskImportance(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ratios = importance.pruning_ratio_dict(model, EXAMPLE, keep_fraction=fract)
    unions = {}
    for name, layer in model.named_modules():
        if layer in ratios:
            ids = identities[model.written_by(name.removeprefix("layers."))]
            rows = [expected[i] for i in ids]
            unions[name] = algorithm_1(*zip(*rows, strict=True), fract)
            unions[name] |= best_filters_of_layers(model, ids, plain_union_scores(rows))
    assert unions
    kept = kept_by_pruner(model, make_pruner(model, importance, pruning_ratio_dict=ratios, **options))
    for name, union in unions.items():
        assert kept.get(name, set(range(model.get_submodule(name).out_channels))) == union


@pytest.mark.parametrize(
    "pruner", [tp.pruner.BasePruner, tp.pruner.GroupNormPruner, tp.pruner.BNScalePruner, tp.pruner.GrowingRegPruner]
)
def test_serves_the_pruners_of_torch_pruning(pruner):
    model = ProgramNet(["convolution", "residual"], width=8, norm=True)
    importance = SpatialMaskImportance(calibration(), normalizer=None)
    ignored = [model.layers["output"]]
    ratios = importance.pruning_ratio_dict(model, EXAMPLE, 0.3, ignored)
    unions = {layer: int(layer.out_channels * (1 - ratio)) for layer, ratio in ratios.items()}
    assert any(unions[layer] < 8 for layer in unions)
    pruner(model, EXAMPLE, importance=importance, pruning_ratio_dict=ratios, ignored_layers=ignored).step()
    assert {layer: layer.out_channels for layer in unions} == unions


def test_a_hand_made_layer():
    """Six filters, fract 0.4: 6 - ceil(5 * 0.6) = 3 filters a region. Object 0, 1, 5; background 1, 2, 3."""
    model = nn.Sequential(nn.Conv2d(2, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 1, 1))
    in_object = torch.tensor([0.6, 0.5, 0.1, 0.2, 0.3, 0.4])
    in_background = torch.tensor([0.0, 0.5, 0.6, 0.3, 0.1, 0.2])
    model[0].weight.data = torch.stack([in_object, in_background], 1).view(6, 2, 1, 1)
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    importance = SpatialMaskImportance([(torch.cat([target, 1 - target], 1), target)])
    ratios = importance.pruning_ratio_dict(model, torch.zeros(1, 2, 4, 4), 0.4, [model[2]])
    pruner = make_pruner(model, importance, torch.zeros(1, 2, 4, 4), pruning_ratio_dict=ratios)
    assert kept_by_pruner(model, pruner) == {"0": {0, 1, 2, 3, 5}}


def test_dead_filters_do_not_keep_each_other():
    """All but one filter is dead: the paper's `>=` keeps every one from fract 0.3 on, exact top sets keep 0 and 1."""
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 1, 1))
    model[0].weight.data.zero_()
    model[0].bias.data = torch.tensor([-1.0, -1, -1, 2, -1, -1])
    importance = SpatialMaskImportance(calibration())
    ratios = importance.pruning_ratio_dict(model, EXAMPLE, 0.4, [model[2]])
    kept = kept_by_pruner(model, make_pruner(model, importance, pruning_ratio_dict=ratios))
    assert kept == {"0": {3, 0, 1}}


def test_one_channel_and_every_channel():
    model = ProgramNet(["convolution"], width=1)
    importance = SpatialMaskImportance(calibration())
    ratios = importance.pruning_ratio_dict(model, EXAMPLE, 0.0, [model.layers["output"]])
    assert set(ratios.values()) == {0.0}
    model = plain_net()
    ratios = SpatialMaskImportance(calibration()).pruning_ratio_dict(model, EXAMPLE, 1.0, [model[5]])
    assert ratios == {model[0]: 0.0, model[3]: 0.0}


def test_grouped_convolutions_keep_whole_sets():
    """Two groups of four channels lose the same ones: a union of three channels makes two sets, four channels."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 8, 1, bias=False), nn.Conv2d(8, 8, 1, groups=2, bias=False), nn.Conv2d(8, 1, 1, bias=False))
    )
    in_object = torch.tensor([8.0, 7, 1, 1, 1, 1, 1, 2])
    in_background = torch.tensor([8.0, 1, 1, 1, 1, 1, 1, 7])
    model[0].weight.data = torch.stack([in_object, in_background], 1).view(8, 2, 1, 1)
    model[1].weight.data = torch.eye(4).repeat(2, 1).view(8, 4, 1, 1)
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    importance = SpatialMaskImportance([(torch.cat([target, 1 - target], 1), target)])
    ratios = importance.pruning_ratio_dict(model, EXAMPLE, 0.1, [model[2]])  # 8 - ceil(7 * 0.9) = 1 a region: {0}
    assert set(ratios.values()) == {1 - 1.5 / 4}
    ratios = importance.pruning_ratio_dict(model, EXAMPLE, 0.2, [model[2]])  # 8 - ceil(7 * 0.8) = 2: {0, 1, 7}
    assert set(ratios.values()) == {1 - 2.5 / 4}
    make_pruner(model, importance, pruning_ratio_dict=ratios, ignored_layers=[model[2]]).step()
    assert model[1].out_channels == 4
    assert model(EXAMPLE).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_bad_fractions(fraction):
    model = plain_net().train()
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"keep_fraction is .*expected a fraction of the filters, in 0\.\.1"):
        SpatialMaskImportance(calibration()).pruning_ratio_dict(model, EXAMPLE, fraction)
    assert_untouched(model, before)


def test_leaves_the_network_as_it_was():
    model = plain_net().train()
    model[3].eval()
    before = snapshot(model)
    SpatialMaskImportance(calibration()).pruning_ratio_dict(model, EXAMPLE, 0.3, [model[5]])
    assert_untouched(model, before)


def test_a_real_network():
    model = resnet18(num_classes=4).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 64, 64, generator=generator)
    importance = SpatialMaskImportance([images], masks=lambda image, _: image[:, 0] > 0.7)
    example = images[:1]
    ratios = importance.pruning_ratio_dict(model, example, 0.3, ignored_layers=[model.fc])
    pruned = copy.deepcopy(model)
    counterpart = dict(zip(model.modules(), pruned.modules(), strict=True))
    ratios = {counterpart[layer]: ratio for layer, ratio in ratios.items()}
    kept = {layer: int(layer.out_channels * (1 - ratio)) for layer, ratio in ratios.items()}
    tp.pruner.BasePruner(pruned, example, importance, pruning_ratio_dict=ratios, ignored_layers=[pruned.fc]).step()
    assert {layer: layer.out_channels for layer in kept} == kept
    assert all(0.29 * layer.out_channels <= kept[counterpart[layer]] <= 0.63 * layer.out_channels
               for layer in model.modules() if counterpart[layer] in kept)  # fmt: skip

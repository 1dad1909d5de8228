"""The published rivals, by hand and by plain loops; what all importances have in common."""

import copy
import warnings

import pytest
import torch
import torch_pruning as tp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial import (
    APoZImportance,
    Calibration,
    MeanActivationImportance,
    SpatialMaskImportance,
    ThiNetImportance,
    WeightSumImportance,
)

from ..networks import CHANNEL_LAYERS, ProgramNet, calibration, networks, plain_net
from ..pruning import EXAMPLE, group_of, groups_of, make_pruner, prune
from .test_bad_input import assert_untouched, snapshot
from .test_pruning import removed_as_if_masked

CRITERIA = {
    "spatial mask": SpatialMaskImportance,
    "apoz": APoZImportance,
    "mean activation": MeanActivationImportance,
    "thinet": ThiNetImportance,
    "thinet iccv": lambda loader, **options: ThiNetImportance(loader, "iccv", **options),
    "weight sum": lambda loader, **options: WeightSumImportance(**options),
}
RIVALS = {name: criterion for name, criterion in CRITERIA.items() if name != "spatial mask"}


def test_are_registered_on_torch_pruning():
    for criterion in (APoZImportance, MeanActivationImportance, ThiNetImportance, WeightSumImportance):
        assert getattr(tp.importance, criterion.__name__) is criterion
        assert criterion.__name__ in tp.importance.__all__


def four_filters():
    """Filters that answer 3 everywhere, 8 in a quarter of the image, nowhere, and 2 in three quarters."""
    image = torch.zeros(1, 2, 4, 4)
    image[0, 0], image[0, 1, :2, :2] = 1, 1
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1))
    model[0].weight.data = torch.tensor([[3.0, 0], [0, 8], [-1, 0], [2, -2]]).view(4, 2, 1, 1)
    return model, [image]


def test_by_hand():
    model, data = four_filters()
    group = group_of(model, "0", data[0])
    expected = {
        MeanActivationImportance: [3, 2, 0, 1.5],
        APoZImportance: [1, 0.25, 0, 0.75],  # 1 - share of zeros
    }
    for criterion, scores in expected.items():
        assert criterion(data, normalizer=None)(group).tolist() == pytest.approx(scores, rel=1e-5, abs=1e-7)
    # [3, 8, 1, 4]: the sums of the filters' own absolute weights
    assert WeightSumImportance(normalizer=None)(group).tolist() == pytest.approx([3, 8, 1, 4], rel=1e-5)


def test_equal_shares_of_zeros_are_ordered_by_mean_activation():
    model = plain_net(nn.SiLU)  # never exactly zero
    group = group_of(model, "0")
    apoz, mean = APoZImportance(calibration())(group), MeanActivationImportance(calibration())(group)
    assert apoz.argsort().tolist() == mean.argsort().tolist()


def plain_filter_sums(layer):
    """Sum of |weight| over all that belongs to one output channel, index by index."""
    per_group = layer.out_channels // layer.groups
    sums = [0.0] * layer.out_channels
    for i, j in torch.cartesian_prod(*map(torch.arange, layer.weight.shape[:2])).tolist():
        if isinstance(layer, nn.ConvTranspose2d):
            channel = (i // (layer.in_channels // layer.groups)) * per_group + j
        else:
            channel = i
        sums[channel] += layer.weight[i, j].abs().sum().item()
    return sums


LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, padding=1),
    "transposed and grouped": lambda: nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_weight_sum_of_every_kind_of_convolution(layer):
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), LAYERS[layer](), nn.ReLU(), nn.Conv2d(6, 1, 1))
    graph = tp.DependencyGraph().build_dependency(model, EXAMPLE)
    handler = graph.get_pruner_of_module(model[2]).prune_out_channels
    group = graph.get_pruning_group(model[2], handler, list(range(6)))
    scores = WeightSumImportance(normalizer=None, group_reduction="first")(group)
    torch.testing.assert_close(scores, torch.tensor(plain_filter_sums(model[2])).double(), rtol=1e-5, atol=0)


def test_weight_sum_of_a_residual_addition_is_reduced_over_its_writers():
    model = ProgramNet(["residual"])
    group = group_of(model, "layers.layer0")
    sums = [plain_filter_sums(model.layers[name]) for name in ("layer0", "layer2")]
    for reduction, by_hand in (("mean", lambda a, b: (a + b) / 2), ("max", max), ("sum", lambda a, b: a + b)):
        scores = WeightSumImportance(reduction, normalizer=None)(group)
        assert scores.tolist() == pytest.approx([by_hand(a, b) for a, b in zip(*sums, strict=True)], rel=1e-5)


@pytest.mark.parametrize("criterion", ["weight sum", "thinet", "mean activation", "apoz"])
@settings(max_examples=15)
@given(model=networks, ratio=st.sampled_from([0.3, 0.5]), options=st.sampled_from([{}, {"global_pruning": True}]))
def test_pruned_equals_masked(criterion, model, ratio, options):
    pruner = make_pruner(model, CRITERIA[criterion](calibration()), pruning_ratio=ratio, **options)
    assume(removed_as_if_masked(model, torch.randn(2, 2, 8, 8), pruner))


@settings(max_examples=30)
@given(model=networks, criterion=st.sampled_from(list(CRITERIA)))
def test_scores_are_what_torch_pruning_expects(model, criterion):
    importance = CRITERIA[criterion](calibration())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group in groups_of(model):
            scores = importance(group)
            if scores is not None:
                assert scores.shape == (len(group[0].idxs),)
                assert scores.isfinite().all()
                assert len(scores.unique()) == len(scores)


@pytest.mark.parametrize("criterion", RIVALS)
def test_outputs_are_never_pruned(criterion):
    model = ProgramNet(["concatenation"])
    with pytest.warns(UserWarning, match=r"'layers.output': these channels are outputs of the network"):
        make_pruner(model, CRITERIA[criterion](calibration())).step()
    assert model(EXAMPLE).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("criterion", CRITERIA)
@settings(max_examples=25)
@given(model=networks, ratio=st.sampled_from([0.2, 0.5, 0.8, 0.9]))
def test_global_pruning_empties_no_layer_and_keeps_the_number_asked_for(criterion, model, ratio):
    """Torch-Pruning leaves a layer whole if all its channels are below the threshold: then too many would be kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importance = CRITERIA[criterion](calibration())
        roots = [g[0].dep.target.module for g in groups_of(model) if importance(g) is not None]
    asked_for = int(sum(layer.out_channels for layer in roots) * (1 - ratio))
    if asked_for < sum(isinstance(layer, CHANNEL_LAYERS) for layer in model.layers.values()) - 1:
        return  # fewer than one a layer: no threshold can do that
    prune(model, importance, pruning_ratio=ratio, global_pruning=True)
    # equal scores in different layers (dead filters, ranks) go together
    assert asked_for - len(roots) < sum(layer.out_channels for layer in roots) <= asked_for


def test_global_pruning_takes_more_from_a_layer_of_few_strong_channels():
    """Means 1, 1, 1, 1 against 1, 0.1, 0.1, 0.1: half of eight goes, three of the second layer and one of the first."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1))
    )
    model[0].weight.data.fill_(0.5)
    model[2].weight.data = torch.tensor([1.0, 0.1, 0.1, 0.1]).view(4, 1, 1, 1).repeat(1, 4, 1, 1)
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    data = [(torch.ones(1, 2, 4, 4), target)]
    for criterion in (SpatialMaskImportance, MeanActivationImportance):
        pruned = copy.deepcopy(model)
        prune(pruned, criterion(data), data[0][0], global_pruning=True, ignored_layers=[pruned[4]])
        assert (pruned[0].out_channels, pruned[2].out_channels) == (3, 1)


@pytest.mark.parametrize("criterion", ["spatial mask", "mean activation", "apoz", "weight sum"])
def test_a_dead_layer_keeps_one_filter(criterion):
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()),
        nn.Conv2d(4, 1, 1),
    )
    with torch.no_grad():
        model[0].weight.zero_(), model[0].bias.fill_(-1), model[4].bias.fill_(5)
    prune(model, CRITERIA[criterion](calibration()), global_pruning=True, ignored_layers=[model[6]])
    assert model[0].out_channels == 1


class Counting(list):
    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def test_one_pass_serves_all_the_criteria():
    model, data = plain_net(), Counting(calibration())
    shared = Calibration(data)
    criteria = [criterion(shared) for criterion in CRITERIA.values()]
    group = group_of(model, "0")
    together = [criterion(group) for criterion in criteria]
    assert data.passes == 1
    for criterion, scores in zip(CRITERIA.values(), together, strict=True):
        torch.testing.assert_close(criterion(calibration())(group), scores, rtol=0, atol=0)


def test_a_criterion_that_comes_later_measures_only_what_is_missing():
    model, data = plain_net(), Counting(calibration())
    group, shared = group_of(model, "0"), Calibration(data)
    MeanActivationImportance(shared)(group)
    apoz = APoZImportance(shared)
    statistics = apoz.statistics(group._DG)
    assert data.passes == 2
    apoz(group), MeanActivationImportance(shared)(group)
    assert data.passes == 2
    assert len(statistics.values) == 2


def test_a_shared_calibration_has_its_own_settings():
    with pytest.raises(ValueError, match="loader is a Calibration, which has its own threshold"):
        SpatialMaskImportance(Calibration(calibration()), threshold=0.2)


@pytest.mark.parametrize("batch", ["inputs", "labels", "dictionary"])
def test_rivals_need_no_targets(batch):
    def form(x):
        return {"inputs": x, "labels": (x, torch.zeros(len(x))), "dictionary": ({"input": x}, None)}[batch]

    model = plain_net()
    data = [form(x) for x, _ in calibration()]
    scores = MeanActivationImportance(data)(group_of(model, "0"))
    torch.testing.assert_close(scores, MeanActivationImportance(calibration())(group_of(model, "0")))


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        (lambda scores: scores[:-1], r"normalizer gave \[7\] for 8 channels"),
        (lambda scores: scores / 0, "normalizer gave NaN or infinite scores"),
        (lambda scores: scores.tolist(), "normalizer gave list for 8 channels"),
    ],
)
@pytest.mark.parametrize("criterion", ["spatial mask", "weight sum", "apoz"])
def test_normalizers_are_checked(criterion, normalizer, message):
    model = plain_net().train()
    before = snapshot(model)
    pruner = make_pruner(model, CRITERIA[criterion](calibration(), normalizer=normalizer))
    model.train()
    with pytest.raises(ValueError, match=message):
        pruner.step()
    assert_untouched(model, before)

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial import Calibration, SpatialMaskImportance, ThiNetImportance, prune_to
from torchprune_spatial.budget.allocations import cost_order
from torchprune_spatial.budget.removal import LayerSide, ScoredGroup
from torchprune_spatial.budget.sensitivity import Sensitivity

from ..networks import networks
from ..pruning import EXAMPLE, groups_of


class Chain(nn.Module):
    """Eight channels, of which each adds less to the output than the one before, and a pointwise reader."""

    def __init__(self):
        super().__init__()
        self.first, self.output = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.output.weight.data = 0.5 ** torch.arange(8.0).view(1, 8, 1, 1)

    def forward(self, x):
        return self.output(F.relu(self.first(x)))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    masks = torch.zeros(5, 1, 8, 8)
    masks[:, :, 2:5, 1:4] = 1
    inputs = torch.randn(5, 1, 8, 8)
    return [(inputs[:3], inputs[:3], masks[:3]), (inputs[3:], inputs[3:], masks[3:])]


def group_of(network, channels):
    graph = tp.DependencyGraph().build_dependency(network, torch.randn(1, 1, 8, 8))
    return graph.get_pruning_group(network.first, tp.prune_conv_out_channels, channels)


def first_best(channel_groups=1):
    return ScoredGroup(torch.arange(8 // channel_groups, 0, -1.0).repeat(channel_groups), channel_groups, (), ())


def calibrated(batches):
    calibration = Calibration(batches)
    SpatialMaskImportance(calibration)
    return calibration


def error_of(pruned, network, batches):
    """Region by region, over the mean square of the output."""
    inputs, _, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole = network(inputs).detach()
    squares = (pruned(inputs).detach() - whole).square()
    energy = np.mean([network(x).detach().square().mean() for x, *_ in batches])
    return ((squares[masks.bool()].mean() + squares[~masks.bool()].mean()) / energy).item()


def convex(errors):
    """Those of 1, 2, 4, 6 and 8 channels, joined by lines of which the steeper come first."""
    falls = []
    for (low, before), (high, after) in itertools.pairwise(errors):
        falls += [(before - after) / (high - low)] * (high - low)
    falls.sort()
    return [sum(falls[: 8 - kept]) for kept in range(1, 9)]


def test_losses_are_the_errors_of_networks_that_are_pruned(batches):
    network = Chain().eval()
    errors = []
    for kept in (1, 2, 4, 6):
        pruned = copy.deepcopy(network)
        group_of(pruned, list(range(kept, 8))).prune()
        errors.append((kept, error_of(pruned, network, batches)))
    losses = Sensitivity(network, calibrated(batches)).losses(group_of(network, list(range(8))), first_best())
    assert losses[0] == np.inf
    np.testing.assert_allclose(losses[1:], convex([*errors, (8, 0.0)]), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose([losses[kept] for kept, _ in errors], [error for _, error in errors], rtol=1e-4)


def test_blocks_lose_the_same_channels(batches):
    """Two blocks of four: of each the first stays."""
    network = Chain().eval()
    pruned = copy.deepcopy(network)
    group_of(pruned, [1, 2, 3, 5, 6, 7]).prune()
    losses = Sensitivity(network, calibrated(batches)).losses(group_of(network, list(range(8))), first_best(2))
    assert len(losses) == 5
    assert losses[1] == pytest.approx(error_of(pruned, network, batches), rel=1e-4)


def test_channels_that_all_stay_are_not_measured(batches):
    network = Chain().eval()
    sensitivity, everything = Sensitivity(network, calibrated(batches)), group_of(network, list(range(8)))
    assert sensitivity.losses(everything, ScoredGroup(torch.full((8,), torch.inf), 1, (), ()))[1:] == [0.0] * 8
    assert sensitivity.losses(everything, ScoredGroup(torch.ones(8), 8, (), ())) == [torch.inf, 0.0]


def test_what_folding_makes_up_for_is_no_error(batches):
    """Channels 4 to 7 are copies of 0 to 3: nothing is lost with them if they are folded, and much if not."""
    network = Chain().eval()
    with torch.no_grad():
        network.output.weight.fill_(0.2)
        for parameter in network.first.parameters():
            parameter[4:] = parameter[:4]
    importance = SpatialMaskImportance(batches, selection="interpolative")
    importance(group_of(network, list(range(8))))
    plain, folded = (
        Sensitivity(network, importance.calibration, fold).losses(group_of(network, list(range(8))), first_best())
        for fold in (None, importance.fold)
    )
    assert folded[4] < 0.02 * plain[4]


def test_outputs_without_positions_and_several_of_them(batches):
    """A class score and a map in a dict: both errors count, each over its own energy."""

    class Two(Chain):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 5)

        def forward(self, x):
            features = F.relu(self.first(x))
            return {"map": self.output(features), "score": self.score(features.mean((2, 3)))}

    network = Two().eval()
    pruned = copy.deepcopy(network)
    group_of(pruned, list(range(1, 8))).prune()
    losses = Sensitivity(network, calibrated(batches)).losses(group_of(network, list(range(8))), first_best())
    inputs = torch.cat([x for x, *_ in batches])
    scores, fewer = network(inputs)["score"].detach(), pruned(inputs)["score"].detach()
    energy = np.mean([network(x)["score"].detach().square().mean() for x, *_ in batches])

    class Map(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)["map"]

    expected = (fewer - scores).square().mean() / energy + error_of(Map(pruned), Map(network), batches)
    assert losses[1] == pytest.approx(expected.item(), rel=1e-4)


def test_what_loses_least_for_its_cost_goes_first():
    """Two groups of three channels between layers that cost alike; given losses take the place of those by score."""
    scores = torch.tensor([3.0, 2, 1])
    groups = {
        name: ScoredGroup(scores, 1, (), (), (LayerSide(f"layer of {name}", True, 3, 1.0),)) for name in ("a", "b")
    }
    costs = {"layer of a": 1.0, "layer of b": 1.0}
    order = cost_order(groups, costs, {"a": [9, 3, 1, 0], "b": [9, 7.5, 2.5, 0]})  # rises by 1, 2 and by 2.5, 5
    assert order == [("a", 2), ("a", 1), ("b", 2), ("b", 1)]
    costs = {"layer of a": 1.0, "layer of b": 4.0}
    assert cost_order(groups, costs, {"a": [9, 3, 1, 0], "b": [9, 7.5, 2.5, 0]})[0] == ("b", 2)


@given(networks, st.booleans())
@settings(max_examples=15, deadline=None)
def test_prunes_random_networks_to_the_budget(network, folds):
    model, inputs = copy.deepcopy(network), torch.rand(3, *EXAMPLE.shape[1:])
    importance = SpatialMaskImportance([(inputs, inputs, (inputs[:, :1] > 0.5).float())], selection="interpolative")
    fold = importance.fold if folds else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small networks cannot be pruned by any factor
        record = prune_to(model, EXAMPLE, importance, compression=1.5, allocation="sensitivity", before_removal=fold)
    assert record.compression > 1
    assert model(inputs).shape == network(inputs).shape


@given(networks, st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_network_is_left_as_it_was(network, folds):
    network.eval()
    before, inputs = copy.deepcopy(network.state_dict()), torch.rand(3, *EXAMPLE.shape[1:])
    importance = SpatialMaskImportance([(inputs, inputs, (inputs[:, :1] > 0.5).float())], selection="interpolative")
    sensitivity = Sensitivity(network, importance.calibration, importance.fold if folds else None)
    for group in groups_of(network):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = importance(group)
        if scores is not None:
            losses = sensitivity.losses(group, ScoredGroup(scores, 1, (), ()))
            assert losses == sorted(losses, reverse=True)
            assert losses[-1] == 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_fold_that_fails_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    network, inputs = Chain().eval(), torch.rand(2, 1, 8, 8)
    before = copy.deepcopy(network.state_dict())
    importance = SpatialMaskImportance([(inputs, inputs, (inputs > 0.5).float())])

    def fold(group):
        network.output.weight.data.zero_()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        prune_to(network, inputs, importance, compression=2, allocation="sensitivity", before_removal=fold)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("forward", "problem"),
    [
        (lambda model, x: model(x) > 0, "Chain returns no tensor of real numbers"),
        (lambda model, x: (y := model(x))[y > y.mean() + 1], "Chain returns outputs whose shapes depend on values"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(forward, problem):
    torch.manual_seed(0)
    network, inputs = Chain().eval(), torch.randn(4, 1, 8, 8)
    importance = SpatialMaskImportance([(inputs, inputs, (inputs > 0.5).float())], forward=forward)
    with pytest.raises(ValueError, match=problem + r".*, or use allocation='cost'"):
        prune_to(network, inputs, importance, compression=2, allocation="sensitivity")
    assert network.first.out_channels == 8
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_an_importance_without_data_is_refused():
    network = Chain()
    with pytest.raises(ValueError, match=r"importance \(GroupMagnitudeImportance\) does not have: use one that has"):
        prune_to(
            network,
            torch.rand(1, 1, 8, 8),
            tp.importance.GroupMagnitudeImportance(),
            compression=2,
            allocation="sensitivity",
        )
    assert network.first.out_channels == 8


def test_data_without_regions_count_alike(batches):
    """Of ThiNet, whose loader may yield inputs alone."""
    network = Chain().eval()
    importance = ThiNetImportance([inputs for inputs, *_ in batches])
    losses = Sensitivity(network, importance.calibration).losses(group_of(network, list(range(8))), first_best())
    pruned = copy.deepcopy(network)
    group_of(pruned, list(range(1, 8))).prune()
    inputs = torch.cat([x for x, *_ in batches])
    energy = np.mean([network(x).detach().square().mean() for x, *_ in batches])
    expected = (pruned(inputs) - network(inputs)).square().mean().item() / energy
    assert losses[1] == pytest.approx(expected, rel=1e-4)

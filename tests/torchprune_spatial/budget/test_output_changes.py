"""How much outputs change when channels of a group are removed."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchprune_spatial import Calibration, InterpolativeImportance, SpatialMaskImportance, ThiNetImportance, prune_to
from torchprune_spatial.budget.output_changes import OutputChanges

from ..networks import networks
from ..pruning import EXAMPLE, groups_of


class Chain(nn.Module):
    """Eight channels, each of which adds less to the output than the one before, and a pointwise reader."""

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


def pruned_to(network, kept):
    pruned = copy.deepcopy(network)
    group_of(pruned, list(range(kept, 8))).prune()
    return pruned


def change_of(changes, network, kept):
    return changes.change(group_of(network, list(range(8))), range(kept, 8))


def region_change(pruned, network, batches):
    """Region by region, over the mean square of the output."""
    inputs, _, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole = network(inputs).detach()
    squares = (pruned(inputs).detach() - whole).square()
    energy = np.mean([network(x).detach().square().mean() for x, *_ in batches])
    return ((squares[masks.bool()].mean() + squares[~masks.bool()].mean()) / energy).item()


@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_changes_are_those_of_networks_that_are_pruned(batches, kept):
    network = Chain().eval()
    expected = region_change(pruned_to(network, kept), network, batches)
    assert change_of(OutputChanges(network, Calibration(batches)), network, kept) == pytest.approx(expected, rel=1e-4)


def test_what_folding_makes_up_for_is_no_change(batches):
    """Channels 4 to 7 are copies of 0 to 3: nothing is lost with them if they are folded, and much if not."""
    network = Chain().eval()
    with torch.no_grad():
        network.output.weight.fill_(0.2)
        for parameter in network.first.parameters():
            parameter[4:] = parameter[:4]
    importance = InterpolativeImportance(batches)
    importance(group_of(network, list(range(8))))
    plain, folded = (
        change_of(OutputChanges(network, importance.calibration, fold), network, 4) for fold in (None, importance.fold)
    )
    assert folded < 0.02 * plain


def test_outputs_without_positions_and_several_of_them(batches):
    """A class score and a map in a dict: both changes count, each over its own energy."""

    class Two(Chain):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 5)

        def forward(self, x):
            features = F.relu(self.first(x))
            return {"map": self.output(features), "score": self.score(features.mean((2, 3)))}

    network = Two().eval()
    pruned = pruned_to(network, 1)
    inputs = torch.cat([x for x, *_ in batches])
    scores, fewer = network(inputs)["score"].detach(), pruned(inputs)["score"].detach()
    energy = np.mean([network(x)["score"].detach().square().mean() for x, *_ in batches])

    class Map(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)["map"]

    expected = (fewer - scores).square().mean() / energy + region_change(Map(pruned), Map(network), batches)
    found = change_of(OutputChanges(network, Calibration(batches)), network, 1)
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_data_without_regions_count_alike(batches):
    network = Chain().eval()
    importance = ThiNetImportance([inputs for inputs, *_ in batches])
    inputs = torch.cat([x for x, *_ in batches])
    energy = np.mean([network(x).detach().square().mean() for x, *_ in batches])
    expected = (pruned_to(network, 1)(inputs) - network(inputs)).square().mean().item() / energy
    found = change_of(OutputChanges(network, importance.calibration), network, 1)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_rise_of_a_loss(batches):
    """A scalar counts by its mean over the batches, and a value a pixel by its mean in each region."""
    network = Chain().eval()
    pruned = pruned_to(network, 2)
    inputs, targets, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    maps = [(net(inputs).detach() - targets).abs() for net in (network, pruned)]
    by_region = [(m[masks.bool()].mean() + m[~masks.bool()].mean()).item() for m in maps]
    changes = OutputChanges(network, Calibration(batches), loss=lambda out, y: (out - y).abs())
    assert change_of(changes, network, 2) == pytest.approx(max(0, by_region[1] - by_region[0]), rel=1e-4)
    scalars = [np.mean([(net(x).detach() - y).abs().mean() for x, y, _ in batches]) for net in (network, pruned)]
    changes = OutputChanges(network, Calibration(batches), loss=F.l1_loss)
    assert change_of(changes, network, 2) == pytest.approx(max(0, scalars[1] - scalars[0]), rel=1e-4, abs=1e-7)


def test_a_loss_that_is_no_tensor_is_refused(batches):
    with pytest.raises(ValueError, match="loss gave float; expected a tensor"):
        OutputChanges(Chain().eval(), Calibration(batches), loss=lambda out, y: 1.0)


@given(networks, st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_network_is_left_as_it_was(network, folds):
    network.eval()
    before, inputs = copy.deepcopy(network.state_dict()), torch.rand(3, *EXAMPLE.shape[1:])
    importance = InterpolativeImportance([(inputs, inputs, (inputs[:, :1] > 0.5).float())])
    loss = lambda outputs, target: outputs.square().mean()  # noqa: E731
    changes = OutputChanges(network, importance.calibration, importance.fold if folds else None, loss)
    for group in groups_of(network):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = importance(group)
        if scores is not None and len(scores) > 1:
            assert changes.change(group, [0]) >= 0
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
        prune_to(network, inputs, importance, compression=2, allocation="sensitivity", fold=fold)
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


def test_a_loss_that_is_not_defined_is_refused(batches):
    """A batch that is entirely void has no mean: NaN must not count as no change."""
    void = [(inputs, torch.full_like(targets, torch.nan), masks) for inputs, targets, masks in batches[:1]]
    with pytest.raises(ValueError, match="loss gives nan for the unpruned network"):
        OutputChanges(Chain().eval(), Calibration([*void, *batches]), loss=F.mse_loss)


def test_outputs_of_the_network_are_not_pruned(batches):
    """No layer reads them, so that nothing would seem to change without them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    options = {"allocation": "sensitivity", "calibration": [(x, None, mask) for x, _, mask in batches]}
    with pytest.warns(UserWarning, match="cannot be met more closely"):
        prune_to(network, batches[0][0], tp.importance.GroupMagnitudeImportance(), compression=2, **options)
    assert network[2].out_channels == 4
    assert network[0].out_channels < 8


def test_each_output_is_compared_with_its_own_target(batches):
    """A mask as logits and a depth from 5 to 20: by position, whatever their order."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
            with torch.no_grad():
                for layer, weight, bias in ((self.first, 8.0, -4.0), (self.second, 15.0, 5.0)):
                    layer.weight.fill_(weight)
                    layer.bias.fill_(bias)

        def forward(self, x):
            return self.first(x), self.second(x)

    mask = (torch.rand(4, 1, 8, 8) > 0.5).float()
    changes = OutputChanges(Two().eval(), Calibration([(mask, (mask, 5 + 15 * mask))]))
    assert changes._readings == ["sigmoid", "values"]


def test_noise_that_the_network_draws_is_no_change(batches):
    class Noisy(Chain):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 1, 8, 8)

    torch.manual_seed(1)
    network = Noisy().eval()
    network.output.weight.data[:, 4:] = 0
    group = group_of(network, list(range(8)))
    state = torch.get_rng_state()
    changes = OutputChanges(network, Calibration(batches), loss=lambda out, _: out.square())
    assert changes.change(group, range(4, 8)) == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_number_can_stand_first_among_the_inputs(batches):
    class Timed(Chain):
        def forward(self, time, x):
            return super().forward(x + time)

    network = Timed().eval()
    data = [((torch.tensor(0.5), x), y, mask) for x, y, mask in batches]
    shifted = [(x + 0.5, y, mask) for x, y, mask in batches]
    found = InterpolativeImportance(data), InterpolativeImportance(shifted)
    records = [
        prune_to(copy.deepcopy(net), example, importance, compression=2)
        for net, example, importance in zip(
            (network, chain_of(network)), ((torch.tensor(0.5), batches[0][0]), batches[0][0]), found, strict=True
        )
    ]
    assert records[0].rows() == records[1].rows()


def chain_of(network):
    chain = Chain().eval()
    chain.load_state_dict(network.state_dict())
    return chain

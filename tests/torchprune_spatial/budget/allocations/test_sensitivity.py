"""Spreading a budget by what the outputs lose."""

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

from torchprune_spatial import (
    Calibration,
    InterpolativeImportance,
    MeanActivationImportance,
    SpatialMaskImportance,
    prune_to,
)
from torchprune_spatial.budget.allocations import Work
from torchprune_spatial.budget.allocations.cost import cost_order
from torchprune_spatial.budget.allocations.sensitivity import measured_losses
from torchprune_spatial.budget.scored_groups import LayerSide, ScoredGroup

from ...networks import networks
from ...pruning import EXAMPLE


def first_best(channel_groups=1):
    return ScoredGroup(torch.arange(8 // channel_groups, 0, -1.0).repeat(channel_groups), channel_groups, (), ())


def convex(errors):
    """Those of 1, 2, 4, 6 and 8 channels, joined by lines of which the steeper come first."""
    falls = []
    for (low, before), (high, after) in itertools.pairwise(errors):
        falls += [(before - after) / (high - low)] * (high - low)
    falls.sort()
    return [sum(falls[: 8 - kept]) for kept in range(1, 9)]


def test_changes_are_measured_at_five_strengths_and_made_convex():
    changes = {1: 9.0, 2: 8.0, 4: 3.0, 6: 1.5}
    losses = measured_losses(first_best(), lambda positions: changes[8 - len(positions)])
    assert losses[0] == np.inf
    np.testing.assert_allclose(losses[1:], convex([*changes.items(), (8, 0.0)]))


def test_channel_groups_lose_the_same_channels():
    """Two channel groups of four: the first channel of each is kept."""
    asked = []
    losses = measured_losses(first_best(2), lambda positions: asked.append(sorted(positions)) or 1.0)
    assert len(losses) == 5
    assert asked[0] == [1, 2, 3, 5, 6, 7]


def test_channels_that_are_all_kept_are_not_measured():
    never = None
    assert measured_losses(ScoredGroup(torch.full((8,), torch.inf), 1, (), ()), never)[1:] == [0.0] * 8
    assert measured_losses(ScoredGroup(torch.ones(8), 8, (), ()), never) == [torch.inf, 0.0]


def test_what_loses_least_for_its_cost_is_removed_first():
    """Two groups of three channels between layers that cost alike."""
    scores = torch.tensor([3.0, 2, 1])
    groups = {
        name: ScoredGroup(scores, 1, (), (), (LayerSide(f"layer of {name}", True, 3, 1.0),)) for name in ("a", "b")
    }
    losses = {"a": [9, 3, 1, 0], "b": [9, 7.5, 2.5, 0]}  # rises by 1, 2 and by 2.5, 5
    order = cost_order(Work(None, groups, {}, {"layer of a": 1.0, "layer of b": 1.0}), losses)
    assert order == [("a", 2), ("a", 1), ("b", 2), ("b", 1)]
    assert cost_order(Work(None, groups, {}, {"layer of a": 1.0, "layer of b": 4.0}), losses)[0] == ("b", 2)


@given(networks, st.booleans())
@settings(max_examples=15, deadline=None)
def test_prunes_random_networks_to_the_budget(network, fold):
    model, inputs = copy.deepcopy(network), torch.rand(3, *EXAMPLE.shape[1:])
    importance = InterpolativeImportance([(inputs, inputs, (inputs[:, :1] > 0.5).float())])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small networks cannot be pruned by any factor
        loss = lambda outputs, target: (outputs - outputs.mean()).square().mean()  # noqa: E731
        record = prune_to(model, EXAMPLE, importance, compression=1.5, fold=fold, loss=loss)
    assert record.compression > 1
    assert model(inputs).shape == network(inputs).shape


def widths(model):
    return [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.fixture
def task():
    """A network and images of one small bright object each."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 1)),
    )
    target = torch.zeros(8, 1, 16, 16)
    target[:, :, 4:8, 5:9] = 1
    return model, [(target + 0.5 * torch.rand_like(target), target)]


def test_what_is_measured_depends_on_the_call_alone(task):
    """A criterion that is made and never used asks the calibration for regions; that must change nothing."""
    model, loader = task
    kept = []
    for unused in (False, True):
        calibration = Calibration(loader)
        if unused:
            SpatialMaskImportance(calibration)
        pruned = copy.deepcopy(model)
        importance = MeanActivationImportance(calibration)
        prune_to(pruned, loader[0][0][:1], importance, compression=4, allocation="sensitivity")
        kept.append(widths(pruned))
    assert kept[0] == kept[1]


def test_any_importance_with_calibration_data(task):
    model, loader = task
    for calibration in (loader, Calibration(loader)):
        pruned = copy.deepcopy(model)
        record = prune_to(
            pruned,
            loader[0][0][:1],
            tp.importance.GroupMagnitudeImportance(),
            compression=4,
            allocation="sensitivity",
            calibration=calibration,
        )
        assert record.compression == pytest.approx(4, rel=0.05)


def test_an_importance_without_data_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    with pytest.raises(ValueError, match=r"\(GroupMagnitudeImportance\) does not have: pass calibration=loader"):
        prune_to(
            network,
            torch.rand(1, 1, 8, 8),
            tp.importance.GroupMagnitudeImportance(),
            compression=2,
            allocation="sensitivity",
        )
    assert network[0].out_channels == 8


def trained(loss_of, loader, last=1):
    """A network that was trained for a while with a loss of logits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, last, 1)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        for inputs, target in loader:
            optimizer.zero_grad()
            loss_of(model(inputs), target).backward()
            optimizer.step()
    return model.eval()


BINARY = F.binary_cross_entropy_with_logits


@pytest.mark.parametrize(
    ("loss_of", "last", "labels", "by_hand"),
    [
        (BINARY, 1, False, torch.sigmoid),
        (lambda out, y: F.cross_entropy(out, y.squeeze(1).long()), 2, True, lambda out: out.softmax(1)),
    ],
    ids=["sigmoid", "softmax"],
)
def test_logits_are_allocated_as_with_the_probabilities_given_by_hand(task, loss_of, last, labels, by_hand):
    _, loader = task
    model = trained(loss_of, loader, last)
    data = [(x, y.squeeze(1).long() if labels else y) for x, y in loader]
    assert model(data[0][0]).abs().max() > 3  # logits indeed
    kept = []
    for forward in (None, lambda model, x: by_hand(model(x))):
        pruned = copy.deepcopy(model)
        record = prune_to(pruned, data[0][0][:1], InterpolativeImportance(data, forward=forward), compression=4)
        kept.append({name: channels.tolist() for name, channels in record.kept_out.items()})
    assert kept[0] == kept[1]


def test_logits_without_targets_are_asked_for(task):
    _, loader = task
    model = trained(BINARY, loader)
    before = copy.deepcopy(model.state_dict())
    inputs, masks = [x for x, _ in loader], lambda x, target: (x > 0.7).float()
    importance = InterpolativeImportance(inputs, masks=masks)
    with pytest.raises(ValueError, match=r"values from -.* no target .* whether they are logits. Let the loader yield"):
        prune_to(model, inputs[0][:1], importance, compression=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loss = lambda out, whole: (out.sigmoid() - whole.sigmoid()).square().mean()  # noqa: E731
    record = prune_to(model, inputs[0][:1], importance, compression=2, loss=loss)
    assert record.compression == pytest.approx(2, rel=0.1)  # as close as the channels of a small network can be


def test_a_loader_is_read_by_the_forward_fn_of_the_model(task):
    model, loader = task

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = copy.deepcopy(model)

        def forward(self, *, image):
            return self.model(image)

    record = prune_to(
        Named(),
        loader[0][0][:1],
        tp.importance.GroupMagnitudeImportance(),
        compression=2,
        allocation="sensitivity",
        calibration=loader,
        forward_fn=lambda model, x: model(image=x),
    )
    assert record.compression == pytest.approx(2, rel=0.05)


def test_what_others_asked_for_and_cannot_have_does_not_matter(task):
    """A spatial mask wants regions, which labels of images do not give; it is not used."""
    model, loader = task
    calibration = Calibration([(loader[0][0], torch.zeros(8, dtype=torch.long))])
    unused = SpatialMaskImportance(calibration)
    record = prune_to(copy.deepcopy(model), loader[0][0][:1], MeanActivationImportance(calibration), compression=2)
    assert record.compression == pytest.approx(2, rel=0.05)
    assert unused.calibration is calibration

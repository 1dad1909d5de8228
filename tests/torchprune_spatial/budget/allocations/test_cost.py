"""Spreading a budget by what channels cost."""

import copy
import warnings

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.unets import ResUNet
from torchprune_spatial.budget.allocations import ALLOCATIONS, Work
from torchprune_spatial.budget.pruning import prune_to
from torchprune_spatial.budget.scored_groups import LayerSide, ScoredGroup

from ...networks import networks
from ...pruning import EXAMPLE

MAGNITUDE = tp.importance.GroupMagnitudeImportance()


def chain(*widths, scores=None):
    """Groups of a chain of layers ``l0 .. ln`` from 3 to 3 channels, with the given widths between."""
    groups = {}
    for i, width in enumerate(widths):
        values = torch.tensor(scores[i] if scores else [1.0] * width)
        members = (LayerSide(f"l{i}", True, width, 1.0), LayerSide(f"l{i + 1}", False, width, 1.0))
        groups[f"g{i}"] = ScoredGroup(values, 1, (), (), members)
    return groups


def cost_order(groups, costs, **options):
    return ALLOCATIONS["cost"].order(Work(None, groups, {}, costs, **options))


def greedy(widths, scores, costs):
    """Plain loops: each time all the groups are looked at, and the costs counted from the widths that are left."""
    left = [sorted(values) for values in scores]
    order = []

    def cost(state):
        ends = [3, *(len(values) for values in state), 3]
        full = [3, *widths, 3]
        return sum(costs[f"l{i}"] * ends[i] * ends[i + 1] / (full[i] * full[i + 1]) for i in range(len(widths) + 1))

    while any(len(values) > 1 for values in left):
        prices = []
        for i, values in enumerate(left):
            if len(values) > 1:
                total, before, after = sum(scores[i]), sum(values), sum(values[1:])
                then = [*left[:i], values[1:], *left[i + 1 :]]
                prices.append(((total / after - total / before) / (cost(left) - cost(then)), i))
        _, i = min(prices)
        left[i] = left[i][1:]
        order.append((f"g{i}", len(left[i])))
    return order


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_plain_loops(widths, random):
    scores = [[random.uniform(0.1, 1) for _ in range(width)] for width in widths]
    costs = {f"l{i}": random.uniform(1, 100) for i in range(len(widths) + 1)}
    assert cost_order(chain(*widths, scores=scores), costs) == greedy(widths, scores, costs)


def test_scores_of_different_groups_need_not_compare():
    scores = [[1.0, 4, 2], [3.0, 5, 6, 1]]
    costs = {"l0": 1.0, "l1": 5.0, "l2": 2.0}
    larger = [[1000 * value for value in scores[0]], scores[1]]
    assert cost_order(chain(3, 4, scores=scores), costs) == cost_order(chain(3, 4, scores=larger), costs)


def test_equal_layers_of_equal_cost_stay_balanced():
    """Two groups of one width between layers of one cost lose channels in turn, however far it goes."""
    order = cost_order(chain(32, 32), {"l0": 1.0, "l1": 1.0, "l2": 1.0})
    left = {"g0": 32, "g1": 32}
    for name, kept in order:
        left[name] = kept
        assert abs(left["g0"] - left["g1"]) <= 1


def test_zeros_are_removed_first_and_infinite_scores_stay():
    order = cost_order(chain(3, 3, scores=[[0.0, 1, 1], [1.0, torch.inf, torch.inf]]), {"l1": 1.0})
    assert order == [("g0", 2), ("g1", 2), ("g0", 1)]
    assert len(cost_order(chain(4, scores=[[0.0, 0, 0, 0]]), {"l0": 1.0})) == 3
    assert len(cost_order(chain(4, scores=[[-1.0, -3, 0, 2]]), {})) == 3


def test_round_to_and_max_pruning_ratio():
    order = cost_order(chain(16, 16), {"l1": 1.0}, round_to=4, max_pruning_ratio=0.5)
    assert sorted(order) == [("g0", 8), ("g0", 12), ("g1", 8), ("g1", 12)]


def shares_kept(model, before):
    pairs = zip(model.modules(), before.modules(), strict=True)
    return [m.out_channels / b.out_channels for m, b in pairs if isinstance(m, nn.Conv2d)][:-1]


def test_a_budget_of_parameters_spares_the_narrow_layers():
    """In this U-Net the widths double where the grids halve: all layers have equal FLOPs, but not equal parameters."""
    ratios = {}
    for limit in ("compression", "speedup"):
        torch.manual_seed(0)
        model, example = ResUNet(16), torch.rand(1, 1, 32, 32)
        before = copy.deepcopy(model)
        record = prune_to(model, example, MAGNITUDE, allocation="cost", ignored_layers=[model.output], **{limit: 8})
        assert getattr(record, limit) == pytest.approx(8, rel=0.05)
        kept = shares_kept(model, before)
        ratios[limit] = (sum(kept[:3]) / 3) / (sum(kept[7:12]) / 5)  # at full resolution, and deep down
    assert 0.8 < ratios["speedup"] < 1.25
    assert ratios["compression"] > 1.5


@given(networks, st.sampled_from(["compression", "speedup"]))
@settings(max_examples=15, deadline=None)
def test_budgets_are_met_on_random_networks(network, limit):
    model = copy.deepcopy(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small networks cannot be pruned by any factor
        record = prune_to(
            model, EXAMPLE, MAGNITUDE, allocation="cost", ignored_layers=[model.layers["output"]], **{limit: 1.5}
        )
    assert getattr(record, limit) > 1
    assert model(EXAMPLE).shape == network(EXAMPLE).shape


def test_names_of_torch_prunings_own_allocations():
    kept = {}
    for options in ({"allocation": "global"}, {"global_pruning": True}, {"allocation": "uniform"}, {}):
        torch.manual_seed(0)
        model = ResUNet(8)
        record = prune_to(
            model, torch.rand(1, 1, 16, 16), MAGNITUDE, compression=4, ignored_layers=[model.output], **options
        )
        kept[str(options)] = {name: channels.tolist() for name, channels in record.kept_out.items()}
    by_name, by_option, uniform, default = kept.values()
    assert by_name == by_option
    assert uniform == default
    assert by_name != uniform


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"allocation": "magic"}, ValueError, "allocation is 'magic'; expected one of 'cost', 'uniform', 'global'"),
        ({"allocation": "cost", "global_pruning": True}, TypeError, "global_pruning and allocation='cost' both choose"),
    ],
)
def test_bad_allocations(options, error, text):
    model = ResUNet(8)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=text):
        prune_to(model, torch.rand(1, 1, 16, 16), MAGNITUDE, compression=4, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

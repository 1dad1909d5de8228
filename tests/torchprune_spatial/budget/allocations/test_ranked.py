"""The order in which channels are removed by the rank of their scores."""

import pytest
import torch

from torchprune_spatial.budget.allocations import ALLOCATIONS, Work
from torchprune_spatial.budget.scored_groups import ScoredGroup


def group(*scores, channel_groups=1, kind=()):
    return ScoredGroup(torch.tensor(scores), channel_groups, (), kind)


def removal_order(groups, allocation="uniform", **options):
    return ALLOCATIONS[allocation].order(Work(None, groups, {}, {}, **options))


def kept_after(order, groups, steps):
    kept = {name: len(group.mean_scores) for name, group in groups.items()}
    return kept | dict(order[:steps])


def test_one_group_loses_one_channel_a_step_and_keeps_one():
    assert removal_order({"a": group(3.0, 1, 2)}) == [("a", 2), ("a", 1)]


def test_groups_lose_the_same_share():
    groups = {str(size): group(*map(float, range(size))) for size in (4, 8, 8, 16, 40)}
    order = removal_order(groups)
    assert len(order) == sum(len(g.mean_scores) - 1 for g in groups.values())
    for steps in range(len(order)):
        kept = kept_after(order, groups, steps)
        shares = [(kept[name] - 1, kept[name] + 1, len(g.mean_scores)) for name, g in groups.items()]
        assert max(low / size for low, _, size in shares) <= min(high / size for _, high, size in shares) + 1e-9


def test_groups_of_one_size_take_turns():
    groups = {name: group(1.0, 2, 3, 4) for name in "abcde"}
    order = removal_order(groups)
    for start in (0, 5, 10):
        assert {name for name, _ in order[start : start + 5]} == set("abcde")


def test_globally_the_lowest_scores_go_first():
    """Ascending: 1 b, 2 b, 3 a, 4 a, 5 b (the last of b: stays), 6 a (the last of a)."""
    groups = {"a": group(6.0, 3, 4), "b": group(1.0, 5, 2)}
    assert removal_order(groups, "global") == [("b", 2), ("b", 1), ("a", 2), ("a", 1)]


def test_tied_scores_go_one_at_a_time():
    groups = {"a": group(0.0, 0, 0), "b": group(0.0, 0)}
    assert len(removal_order(groups, "global")) == 3


def test_isomorphic_groups_are_ranked_together():
    """Kind 1: a and b, of which b has the low scores. c alone."""
    groups = {"a": group(8.0, 9, kind=(1,)), "b": group(1.0, 2, 3, kind=(1,)), "c": group(0.0, 0, 0, 0, kind=(2,))}
    order = removal_order(groups, "isomorphic")
    assert [step for step in order if step[0] != "c"] == [("b", 2), ("b", 1), ("a", 1)]
    assert ("c", 3) in order[:2]


@pytest.mark.parametrize(("size", "round_to", "kept"), [(10, 4, [8, 4]), (8, 4, [4]), (8, 8, []), (3, 4, [])])
def test_round_to(size, round_to, kept):
    assert [k for _, k in removal_order({"a": group(*map(float, range(size)))}, round_to=round_to)] == kept


def test_round_to_counts_all_the_channel_groups():
    """Two channel groups of 6: a multiple of 4 in all is a multiple of 2 in each."""
    order = removal_order({"a": group(*map(float, range(12)), channel_groups=2)}, round_to=4)
    assert order == [("a", 4), ("a", 2)]


@pytest.mark.parametrize(("ratio", "least"), [(0.5, 5), (0.75, 3), (0.9, 1), (0.3, 7), (1.0, 1)])
def test_max_pruning_ratio(ratio, least):
    order = removal_order({"a": group(*map(float, range(10)))}, "global", max_pruning_ratio=ratio)
    assert order[-1] == ("a", least)


def test_channel_groups_are_averaged():
    """As in Torch-Pruning, the score of a channel is its mean over the channel groups, and all lose the same ones."""
    scored = group(1.0, 2, 5, 3, channel_groups=2)
    assert scored.mean_scores.tolist() == [3.0, 2.5]
    assert scored.removed(1) == [1, 3]


def test_infinite_scores_stay():
    assert removal_order({"a": group(1.0, torch.inf, 2, torch.inf, 3)}, "global")[-1] == ("a", 2)

"""The union-find in tensors, against sets."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchprune_spatial.graph.labels.classes import FROZEN, LabelClasses, compressed, varying

pairs = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=20)


def sets_after(unions, count=16):
    """The classes as sets, united one pair after the other."""
    sets = [{label} for label in range(count)]
    for one, other in unions:
        a, b = (next(s for s in sets if label in s) for label in (one, other))
        if a is not b:
            sets.remove(b)
            a |= b
    return sets


@given(unions=pairs, batch=st.integers(1, 7))
def test_classes_are_those_of_sets(unions, batch):
    classes = LabelClasses()
    classes.new(15)
    for start in range(0, len(unions), batch):
        one, other = torch.tensor(unions[start : start + batch]).T
        classes.unite(one, other, f"reason {start}")
    for members in sets_after(unions):
        assert set(classes.of(torch.tensor(sorted(members))).tolist()) == {min(members)}
        for label in members - {FROZEN}:
            frozen = FROZEN in members
            assert classes.reasons[classes.reason_of[label]].startswith("reason") == frozen


@given(before=pairs, after=pairs)
def test_unions_of_watched_classes_are_noted(before, after):
    classes = LabelClasses()
    classes.new(15)
    for one, other in before:
        classes.unite(torch.tensor([one]), torch.tensor([other]))
    watched = classes.watched()
    new = watched.new(4).tolist()
    for one, other in after:
        watched.unite(torch.tensor([one]), torch.tensor([new[other % 4]]))
    together = sets_after([*before, *((one, 16 + other % 4) for one, other in after)], 20)
    expected = any(len({min(s) for s in sets_after(before) if s & found}) > 1 for found in together)
    assert bool(watched.joined) == expected
    assert not classes.joined
    for members in sets_after(before):  # the copy has not touched the original
        assert set(classes.of(torch.tensor(sorted(members))).tolist()) == {min(members)}


def test_labels_that_differ_by_position_only():
    classes = LabelClasses()
    grid = classes.new(6).view(2, 3)
    assert classes.unite_along(grid, 0).tolist() == [[1, 2, 3]]
    assert classes.of(grid).tolist() == [[1, 2, 3]] * 2
    copied = copy.deepcopy(classes)
    copied.freeze(torch.tensor([4]), "as it is")
    assert copied.of(grid).tolist() == [[0, 2, 3]] * 2
    assert classes.of(grid).tolist() == [[1, 2, 3]] * 2


def test_compressed_labels_vary_along_each_dimension_that_they_have():
    labels = torch.arange(3).view(1, 3, 1).expand(4, 3, 5).contiguous()
    assert compressed(labels).tolist() == [[[0], [1], [2]]]
    assert varying(compressed(labels)) == {1}
    assert compressed(torch.zeros(2, 2)).shape == (1, 1)

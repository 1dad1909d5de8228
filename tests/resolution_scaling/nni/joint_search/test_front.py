import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolution_scaling.nni.joint_search.front import hypervolume, pareto_front

NUMBERS = st.integers(0, 6).map(float)  # few values, so that ties are common
NETWORKS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


def apart(networks):
    return [cost for cost, _ in networks], [score for _, score in networks]


def dominates(one, other):
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(NETWORKS)
def test_the_front_is_what_nothing_dominates(networks):
    front = [networks[i] for i in pareto_front(*apart(networks))]
    expected = {one for one in networks if not any(dominates(other, one) for other in networks)}
    assert sorted(front) == front
    assert len(front) == len(set(front))
    assert set(front) == expected


@given(NETWORKS, st.tuples(NUMBERS, NUMBERS))
def test_hypervolume_is_the_number_of_unit_cells_that_are_dominated(networks, reference):
    """With whole numbers the area is a count of unit squares."""
    cells = itertools.product(range(7), range(7))
    dominated = sum(
        any(cost <= x and score >= y + 1 for cost, score in networks)
        for x, y in cells
        if x + 1 <= reference[0] and y >= reference[1]
    )
    assert hypervolume(*apart(networks), reference) == dominated


def test_hypervolume_is_what_random_points_tell():
    draw = random.Random(0)
    networks = [(draw.random(), draw.random()) for _ in range(8)]
    throws = 100_000
    hits = 0
    for _ in range(throws):
        x, y = draw.uniform(0, 1.2), draw.uniform(-0.1, 1)
        hits += any(cost <= x and score >= y for cost, score in networks)
    area = 1.2 * 1.1
    assert hypervolume(*apart(networks), (1.2, -0.1)) == pytest.approx(area * hits / throws, abs=0.01)


@given(NETWORKS, st.tuples(NUMBERS, NUMBERS), st.randoms())
def test_order_and_dominated_networks_change_nothing(networks, reference, draw):
    value = hypervolume(*apart(networks), reference)
    front = [networks[i] for i in pareto_front(*apart(networks))]
    shuffled = draw.sample(networks, len(networks))
    assert hypervolume(*apart(front), reference) == hypervolume(*apart(shuffled), reference) == value


@given(NETWORKS, st.tuples(NUMBERS, NUMBERS))
def test_one_more_network_never_makes_it_smaller(networks, another):
    reference = (7.0, -1.0)
    assert hypervolume(*apart([*networks, another]), reference) >= hypervolume(*apart(networks), reference)


def test_the_sum_by_hand():
    assert hypervolume([1, 2], [0.5, 0.9], (4, 0.1)) == pytest.approx(1 * 0.4 + 2 * 0.8)
    assert hypervolume([], [], (1, 0)) == 0
    assert hypervolume([1, 5], [0.1, 1], (4, 0.1)) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match=f"a score is {value}; leave out networks that failed"):
        pareto_front([1.0], [value])
    with pytest.raises(ValueError, match=f"a cost is {value}"):
        hypervolume([1.0], [1.0], (value, 0))
    with pytest.raises(ValueError, match="2 costs but 1 scores"):
        pareto_front([1, 2], [1])

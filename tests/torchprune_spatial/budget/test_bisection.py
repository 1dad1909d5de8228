"""The fewest steps that reach a target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchprune_spatial.budget.bisection import fewest_steps


@given(st.lists(st.floats(1e-3, 0.5), min_size=1, max_size=200), st.floats(0.01, 0.99), st.sampled_from([1e-9, 0.02]))
def test_as_by_trying_all(falls, share, tolerance):
    """Costs that fall by any factor at each step, and a target between the first and the last."""
    costs = [1.0]
    for fall in falls:
        costs.append(costs[-1] * (1 - fall))
    target = (1 / costs[-1]) ** share
    found = fewest_steps(len(falls), lambda steps: 1 / costs[steps] / target - 1, tolerance)
    first = next(steps for steps, cost in enumerate(costs) if 1 / cost >= target)
    excess = 1 / costs[found] / target - 1
    if tolerance < 1e-6:
        assert found == first
    else:  # near enough, or the fewest
        assert found == first or -tolerance <= excess <= max(tolerance, 1 / costs[first] / target - 1)


def test_all_the_steps_where_even_they_do_not_reach_it():
    assert fewest_steps(5, lambda steps: -0.5, 0.02) == 5


@pytest.mark.parametrize(("tolerance", "steps"), [(0.02, 3), (0.2, 2)])
def test_one_step_less_where_that_is_within_the_tolerance(tolerance, steps):
    excess = [-0.9, -0.5, -0.1, 0.3, 0.9]
    assert fewest_steps(4, excess.__getitem__, tolerance) == steps

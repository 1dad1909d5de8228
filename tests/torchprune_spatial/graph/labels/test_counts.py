"""Counts compute like integers, and remember the polynomial that they are."""

import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchprune_spatial.graph.labels.counts import Count, Quotient, plain
from torchprune_spatial.graph.labels.notes import Attribute, Numbers

OPERATIONS = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
VARIABLES = [Attribute("", name) for name in "abc"]


def counts(values):
    numbers = Numbers(values=dict(zip(VARIABLES, values, strict=True)))
    made = [Count(v, {(x,): Fraction(1)}, numbers) for v, x in zip(values, VARIABLES, strict=True)]
    return numbers, made


def evaluated(terms, values):
    """A polynomial at other values of its variables."""
    known, total = dict(zip(VARIABLES, values, strict=True)), Fraction(0)
    for product, factor in terms.items():
        for variable in product:
            factor = factor * known[variable]
        total += factor
    return total


programs = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.booleans()), min_size=1, max_size=5)


def run(program, values):
    """A number that the steps of a program compute, each with one of the numbers or an integer."""
    found = values[0]
    for operation, other, swapped in program:
        operand = values[other] if other < 3 else other
        one, two = (operand, found) if swapped else (found, operand)
        if plain(two) == 0 and operation in (operator.floordiv, operator.mod):
            continue
        found = operation(one, two)
    return found


@given(program=programs, values=st.tuples(*[st.integers(1, 12)] * 3), others=st.tuples(*[st.integers(1, 12)] * 3))
def test_they_compute_like_integers_and_like_polynomials(program, values, others):
    numbers, made = counts(values)
    found = run(program, made)
    assert plain(found) == run(program, values)
    if isinstance(found, Count):
        assert evaluated(found.terms, values) == plain(found)
        held = all(evaluated(terms, others) == 0 for terms in numbers.equal)
        fixed = all(a == b for x, a, b in zip(VARIABLES, values, others, strict=True) if x in numbers.fixed)
        kept = all(c.operation(evaluated(c.terms, others), c.operand) == c.found for c in numbers.conditions)
        multiples = len(numbers.values) > 3  # variables of their own
        if held and fixed and kept and not multiples and not numbers.as_values:
            assert evaluated(found.terms, others) == run(program, others)


def test_what_the_code_asks_must_stay_so():
    numbers, (a, b, _) = counts((8, 8, 2))
    assert a == b
    assert not numbers.conditions[0].operation(3, 0)  # a - b, against zero
    assert [evaluated(terms, (5, 5, 1)) for terms in numbers.equal] == [0]
    assert a > 4
    assert numbers.conditions[-1].operand == 4
    assert a % 4 == 0
    assert a // 3 == 2
    assert [condition.found for condition in numbers.conditions][-3:] == [True, 0, 2]


def test_uses_as_values_are_noted():
    numbers, (a, _, _) = counts((9, 1, 1))
    assert a**-0.5 == pytest.approx(1 / 3)
    assert float(a) == 9
    assert [used.value for used in numbers.as_values] == [9, 9]
    assert all("test_counts.py" in used.line for used in numbers.as_values)


def test_a_quotient_that_is_only_compared_is_no_value():
    numbers, (a, _, _) = counts((9, 1, 1))
    share = a / 4
    assert isinstance(share, Quotient)
    assert share > 2
    assert numbers.conditions[-1].operation(Fraction(9, 4), 2)
    assert not numbers.as_values
    assert share * 2 == 4.5
    assert numbers.as_values[0].value == 2.25


def test_after_the_forward_pass_they_are_integers():
    numbers, (a, b, _) = counts((6, 3, 1))
    numbers.following = False
    assert type(a * b) is int
    assert a // b == 2
    assert not numbers.equal
    assert not numbers.conditions

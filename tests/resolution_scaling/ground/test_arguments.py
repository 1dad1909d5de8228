import numpy as np
import pytest

from resolution_scaling.ground.arguments import positive_number, real_number, whole_number


@pytest.mark.parametrize("value", [3, np.int64(3)])
def test_whole_numbers_are_returned_as_int(value):
    number = whole_number(value, "size")
    assert number == 3
    assert type(number) is int


def test_whole_floats_are_accepted_where_asked_for():
    number = whole_number(160.0, "size", whole_floats=True)
    assert number == 160
    assert type(number) is int


@pytest.mark.parametrize(
    ("value", "options", "error", "message"),
    [
        (True, {}, TypeError, "size is True; expected a whole number above 0"),
        (3.0, {}, TypeError, "size is 3.0; expected a whole number above 0"),
        ("3", {}, TypeError, "size is '3'; expected a whole number above 0"),
        (None, {}, TypeError, "size is None; expected a whole number above 0"),
        (0, {}, ValueError, "size is 0; expected a whole number above 0"),
        (0, {"unit": "px"}, ValueError, "size is 0; expected a whole number of px above 0"),
        (-1, {"least": 0}, ValueError, "size is -1; expected a whole number of at least 0"),
        (9, {"least": 2, "most": 8}, ValueError, "size is 9; expected a whole number from 2 to 8"),
        (1.5, {"whole_floats": True}, ValueError, "size is 1.5; expected a whole number above 0"),
        (float("nan"), {"whole_floats": True}, ValueError, "size is nan; expected a whole number above 0"),
        (0, {"example": "size=3"}, ValueError, "size is 0; expected a whole number above 0, such as size=3"),
    ],
)
def test_other_values_are_refused_by_name(value, options, error, message):
    with pytest.raises(error) as caught:
        whole_number(value, "size", **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [2, 0.5])
def test_numbers_are_returned_as_they_are(value):
    number = positive_number(value, "lr")
    assert number == value
    assert type(number) is type(value)


def test_numbers_of_numpy_become_floats():
    assert type(positive_number(np.float32(0.5), "lr")) is float


@pytest.mark.parametrize(
    ("value", "limits", "error", "message"),
    [
        (True, {"above": 0}, TypeError, "lr is True; expected a number above 0"),
        ("1", {"above": 0}, TypeError, "lr is '1'; expected a number above 0"),
        (0, {"above": 0}, ValueError, "lr is 0; expected a number above 0"),
        (float("nan"), {"above": 0}, ValueError, "lr is nan; expected a number above 0"),
        (float("inf"), {}, ValueError, "lr is inf; expected a number"),
        (1, {"above": 1, "example": "lr=4"}, ValueError, "lr is 1; expected a number above 1, such as lr=4"),
        (1.5, {"least": 0, "most": 1}, ValueError, "lr is 1.5; expected a number from 0 to 1"),
        (1.5, {"above": 0, "most": 1}, ValueError, "lr is 1.5; expected a number above 0 and up to 1"),
        (-1, {"least": 0}, ValueError, "lr is -1; expected a number of at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(value, limits, error, message):
    with pytest.raises(error) as caught:
        real_number(value, "lr", **limits)
    assert str(caught.value) == message

import math

import pytest
from scipy import stats

from recipes.experiments.claims import Claim, Interval, claims_table
from recipes.experiments.run_facts import bullets, run_facts
from recipes.experiments.training import Hardware


def test_the_interval_is_students():
    """Mean 2, standard deviation 1, so the standard error of three is 1 / sqrt(3); t of 2 degrees of freedom 4.303."""
    interval = Interval.of([1, 2, 3])
    assert stats.t.ppf(0.975, 2) == pytest.approx(4.3027, abs=1e-4)
    assert interval.mean == 2
    assert interval.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-4)
    assert interval.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)
    assert f"{interval:.2f}" == "2.00 (-0.48 to 4.48)"


def test_ratios_are_averaged_geometrically():
    """Logarithms to base 2 are 0, 1, 2: the mean is 2 ** 1, the interval 2 ** (1 -+ 4.3027 / sqrt(3))."""
    interval = Interval.of_ratios([1, 2, 4])
    assert interval.mean == pytest.approx(2)
    assert interval.low == pytest.approx(2 ** (1 - 4.3027 / math.sqrt(3)), rel=1e-4)
    assert interval.high == pytest.approx(2 ** (1 + 4.3027 / math.sqrt(3)), rel=1e-4)


@pytest.mark.parametrize("interval", [Interval.of([0.7]), Interval.of_ratios([0.7])])
def test_one_repetition_decides_nothing(interval):
    assert Claim("", "", "", interval, above=0.1).verdict == "not decided"
    assert Claim("", "", "", interval, below=0.1).verdict == "not decided"
    assert f"{interval}" == "0.7 (one repetition)"


@pytest.mark.parametrize(
    ("low", "high", "bounds", "verdict"),
    [
        (1.1, 1.3, {"above": 1}, "holds"),
        (0.9, 1.3, {"above": 1}, "not decided"),
        (0.7, 0.9, {"above": 1}, "does not hold"),
        (1.0, 1.0, {"above": 1}, "does not hold"),
        (0.7, 0.9, {"below": 1}, "holds"),
        (1.0, 1.0, {"below": 1}, "does not hold"),
        (0.2, 0.4, {"below": 0.5, "above": 0.1}, "holds"),
        (0.6, 0.7, {"below": 0.5, "above": 0.1}, "does not hold"),
        (0.4, 0.6, {"below": 0.5, "above": 0.1}, "not decided"),
    ],
)
def test_the_whole_interval_decides(low, high, bounds, verdict):
    assert Claim("", "", "", Interval((low + high) / 2, low, high), **bounds).verdict == verdict


def test_the_table_gives_reasons_once_and_only_where_a_claim_fails():
    good, bad = Interval(2, 1.5, 2.5), Interval(0.5, 0.25, 0.75)
    claims = [
        Claim("first", "above 1", "ratio", good, above=1, reason="unused"),
        Claim("second", "above 1", "ratio", bad, above=1, difference="-0.5", reason="small images"),
        Claim("third", "above 1", "ratio", bad, above=1, reason="small images"),
    ]
    lines = claims_table(claims, ".2f").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0] == ["claim", "paper", "ours (95 % interval)", "difference", "verdict"]
    assert cells[2] == ["first", "above 1", "ratio: 2.00 (1.50 to 2.50)", "", "**holds**"]
    assert cells[3] == ["second", "above 1", "ratio: 0.50 (0.25 to 0.75)", "-0.5", "**does not hold**"]
    assert lines[5:] == ["", "- *second*; *third*: small images"]


def test_the_facts_of_a_run():
    facts = run_facts("python -m x", Hardware("cpu"), 90, ["numpy", "no-such-package"])
    text = bullets(facts)
    for part in (
        "- command: `python -m x`",
        "float32",
        "1.5 minutes",
        "torch ",
        "no-such-package (not installed as a package)",
    ):
        assert part in text

"""What a paper claims, judged by paired measurements with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of independent repetitions, and its 95 % interval by Student's t; unbounded for a single repetition."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The interval of values, one for each repetition."""
        values = np.asarray(values, dtype=float)
        mean = float(values.mean())
        if len(values) < 2:
            return cls(mean, -math.inf, math.inf)
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half)

    @classmethod
    def of_ratios(cls, ratios: Sequence[float]) -> Interval:
        """The geometric mean of positive ratios, with the interval of their logarithms."""
        logarithms = cls.of(np.log(np.asarray(ratios, dtype=float)))
        return cls(*(math.exp(value) for value in (logarithms.mean, logarithms.low, logarithms.high)))

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        if math.isinf(self.high):
            return f"{self.mean:{spec}} (one repetition)"
        return f"{self.mean:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and what we measured about it.

    Attributes:
        text: the claim.
        paper: the number that the paper prints.
        measure: what we measured, in words, with its unit.
        ours: our value with its interval.
        below, above: bounds between which ``ours`` lies if the claim is true.
        difference: our value less the paper's, in words; empty if the paper gives no number.
        reason: why the claim does not hold, if that is known.
    """

    text: str
    paper: str
    measure: str
    ours: Interval
    below: float = math.inf
    above: float = -math.inf
    difference: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``"holds"`` or ``"does not hold"`` if the whole interval says so, else ``"not decided"``."""
        if self.above < self.ours.low and self.ours.high < self.below:
            return "holds"
        if self.ours.low >= self.below or self.ours.high <= self.above:
            return "does not hold"
        return "not decided"


def claims_table(claims: Sequence[Claim], spec: str = ".3g") -> str:
    """The claims as a Markdown table, and below it the reasons why claims do not hold."""
    table = pd.DataFrame(
        {
            "claim": [claim.text for claim in claims],
            "paper": [claim.paper for claim in claims],
            "ours (95 % interval)": [f"{claim.measure}: {format(claim.ours, spec)}" for claim in claims],
            "difference": [claim.difference for claim in claims],
            "verdict": [f"**{claim.verdict}**" for claim in claims],
        }
    )
    reasons: dict[str, list[str]] = {}
    for claim in claims:
        if claim.reason and claim.verdict != "holds":
            reasons.setdefault(claim.reason, []).append(f"*{claim.text}*")
    items = [f"- {'; '.join(texts)}: {reason}" for reason, texts in reasons.items()]
    return "\n".join([table.to_markdown(index=False, disable_numparse=True), "", *items]).rstrip() + "\n"

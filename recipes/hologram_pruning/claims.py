"""The hologram results at equal compression, paired over base networks, and the paper's claims."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..experiments.claims import Claim, Interval
from .pruning import UNPRUNED

PAPERS_RIVALS = ["random", "weight_sum", "apoz", "mean_activation", "thinet"]
LEVELS = (4, 10, 20)
"""Compressions that the paper's sentences name."""
WHOLE_RANGE = (1.5, 2, 3, 4, 6, 8, 10, 15, 20, 30, 50)
"""Compressions that stand for the paper's whole range, as far as all criteria reach it."""


def at_compression(results: pd.DataFrame, levels: Iterable[float]) -> pd.DataFrame:
    """What each criterion reaches at given compressions, interpolated between the fractions that were tried.

    Interpolation is linear over the logarithm of the compression, in the logarithms of MSE and speed-up, and in Δacc.
    Each line begins at the unpruned network.

    Args:
        results: rows of ``results.csv``.
        levels: compressions (parameters, unpruned / pruned).

    Returns:
        Columns ``seed, mixed, literal, criterion, level, mse, delta_accuracy, speedup``. There is no row where a level
        lies beyond the smallest fraction.
    """
    keys, rows = ["seed", "mixed", "literal", "criterion"], []
    unpruned = results[results["criterion"] == UNPRUNED.criterion]
    for key, line in results.drop(unpruned.index).groupby(keys):
        start = unpruned[unpruned["seed"] == key[0]]
        line = pd.concat([start, line]).sort_values("compression")
        x = np.log(line["compression"])
        for level in levels:
            if level <= line["compression"].max():
                mse, speedup = (np.exp(np.interp(np.log(level), x, np.log(line[name]))) for name in ("mse", "speedup"))
                loss = np.interp(np.log(level), x, line["delta_accuracy"])
                rows.append((*key, level, mse, loss, speedup))
    return pd.DataFrame(rows, columns=[*keys, "level", "mse", "delta_accuracy", "speedup"])


def judged_claims(results: pd.DataFrame, mixed: bool, literal: bool, reason: str) -> list[Claim]:
    """What section 5 of the paper claims about the spatial mask beside the paper's rivals.

    Args:
        results: rows of all base networks.
        mixed: whether connectivity is mixed.
        literal: whether the spatial mask keeps Algorithm 1's union of two top sets, or as many filters as the rivals.
        reason: why the first two claims may fail.
    """
    is_unpruned = results["criterion"] == UNPRUNED.criterion
    found = at_compression(results[is_unpruned | (results["mixed"] == mixed)], sorted({*LEVELS, *WHOLE_RANGE}))
    table = found.pivot_table(["mse", "delta_accuracy"], ["seed", "level"], ["criterion", "literal"])
    mse, ours = table["mse"], ("spatial_mask", literal)
    rivals = mse[[(name, False) for name in PAPERS_RIVALS if (name, False) in mse]]
    to_best = (mse[ours] / rivals.min(axis=1)).unstack("level")
    whole = to_best[[level for level in WHOLE_RANGE if level in to_best]].dropna(axis=1)
    base_mse = results[is_unpruned].set_index("seed")["mse"]
    to_base = mse.div(base_mse, axis=0, level="seed")[mse.index.get_level_values("level") <= 4].groupby("seed").max()
    others = to_base[[ours, *rivals.columns.drop(("random", False), errors="ignore")]].max(axis=1)
    claims = [
        Claim(
            "lowest MSE over the whole range",
            "everywhere",
            f"largest MSE in times of the best rival's, x{whole.columns.min():g} to x{whole.columns.max():g}",
            Interval.of_ratios(whole.max(axis=1)),
            below=1,
            reason=reason,
        ),
        Claim(
            "all but random improve on the base network up to x4",
            "below 1",
            "largest MSE up to x4 in times of the base network's, all criteria but random",
            Interval.of_ratios(others),
            below=1,
        ),
    ]
    if 20 in to_best and to_best[20].notna().all():
        points = 100 * table["delta_accuracy"][ours].unstack("level")[20]
        claims[1:1] = [
            Claim(
                "less than half of the others' MSE at x20",
                "below 0.5",
                "MSE in times of the best rival's",
                Interval.of_ratios(to_best[20]),
                below=0.5,
                difference=f"{Interval.of_ratios(to_best[20]).mean - 0.5:+.2f}",
                reason=reason,
            ),
            Claim(
                "Δacc 0.4 % at x20",
                "0.4",
                "points",
                Interval.of(points),
                below=0.45,
                difference=f"{points.mean() - 0.4:+.1f}",
            ),
        ]
    if ("random", False) in to_base:
        claims.append(
            Claim(
                "random does not improve on it up to x4",
                "above 1",
                "largest MSE up to x4 in times of the base network's",
                Interval.of_ratios(to_base["random", False]),
                above=1,
            )
        )
    return claims

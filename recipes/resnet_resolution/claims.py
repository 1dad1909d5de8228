"""The evaluation size of each network, and what the results say about the claims of section 4.1 of the paper."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..experiments.claims import Claim, Interval

NETWORK = ["method", "setting"]
"""The columns that name a network."""
DEFAULT_RATIO = 224 / 176
"""The paper's default K_eval over its default K_train (section 4.1)."""


def choose_sizes(results: pd.DataFrame) -> pd.DataFrame:
    """The row with the best validation accuracy of each network and seed; among equals, the smallest ``K_eval``."""
    best_first = results.sort_values(["validation_accuracy", "K_eval"], ascending=[False, True])
    return best_first.drop_duplicates(["seed", *NETWORK]).sort_index()


def accuracy_at(rows: pd.DataFrame, flops: float) -> float:
    """Test accuracy that one of several networks reaches with a number of FLOPs.

    Only networks that are better on validation than every cheaper network count. Between them, accuracy is interpolated
    linearly over the logarithm of FLOPs; above them, it stays the same.

    Args:
        rows: of `choose_sizes`, of one seed.
        flops: FLOPs of an image.

    Returns:
        An accuracy in 0..1; NaN if all networks cost more.
    """
    rows = rows.sort_values(["flops", "validation_accuracy"], ascending=[True, False])
    better = rows["validation_accuracy"] > rows["validation_accuracy"].cummax().shift(fill_value=-1)
    front = rows[better]
    return float(np.interp(math.log(flops), np.log(front["flops"]), front["accuracy"], left=math.nan))


def judged_claims(chosen: pd.DataFrame) -> list[Claim]:
    """The claims of section 4.1 of the paper, paired over seeds. Pooled values are averaged within a seed first."""
    return [*_size_claims(chosen), *_fcr_claims(chosen), *_width_claims(chosen)]


def _size_claims(chosen: pd.DataFrame) -> list[Claim]:
    crops = chosen[chosen["method"] == "RC"]
    crops = crops.assign(ratio=crops["K_eval"] / crops["K_train"])
    ratios = crops.pivot(index="seed", columns="K_train", values="ratio")
    pooled = Interval.of_ratios(np.exp(np.log(ratios).mean(axis=1)))
    text, paper, measure = "best K_eval above K_train", f"above 1 (default {DEFAULT_RATIO:.2f})", "K_eval / K_train"
    reason = (
        "above the size that the images have there is no more detail, and accuracy is so flat that chance chooses; at "
        "8 px the last maps are 2 x 2, and strides meet larger images otherwise where they do not divide them."
    )
    return [
        Claim(
            f"{text}, all sizes",
            paper,
            measure,
            pooled,
            above=1,
            difference=f"{pooled.mean - DEFAULT_RATIO:+.2f} from the default",
            reason=reason,
        ),
        *(
            Claim(f"{text} {size}", paper, measure, Interval.of_ratios(ratios[size]), above=1, reason=reason)
            for size in ratios
        ),
    ]


def _fcr_claims(chosen: pd.DataFrame) -> list[Claim]:
    points = 100 * chosen.pivot(index="seed", columns=NETWORK, values="accuracy")
    sizes = sorted(points["FCR"], key=int)
    differences = points["FCR"][sizes] - points["RC"][sizes]
    text, paper, measure = "FCR beats RC at", "above 0 (Figure 3, no number)", "points of accuracy, FCR - RC"
    reason = (
        "with 28 px and a small network, the detail that FCR reads at full size passes one 3 x 3 convolution of few "
        "filters; in ResNet-50 it passes 64 filters of 7 x 7."
    )
    pooled = Interval.of(differences.mean(axis=1))
    return [
        Claim(f"{text} equal training cost, all sizes", paper, measure, pooled, above=0, reason=reason),
        *(
            Claim(f"{text} {size}", paper, measure, Interval.of(differences[size]), above=0, reason=reason)
            for size in sizes
        ),
    ]


def _width_claims(chosen: pd.DataFrame) -> list[Claim]:
    claims = []
    for width, rivals in chosen[chosen["method"] == "width"].groupby("setting", sort=False):
        for method in ("RC", "FCR"):
            rows = chosen[chosen["method"] == method]
            reached = [accuracy_at(rows[rows["seed"] == rival.seed], rival.flops) for rival in rivals.itertuples()]
            differences = 100 * (reached - rivals["accuracy"]).dropna()
            if len(differences):
                claims.append(
                    Claim(
                        f"{method} beats width {width} at equal FLOPs",
                        "above 0 (Figure 4, no number)",
                        f"points of accuracy, {method} - width {width}",
                        Interval.of(differences),
                        above=0,
                        reason="with 28 px, a lower resolution soon loses what tells classes apart, while few filters "
                        "are enough for ten classes.",
                    )
                )
    return claims

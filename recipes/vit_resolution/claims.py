"""What the results say about the claims of section 4.2 of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pandas as pd

from ..experiments.claims import Claim, Interval
from ..vit_table1.table import TABLE_1, VIT_S
from .experiment import AS_PRINTED, FULL_GRID, HIGH_GRID, LOW_GRID, REDUCED_GRID, grid_network

NETWORK = ["method", "setting"]
"""The columns that name a network."""
EQUAL = 0.15
"""FLOPs are called equal if they differ by at most this share: the paper's depth 4 has 9 % more than its grid."""
ABOUT_THE_SAME = 1.25
"""Factor between image sizes that are about the same. Grids of equal patches differ by 1.375."""
UNDECIDED = "the interval reaches across the bound: more seeds, or longer training, would tell."


def judged_claims(results: pd.DataFrame, patch_px: int) -> list[Claim]:
    """The claims of section 4.2 of the paper, paired over seeds, without those whose networks were not trained.

    Args:
        results: rows of ``results.csv``.
        patch_px: side of a patch of the reference, px.
    """
    claims = [
        *_reduction_claim(results, patch_px),
        *_rival_claims(results, patch_px),
        *_mlp_claims(results, patch_px),
        *_image_size_claim(results),
    ]
    return [
        dataclasses.replace(claim, reason=UNDECIDED) if claim.verdict == "not decided" else claim for claim in claims
    ]


def points_of(results: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """A share in percent, by seed (rows) and network (columns)."""
    return 100 * results.pivot(index="seed", columns=NETWORK, values=value)


def flops_of(results: pd.DataFrame) -> pd.Series:
    """FLOPs of one image, by network."""
    return results.groupby(NETWORK, sort=False)["flops"].first()


def _reduction_claim(results: pd.DataFrame, patch_px: int) -> Iterator[Claim]:
    points, flops = points_of(results), flops_of(results)
    reduced, full = grid_network(REDUCED_GRID, patch_px), grid_network(FULL_GRID, patch_px)
    if reduced in points and full in points:
        loss = Interval.of(points[reduced] - points[full])
        saved = flops[reduced] / flops[full] - 1
        yield Claim(
            "a lower grid loses at most 1 point for 28 % fewer FLOPs",
            "-1 point",
            f"points of accuracy, grid {REDUCED_GRID} - grid {FULL_GRID} ({saved:+.0%} FLOPs)",
            loss,
            above=-1,
            difference=f"{loss.mean + 1:+.2f} points",
            reason="likely the small images: fewer tokens of equal patches show an image of 24 px, not 28; of "
            "ImageNet's, 192 px show nearly all that 224 do.",
        )


def _rival_claims(results: pd.DataFrame, patch_px: int) -> Iterator[Claim]:
    """The grid less each rival; at the lower grid also less the best rival of equal FLOPs, chosen by validation."""
    points, flops = points_of(results), flops_of(results)
    validation = points_of(results, "validation_accuracy").mean()
    for grid in (LOW_GRID, HIGH_GRID):
        own = grid_network(grid, patch_px)
        rivals = [network for network in flops.index if network[0] != "grid" and network[1] == str(grid)]
        equal = [rival for rival in rivals if abs(flops[rival] / flops[own] - 1) <= EQUAL]
        compared = [(rival[0], rival) for rival in rivals if grid == LOW_GRID or _scaling(rival) != "mlp"]
        if grid == LOW_GRID and equal:
            best = max(equal, key=validation.get)
            compared.insert(0, (f"the best of equal FLOPs ({best[0]})", best))
        for name, rival in compared:
            ours, paper = Interval.of(points[own] - points[rival]), _paper(grid) - _paper(grid, _scaling(rival))
            yield Claim(
                f"grid {grid} beats {name}",
                f"{paper:+.2f}",
                f"points of accuracy, grid - {rival[0]} (x{flops[rival] / flops[own]:.2f} FLOPs)",
                ours,
                above=0,
                difference=f"{ours.mean - paper:+.2f} points",
                reason="likely the small images and the short training: a lower grid loses details of 28 px, while ten "
                "classes need little of the network.",
            )


def _mlp_claims(results: pd.DataFrame, patch_px: int) -> Iterator[Claim]:
    points, flops = points_of(results), flops_of(results)
    own = grid_network(HIGH_GRID, patch_px)
    for rival in (("mlp", str(HIGH_GRID)), (AS_PRINTED, str(HIGH_GRID))):
        if rival in points and own in points:
            ours, paper = Interval.of(points[rival] - points[own]), _paper(HIGH_GRID, "mlp") - _paper(HIGH_GRID)
            yield Claim(
                f"the exception: {rival[0]} beats grid {HIGH_GRID}",
                f"{paper:+.2f}",
                f"points of accuracy, {rival[0]} - grid (x{flops[rival] / flops[own]:.2f} FLOPs)",
                ours,
                above=0,
                difference=f"{ours.mean - paper:+.2f} points",
                reason="the paper's own MLP has x1.14 the FLOPs of its grid, counted rightly; beyond that likely the "
                "short training, in which fewer tokens are learned from as fast.",
            )


def _image_size_claim(results: pd.DataFrame) -> Iterator[Claim]:
    grids = results[results["method"] == "grid"]
    grids = grids.assign(grid=grids["setting"].str.split().str[0].astype(int))
    best_first = grids.sort_values(["validation_accuracy", "K_eval"], ascending=[False, True])
    best = best_first.drop_duplicates(["seed", "grid"]).pivot(index="seed", columns="grid", values="K_eval")
    if {LOW_GRID, HIGH_GRID} <= {*best} and grids["setting"].nunique() > grids["grid"].nunique():
        ours = Interval.of_ratios(best[HIGH_GRID] / best[LOW_GRID])
        yield Claim(
            "the best image size is about the same whatever the grid",
            f"{132 / 128:.2f} (132 and 128 px of 224)",
            f"best image size at grid {HIGH_GRID} / at grid {LOW_GRID}, by validation",
            ours,
            below=ABOUT_THE_SAME,
            above=1 / ABOUT_THE_SAME,
            difference=f"x{ours.mean / (132 / 128):.2f}",
            reason="the choice is between few sizes, and those above the 28 px that the images have show nothing more.",
        )


def _scaling(network: tuple[str, str]) -> str:
    """The method of a rival in Table 1."""
    return "mlp" if network[0] == AS_PRINTED else network[0]


def _paper(grid: int, scaling: str = "grid") -> float:
    """ImageNet accuracy in Table 1, percent. A grid stands for its row with patches of 16 px."""
    rows = [row for row in TABLE_1 if (row.grid, row.scaling) == (grid, scaling)]
    return next(row.top1 for row in rows if scaling != "grid" or row.sizes["patch_size"] == VIT_S["patch_size"])

"""Figures, claims and report of the vision transformer recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.models import VisionTransformer

import resolution_scaling as rs
from resolution_scaling.ground.figures import COLORS, MARKERS, SMALL, new_figure
from resolution_scaling.rivals.model_scaling import ScaledModel

from ..experiments.claims import Claim, Interval, claims_table
from ..experiments.classification import Classification
from ..experiments.files import replacing, save_figures
from ..experiments.run_facts import bullets, run_facts
from ..resolution_costs.costs import vit_costs
from ..vit_table1.table import TABLE_1, VIT_S, Row, compare

FULL_GRID, REDUCED_GRID = 14, 12
"""Tokens a side of ViT-S, and those that save the paper's 28 % of its FLOPs."""
LOW_GRID, HIGH_GRID = 8, 11
"""Of the halves of Table 1."""
AS_PRINTED = "mlp as printed"
"""MLP scaling to equal FLOPs by the paper's count, which has the MLPs twice, so to more FLOPs than the grid's."""
EQUAL = 0.15
"""Share by which FLOPs may differ and still be called equal: the paper's own depth 4 has 9 % more than its grid."""
ABOUT_THE_SAME = 1.25
"""Factor between image sizes that are still about the same; at equal patches, those of the grids differ by 1.375."""
UNDECIDED = "the interval reaches across the bound: more seeds, or longer training, would tell."
NETWORK = ["method", "setting"]


def grid_network(grid: int, patch_px: int) -> tuple[str, str]:
    """Method and setting of a grid, as in ``results.csv``."""
    return "grid", f"{grid} patch {patch_px}"


def write_report(
    experiment: Classification,
    results: pd.DataFrame,
    network: Mapping[str, int],
    rivals: Mapping[tuple[str, int], ScaledModel],
    missing: Mapping[tuple[str, int], str],
    command: str,
) -> tuple[str, list[Path]]:
    """Write ``report.md`` and its figures.

    Args:
        experiment: that was run.
        results: its rows to report on.
        network: sizes of torchvision's `VisionTransformer` on the full grid.
        rivals: the smaller networks, by method and grid.
        missing: why others are not there.
        command: that was given.

    Returns:
        The table of the networks, and the files that a reader opens.
    """
    output, patch_px = experiment.output, network["patch_size"]
    figures = {
        "figure_2.png": rs.compare(vit_costs(1)).plot(),
        "accuracy.png": accuracy_figure(results, patch_px),
        "patches.png": patches_figure(results),
    }
    save_figures(output, figures, dpi=150)
    table = networks_table(results, rivals, patch_px)
    left_out = bullets({f"no row for {method} at grid {grid}": text for (method, grid), text in missing.items()})
    text = _markdown(experiment, results, network, f"{table}\n\n{left_out}".rstrip(), command)
    with replacing(output / "report.md") as partial:
        partial.write_text(text)
    return table, [output / name for name in ("results.csv", "report.md", *figures)]


def judged_claims(results: pd.DataFrame, patch_px: int) -> list[Claim]:
    """What section 4.2 of the paper claims, paired over seeds; those whose networks were not trained are left out.

    Args:
        results: as in ``results.csv``.
        patch_px: of the reference.
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


def _points(results: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """Percent by seed (rows) and network (columns)."""
    return 100 * results.pivot(index="seed", columns=NETWORK, values=value)


def _flops(results: pd.DataFrame) -> pd.Series:
    """Of one image, by network."""
    return results.groupby(NETWORK, sort=False)["flops"].first()


def _reduction_claim(results: pd.DataFrame, patch_px: int) -> Iterator[Claim]:
    points, flops = _points(results), _flops(results)
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
    """The grid less each rival; first, at the lower grid, less the best of equal FLOPs, chosen by validation."""
    points, flops = _points(results), _flops(results)
    validation = _points(results, "validation_accuracy").mean()
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
    points, flops = _points(results), _flops(results)
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
    """The method of a rival, as Table 1 has it."""
    return "mlp" if network[0] == AS_PRINTED else network[0]


def _paper(grid: int, scaling: str = "grid") -> float:
    """ImageNet accuracy in Table 1, percent; of a grid, that with patches of 16 px."""
    rows = [row for row in TABLE_1 if (row.grid, row.scaling) == (grid, scaling)]
    return next(row.top1 for row in rows if scaling != "grid" or row.sizes["patch_size"] == VIT_S["patch_size"])


def accuracy_figure(results: pd.DataFrame, patch_px: int) -> Figure:
    """Test accuracy against FLOPs, one line a method: mean and 95 % interval over seeds."""
    scores, flops = intervals(results), _flops(results)
    lines = {f"grid, patches of {patch_px} px": _reference(scores, patch_px)}
    for method in dict.fromkeys(method for method, _ in scores if method != "grid"):
        lines[method] = [name for name in scores if name[0] == method]
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for (label, names), colour, marker in zip(lines.items(), COLORS, MARKERS, strict=False):
        names = sorted(names, key=flops.get)
        _draw(axes, [flops[name] / 1e6 for name in names], [scores[name] for name in names], label, colour, marker)
        for name in names:
            place = (flops[name] / 1e6, scores[name].mean)
            axes.annotate(name[1].split()[0], place, (6, 4), textcoords="offset points", fontsize=SMALL)
    axes.set(xlabel="MFLOPs of an image", ylabel="test accuracy (%)")
    axes.legend(frameon=False)
    return figure


def patches_figure(results: pd.DataFrame) -> Figure:
    """Test accuracy against the size of the image, by grid, one point a patch: mean and 95 % interval over seeds."""
    scores = intervals(results)
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for grid, colour, marker in zip((LOW_GRID, HIGH_GRID), COLORS, MARKERS, strict=False):
        patches = sorted(int(name[1].split()[-1]) for name in scores if name[1].startswith(f"{grid} patch"))
        line = [scores[grid_network(grid, patch)] for patch in patches]
        _draw(axes, [grid * patch for patch in patches], line, f"grid {grid}", colour, marker)
        for patch, score in zip(patches, line, strict=True):
            axes.annotate(
                f"patch {patch}", (grid * patch, score.mean), (6, 4), textcoords="offset points", fontsize=SMALL
            )
    axes.set(xlabel="side of the image (px)", ylabel="test accuracy (%)")
    axes.legend(frameon=False)
    return figure


def intervals(results: pd.DataFrame) -> dict[tuple[str, str], Interval]:
    """Test accuracy over seeds, percent, by network."""
    return {name: Interval.of(100 * scores) for name, scores in results.groupby(NETWORK, sort=False)["accuracy"]}


def _reference(names: Iterable[tuple[str, str]], patch_px: int) -> list[tuple[str, str]]:
    """The grids at the reference patch."""
    return [name for name in names if name[0] == "grid" and name[1].endswith(f" patch {patch_px}")]


def _draw(axes: Axes, x: list[float], scores: list[Interval], label: str, colour: str, marker: str) -> None:
    """A line of means, with bars where there is an interval."""
    half = [score.high - score.mean if math.isfinite(score.high) else 0 for score in scores]
    style = {"color": colour, "marker": marker, "capsize": 3, "label": label}
    axes.errorbar(x, [score.mean for score in scores], half, **style)
    axes.grid(alpha=0.25)


def networks_table(results: pd.DataFrame, rivals: Mapping[tuple[str, int], ScaledModel], patch_px: int) -> str:
    """Every network: sizes, costs, FLOPs beside those of the grid that it is to match, and accuracies."""
    scores, flops = intervals(results), _flops(results)
    validation = _points(results, "validation_accuracy").mean()
    rows = []
    for name, row in results.groupby(NETWORK, sort=False).first().iterrows():
        if name[0] == "grid":
            label, matched = f"grid {name[1]} px", ""
            sizes = f"images of {row['K_train']:.0f} px"
        else:
            label, own = f"{name[0]}, as grid {name[1]}", grid_network(int(name[1]), patch_px)
            matched = f"{flops[name] / flops[own] - 1:+.1%}"
            configuration = rivals[name[0], int(name[1])].configuration
            sizes = ", ".join(f"{part} {size}" for part, size in configuration.items() if part != "heads")
        rows.append(
            {
                "network": label,
                "sizes": sizes,
                "MFLOPs": f"{row['flops'] / 1e6:.2f}",
                "from the grid's": matched,
                "memory, MB": f"{row['memory'] / 1e6:.3f}",
                "parameters": f"{row['parameters']:,.0f}",
                "validation, %": f"{validation[name]:.2f}",
                "accuracy, % (95 % interval)": format(scores[name], ".2f"),
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def table_1(results: pd.DataFrame, patch_px: int, resolution: int) -> str:
    """A half of the paper's Table 1, beside it the right costs of ViT-S, and what we trained that corresponds."""
    scores, flops, rows = intervals(results), _flops(results), []
    for row in TABLE_1:
        if row.resolution == resolution:
            ours = _ours(row, patch_px)
            trained = ours in scores
            rows.append(
                compare(row)
                | {
                    "ours, MFLOPs": f"{flops[ours] / 1e6:.2f}" if trained else "",
                    "ours, % (95 % interval)": format(scores[ours], ".2f") if trained else "not trained",
                }
            )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def _ours(row: Row, patch_px: int) -> tuple[str, str]:
    """Our network in the place of a row of Table 1: as many tokens, and patches in the same proportion."""
    if row.scaling == "grid":
        patch = row.sizes["patch_size"] * patch_px / VIT_S["patch_size"]
        return "grid", f"{row.grid} patch {patch:g}"
    return AS_PRINTED if row.scaling == "mlp" else row.scaling, str(row.grid)


def _vit_s_saving(definition: str) -> float:
    """FLOPs of ViT-S on the reduced grid over those on the full one, minus 1."""
    costs = []
    for grid in (REDUCED_GRID, FULL_GRID):
        size = grid * VIT_S["patch_size"]
        with torch.device("meta"):
            network = VisionTransformer(**VIT_S | {"image_size": size})
        costs.append(rs.profile(network, (1, 3, size, size), definition=definition).flops)
    return costs[0] / costs[1] - 1


def _markdown(
    experiment: Classification, results: pd.DataFrame, network: Mapping[str, int], networks: str, command: str
) -> str:
    data, augmentation = experiment.data, experiment.augmentation
    patch_px = network["patch_size"]
    facts = run_facts(command, experiment.hardware, experiment.seconds, ("torchvision", "accelerate", "numpy"))
    facts |= {
        "seeds": ", ".join(map(str, sorted(results["seed"].unique()))),
        "data": data,
        "network": "torchvision's VisionTransformer, " + ", ".join(f"{part} {size}" for part, size in network.items()),
        "training": experiment.training,
        "augmentation": f"flips of {data.flip:.0%}, {augmentation}",
        "evaluation": "whole images, brought to K = K_eval = K_train px",
    }
    return f"""# Vision transformers on fewer tokens, and smaller ones

{bullets(facts)}

Every network is trained anew, by the same settings, which were tried out on grids 14 and 8. All scores are of
test images, as means over seeds. "Holds" and "does not hold" mean that the whole 95 % interval (Student's t over seeds,
which differ in initial weights and in the order of the images, not in the images) lies on that side.

## Claims

{claims_table(judged_claims(results, patch_px), ".2f")}
Points are paired by seed, FLOPs are two a multiply-accumulate, and those within {EQUAL:.0%} are called equal. On ViT-S,
grid {REDUCED_GRID} has {_vit_s_saving("standard"):+.1%} FLOPs, {_vit_s_saving("gretsi2025"):+.1%} by the paper's count.
*{AS_PRINTED}* has the FLOPs of the grid by the paper's count, which has the MLPs twice: by the right one it has more.

## Networks

{networks}

## Accuracy against FLOPs

![Test accuracy against FLOPs](accuracy.png)

Mean over seeds and its 95 % interval; the number is the grid, or the grid whose FLOPs the network has.

## Patches and image size

![Test accuracy against the size of the image](patches.png)

## Table 1

ViT-S on ImageNet as the paper has it, its costs counted by its convention and rightly, and our networks in the place of
each row: as many tokens, patches in the same proportion to the image. Patches of 1.5 px do not exist.

### "Resolution 9" (grid 8)

{table_1(results, patch_px, 9)}

### Resolution 11

{table_1(results, patch_px, 11)}

## Figure 2

![FLOPs against memory of ViT-S for images of 224 px](figure_2.png)

Exact costs of ViT-S, of which nothing is trained here.
"""

"""Figures and report of the vision transformer recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.models import VisionTransformer

import resolution_scaling as rs
from resolution_scaling.ground.figures import COLORS, MARKERS, SMALL, new_figure
from resolution_scaling.rivals.model_scaling import ScaledModel

from ..experiments.claims import Interval, claims_table
from ..experiments.classification import Classification
from ..experiments.files import save_report
from ..experiments.run_facts import bullets, run_facts
from ..resolution_costs.costs import vit_costs
from ..vit_table1.table import TABLE_1, VIT_S, Row, compare
from .claims import EQUAL, NETWORK, flops_of, judged_claims, points_of
from .experiment import AS_PRINTED, FULL_GRID, HIGH_GRID, LOW_GRID, REDUCED_GRID, grid_network


def write_report(
    experiment: Classification,
    results: pd.DataFrame,
    network: Mapping[str, int],
    rivals: Mapping[tuple[str, int], ScaledModel],
    missing: Mapping[tuple[str, int], str],
    command: str,
) -> list[Path]:
    """Write ``report.md`` and its figures; return their paths.

    Args:
        experiment: the one that was run.
        results: its rows to report on.
        network: arguments of torchvision's `VisionTransformer` on the full grid.
        rivals: the smaller networks, by method and grid.
        missing: why other smaller networks do not exist, by method and grid.
        command: the command that was given.
    """
    patch_px = network["patch_size"]
    figures = {
        "figure_2.png": rs.compare(vit_costs(1)).plot(),
        "accuracy.png": accuracy_figure(results, patch_px),
        "patches.png": patches_figure(results),
    }
    table = networks_table(results, rivals, patch_px)
    left_out = bullets({f"no row for {method} at grid {grid}": text for (method, grid), text in missing.items()})
    text = _markdown(experiment, results, network, f"{table}\n\n{left_out}".rstrip(), command)
    return save_report(experiment.output, text, figures, dpi=150)


def accuracy_figure(results: pd.DataFrame, patch_px: int) -> Figure:
    """Test accuracy against FLOPs, one line for each method: mean and 95 % interval over seeds."""
    scores, flops = intervals(results), flops_of(results)
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
    """Test accuracy against the size of the image, one point for each patch: mean and 95 % interval over seeds."""
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
    """Test accuracy in percent with its interval over seeds, by network."""
    return {name: Interval.of(100 * scores) for name, scores in results.groupby(NETWORK, sort=False)["accuracy"]}


def _reference(names: Iterable[tuple[str, str]], patch_px: int) -> list[tuple[str, str]]:
    """The grids that have patches of the reference."""
    return [name for name in names if name[0] == "grid" and name[1].endswith(f" patch {patch_px}")]


def _draw(axes: Axes, x: list[float], scores: list[Interval], label: str, colour: str, marker: str) -> None:
    """Draw a line of means, with bars where there is an interval."""
    half = [score.high - score.mean if math.isfinite(score.high) else 0 for score in scores]
    style = {"color": colour, "marker": marker, "capsize": 3, "label": label}
    axes.errorbar(x, [score.mean for score in scores], half, **style)
    axes.grid(alpha=0.25)


def networks_table(results: pd.DataFrame, rivals: Mapping[tuple[str, int], ScaledModel], patch_px: int) -> str:
    """Sizes, costs and accuracies of every network, and its FLOPs beside those of the grid that it should match."""
    scores, flops = intervals(results), flops_of(results)
    validation = points_of(results, "validation_accuracy").mean()
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
    """A half of the paper's Table 1, with the right costs of ViT-S and our corresponding networks beside it."""
    scores, flops, rows = intervals(results), flops_of(results), []
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
    """Our network in the place of a row of Table 1: with as many tokens, and patches in the same proportion."""
    if row.scaling == "grid":
        patch = row.sizes["patch_size"] * patch_px / VIT_S["patch_size"]
        return "grid", f"{row.grid} patch {patch:g}"
    return AS_PRINTED if row.scaling == "mlp" else row.scaling, str(row.grid)


def _vit_s_saving(definition: str) -> float:
    """FLOPs of ViT-S on the reduced grid over those on the full grid, minus 1."""
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

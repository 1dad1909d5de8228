"""Figures and report of the hologram pruning recipe."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch_pruning as tp
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from resolution_scaling.ground.figures import MARKERS, TEXT, new_figure
from torchprune_spatial import Calibration, SpatialMaskImportance
from torchprune_spatial.criteria.ranking import union_scores
from torchprune_spatial.report import plot_region_responses, plot_regions
from torchprune_spatial.report.responses import region_responses

from ..experiments.claims import Interval, claims_table
from ..experiments.files import save_report
from ..experiments.run_facts import bullets, run_facts
from .claims import LEVELS, at_compression, judged_claims
from .experiment import HologramPruning
from .pruning import UNPRUNED, pruning_of

# Okabe and Ito's palette for the colour-blind, and a marker each, so that lines differ in black and white print too.
STYLES = {
    "random": ("#999999", "o"),
    "weight_sum": ("#E69F00", "s"),
    "spatial_mask": ("#0072B2", "D"),
    "apoz": ("#009E73", "^"),
    "mean_activation": ("#D55E00", "v"),
    "thinet": ("#CC79A7", "P"),
    "taylor": ("#56B4E9", "X"),
}
OTHER_COLORS = ("#000000", "#F0E442")
"""For criteria without a style."""
COST_TICKS = [1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100]


def write_report(output: Path, experiment: HologramPruning, results: pd.DataFrame, command: str) -> list[Path]:
    """Write ``results.csv``, ``report.md`` and its figures; return their paths.

    Args:
        output: folder of the results.
        experiment: the one on the base network that the examples show.
        results: rows of all base networks.
        command: the command that was given.
    """
    shown = shown_fraction(results)
    figures = {
        "reconstructions.png": reconstructions_figure(experiment, results, shown),
        "masks.png": masks_figure(experiment),
        "filters.png": filters_figure(experiment, shown),
        "performance.png": performance_figure(results[~results["mixed"]]),
    }
    if results["mixed"].any():
        mixed = results["mixed"] | (results["criterion"] == UNPRUNED.criterion)
        figures["performance_mixed.png"] = performance_figure(results[mixed])
    text = _markdown(experiment, results, command)
    return save_report(output, text, figures, results, dpi=130, bbox_inches="tight")


def shown_fraction(results: pd.DataFrame) -> float:
    """The fraction of kept filters that the pictures show: the one nearest to a tenth of the parameters."""
    pruned = results[(results["criterion"] != UNPRUNED.criterion) & ~results["literal"]]
    compression = pruned.groupby("keep_fraction")["compression"].mean()
    return float((compression / 10).apply(math.log).abs().idxmin())


def reconstructions_figure(experiment: HologramPruning, results: pd.DataFrame, keep_fraction: float) -> Figure:
    """Test holograms, their targets, and the reconstructions of the unpruned network and of those at a fraction."""
    is_shown = results["keep_fraction"].isin([1.0, keep_fraction]) & ~results["mixed"]
    rows = results[is_shown & (results["seed"] == experiment.seed)]
    prunings = [pruning_of(row) for row in rows.itertuples()]
    reconstructions = [np.load(experiment.examples_file(pruning)) for pruning in prunings]
    holograms, targets = experiment.test[: len(reconstructions[0])]
    images = [holograms.numpy(), targets.numpy(), *reconstructions]
    names = ["hologram", "target"] + [
        f"{_label(row)}\n"
        + (f"parameters /{row.compression:.1f}\n" if row.criterion != UNPRUNED.criterion else "")
        + f"MSE {1e3 * row.mse:.2f}e-3"
        for row in rows.itertuples()
    ]
    figure = Figure((1.3 * len(holograms) + 1.6, 1.3 * len(images)))
    axes = figure.subplots(len(images), len(holograms))
    for line, name, batch in zip(axes, names, images, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=TEXT)
        for axis, image in zip(line, batch, strict=True):
            axis.imshow(image[0].astype(np.float32), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    return figure


def masks_figure(experiment: HologramPruning) -> Figure:
    """The object mask of one target, and its coverage of the grids of the network's four levels."""
    size = experiment.validation[:1][1].shape[-1]
    grids = [size >> level for level in range(4)]
    return plot_regions(Calibration(experiment.calibration, 0.5), grids, picture="target")


def filters_figure(experiment: HologramPruning, keep_fraction: float) -> Figure:
    """Mean activation of each filter in the object and in the background, and which filters the spatial mask keeps."""
    layers = {f"encoder.{i}.1": f"encoder, level {i + 1}" for i in range(3)}
    layers |= {f"decoder.{i}.1": f"decoder, level {3 - i}" for i in range(3)}
    example = experiment.validation[:1][0].to(experiment.device)
    network = SpatialMaskImportance(experiment.calibration), experiment.base, example, layers
    kept = {
        name: union_scores(of.means, of.overall).topk(int(keep_fraction * len(of.overall))).indices
        for name, of in region_responses(*network, 1.0).items()
    }
    figure = plot_region_responses(*network, kept)
    for axes, title in zip(figure.axes, layers.values(), strict=True):
        axes.set_title("\n".join([title, *axes.get_title().splitlines()[1:]]), fontsize=TEXT)
    return figure


def performance_figure(results: pd.DataFrame) -> Figure:
    """MSE and loss of accuracy against compression and speed-up (the paper's Figure 3); dashed: unpruned.

    Points are means over base networks (geometric means of MSE), and bars their 95 % intervals, if there are several.
    """
    is_unpruned = results["criterion"] == UNPRUNED.criterion
    costs = {
        "compression": "compression (parameters, unpruned / pruned)",
        "speedup": "speed-up (FLOPs, unpruned / pruned)",
    }
    scores = {
        "mse": ("test MSE", 1.0, Interval.of_ratios),
        "delta_accuracy": ("Δacc (percentage points)", 100.0, Interval.of),
    }
    others = dict.fromkeys(name for name in results["criterion"] if name not in (UNPRUNED.criterion, *STYLES))
    styles = STYLES | dict(zip(others, zip(itertools.cycle(OTHER_COLORS), itertools.cycle(MARKERS)), strict=False))
    figure = new_figure(10, 7)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for axis in axes.flat:  # before anything is drawn, so that a single point gets some room on both sides
        axis.set_xscale("log")
        axis.xaxis.set(major_locator=FixedLocator(COST_TICKS), minor_locator=NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(which="both", alpha=0.25)
    for line, (score, (score_label, scale, interval)) in zip(axes, scores.items(), strict=True):
        line[0].set_ylabel(score_label)
        base = scale * interval(results[is_unpruned][score]).mean
        for axis, cost in zip(line, costs, strict=True):
            axis.axhline(base, color="black", linestyle="--", linewidth=1, label=UNPRUNED.criterion)
            for (criterion, literal), rows in results[~is_unpruned].groupby(["criterion", "literal"], sort=False):
                colour, marker = styles[criterion]
                points = [
                    (of_fraction[cost].mean(), interval(scale * of_fraction[score]))
                    for _, of_fraction in rows.groupby("keep_fraction")
                ]
                x, values = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                axis.errorbar(
                    x,
                    [value.mean for value in values],
                    np.array([_bar(value) for value in values]).T,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linestyle=":" if literal else "-",
                    linewidth=1.2,
                    elinewidth=0.7,
                    label=_label(next(rows.itertuples())),
                )
    axes[0, 0].set_yscale("log")
    for axis, label in zip(axes[1], costs.values(), strict=True):
        axis.set_xlabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def _bar(value: Interval) -> tuple[float, float]:
    """Lengths of the error bar below and above; 0 for a single repetition."""
    low, high = value.mean - value.low, value.high - value.mean
    return (low, high) if math.isfinite(high) else (0.0, 0.0)


def _label(row: Any) -> str:
    return row.criterion.replace("_", " ") + (" (literal)" if row.literal else "")


def equal_compression_table(results: pd.DataFrame) -> pd.DataFrame:
    """Each criterion at those compressions of the paper's sentences that it reaches on all base networks."""
    rows = []
    for _, line in at_compression(results, LEVELS).groupby(["criterion", "literal"], sort=False):
        row = {"criterion": _label(next(line.itertuples()))}
        for level in LEVELS:
            at = line[line["level"] == level]
            if len(at) == results["seed"].nunique():
                row[f"MSE x 1e3, x{level}"] = format(Interval.of_ratios(1e3 * at["mse"]), ".2f")
                row[f"Δacc, points, x{level}"] = format(Interval.of(100 * at["delta_accuracy"]), ".1f")
                row[f"speed-up, x{level}"] = f"{at['speedup'].mean():.1f}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def background_correlation(experiment: HologramPruning) -> float:
    """Smallest correlation over the layers of the filters' means in the background and over the whole image."""
    importance = SpatialMaskImportance(experiment.calibration)
    example = experiment.validation[:1][0].to(experiment.device)
    graph = tp.DependencyGraph().build_dependency(experiment.base, example)
    readers = importance.statistics(graph).values[importance.measurement].values()
    return min(float(torch.corrcoef(means[1:3])[0, 1]) for means in readers if means.shape[1] > 1)


def _markdown(experiment: HologramPruning, results: pd.DataFrame, command: str) -> str:
    preset, is_unpruned = experiment.preset, results["criterion"] == UNPRUNED.criterion
    base = results[is_unpruned].iloc[0]
    seeds = results["seed"].unique()
    channels = results[~results["literal"] & ~results["mixed"]].drop_duplicates(["keep_fraction"])
    correlation = background_correlation(experiment)
    reason = (
        "on sparse images the mean over the background is nearly the mean over the whole image (over the filters of "
        f"each layer of base network {experiment.seed} they correlate by at least {correlation:.3f}), so the criterion "
        "is the mean activation with the object's best filters added"
    )
    facts = run_facts(command, experiment.hardware, results["seconds"].sum(), ("torch-pruning", "accelerate", "numpy"))
    facts |= {
        "base networks": f"{len(seeds)}, of seeds {', '.join(map(str, seeds))}; MSE "
        f"{Interval.of_ratios(1e3 * results[is_unpruned]['mse']):.2f} x 1e-3",
        "data": f"{preset.train_images} training, {preset.validation_images} validation and {preset.test_images} test "
        f"holograms of {preset.simulation.image_px} px",
        "network": f"20 convolutions, {preset.width} channels at full resolution, {base['parameters']:,.0f} "
        f"parameters, {base['flops'] / 1e6:,.0f} MFLOPs an image",
        "training": preset.training,
        "retraining": preset.retraining,
        "digits recognised on the targets": f"{100 * (base['accuracy'] + base['delta_accuracy']):.1f} %",
    }
    parts = [
        "# Hologram pruning",
        bullets(facts),
        "Every criterion keeps the same number of filters in each layer, `int(kept * channels)`, and retrains with the "
        "same budget; *literal* is the paper's Algorithm 1, which keeps the union of two top sets of `kept`, so more. "
        "The epoch with the lowest validation loss is kept, the start included. Δacc is the accuracy of a digit "
        "classifier on the targets less its accuracy on the reconstructions. Intervals are of 95 %, by Student's t "
        "over the base networks; a single one has none, and decides nothing.",
        "![MSE and loss of accuracy against compression and speed-up](performance.png)",
    ]
    for mixed in sorted(results["mixed"].unique()):
        chosen = results[is_unpruned | (results["mixed"] == mixed)]
        parts.append(f"## {'Mixed connectivity' if mixed else 'Plain additions'}")
        if mixed:
            parts.append("![The same with mixed connectivity](performance_mixed.png)")
        table = equal_compression_table(chosen)
        if len(table.columns) > 1:
            parts += [
                "At equal compression, between the fractions that were tried:",
                table.to_markdown(index=False, disable_numparse=True),
            ]
        for literal in sorted(chosen[chosen["criterion"] == "spatial_mask"]["literal"].unique()):
            claims = judged_claims(chosen, mixed, literal, reason)
            form = "literal, the paper's" if literal else "of as many filters as the rivals'"
            parts += [f"Claims of the paper, for the spatial mask {form}:", claims_table(claims)]
    parts += [
        "## Networks",
        "![Test holograms and their reconstructions](reconstructions.png)",
        "The masks that the spatial criterion sees, from a target thresholded at 0.5:",
        "![A target and the coverage of its object at each level of the network](masks.png)",
        f"Filters of the base network, and those that the spatial criterion keeps at "
        f"{shown_fraction(results):g}: the highest in the object, and the furthest to the right in the "
        "background.",
        "![Mean activation of each filter in the object and in the background, kept or removed](filters.png)",
        "Channels of the twenty layers, in the order of the forward, by the fraction kept:",
        bullets({f"{row.keep_fraction:g}": row.channels for row in channels.itertuples()}),
        "Every network, mean over the base networks:",
        _every_network(results).to_markdown(index=False, disable_numparse=True),
        "The paper's own protocol (256 px, 5,000 holograms, 100 + 10 epochs) is the preset `paper`. Its base MSE is "
        "0.22e-3; it compares at an equal `fract`, with the literal form and mixed connectivity.",
    ]
    return "\n\n".join(parts) + "\n"


def _every_network(results: pd.DataFrame) -> pd.DataFrame:
    keys = ["mixed", "criterion", "literal", "keep_fraction"]
    means = results.groupby(keys, sort=False)[
        ["compression", "speedup", "mse_before_retraining", "mse", "delta_accuracy"]
    ].mean()
    means = means.reset_index()
    return pd.DataFrame(
        {
            "criterion": [_label(row) for row in means.itertuples()],
            "additions": means["mixed"].map({True: "mixed", False: "plain"}),
            "kept": means["keep_fraction"].map("{:g}".format),
            "compression": means["compression"].map("x{:.1f}".format),
            "speed-up": means["speedup"].map("x{:.1f}".format),
            "MSE before retraining x 1e3": (1e3 * means["mse_before_retraining"]).map("{:.2f}".format),
            "MSE x 1e3": (1e3 * means["mse"]).map("{:.2f}".format),
            "Δacc (points)": (100 * means["delta_accuracy"]).map("{:.1f}".format),
        }
    )

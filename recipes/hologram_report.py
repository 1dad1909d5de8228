"""Figures and report of the hologram pruning recipe."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch_pruning as tp
from matplotlib.ticker import FixedLocator, NullLocator

from torchprune_spatial.regions import RegionMasks, regions_from_target

from .files import replacing
from .hologram_experiment import CRITERIA, UNPRUNED, HologramPruning
from .run_facts import bullets

# Okabe and Ito's palette for the colour-blind; a marker each, so that the figures survive a black and white print.
STYLES = {
    "random": ("#999999", "o"),
    "weight_sum": ("#E69F00", "s"),
    "spatial_mask": ("#0072B2", "D"),
    "apoz": ("#009E73", "^"),
    "mean_activation": ("#D55E00", "v"),
    "thinet": ("#CC79A7", "P"),
    "taylor": ("#56B4E9", "X"),
}
COST_TICKS = [1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100]


def write_report(experiment: HologramPruning, results: pd.DataFrame, command: str, seconds: float) -> list[Path]:
    """Write ``report.md`` and its figures; return the files that a reader wants to open."""
    output, strongest = experiment.output, results["keep_fraction"].min()
    figures = {
        "reconstructions.png": reconstructions_figure(experiment, results, strongest),
        "masks.png": masks_figure(experiment),
        "filters.png": filters_figure(experiment, strongest),
        "performance.png": performance_figure(results),
    }
    for name, figure in figures.items():
        with replacing(output / name) as partial:
            figure.savefig(partial, dpi=130, bbox_inches="tight", format="png")
        plt.close(figure)
    with replacing(output / "report.md") as partial:
        partial.write_text(_markdown(experiment, results, command, seconds))
    return [output / name for name in ("results.csv", "report.md", *figures)]


def reconstructions_figure(experiment: HologramPruning, results: pd.DataFrame, keep_fraction: float) -> plt.Figure:
    """Test holograms, their targets, and what the unpruned network and those pruned to a fraction make of them."""
    rows = results[results["keep_fraction"].isin([1.0, keep_fraction])]
    reconstructions = [
        np.load(experiment.output / "examples" / f"{r.criterion}_{r.keep_fraction:g}.npy") for r in rows.itertuples()
    ]
    holograms, targets = experiment.test[: len(reconstructions[0])]
    images = [holograms.numpy(), targets.numpy(), *reconstructions]
    names = ["hologram", "target"] + [
        f"{_label(row.criterion)}\n"
        + (f"parameters /{row.compression:.1f}\n" if row.criterion != UNPRUNED else "")
        + f"MSE {1e3 * row.mse:.2f}e-3"
        for row in rows.itertuples()
    ]
    figure, axes = plt.subplots(len(images), len(holograms), figsize=(1.3 * len(holograms) + 1.6, 1.3 * len(images)))
    for line, name, batch in zip(axes, names, images, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axis, image in zip(line, batch, strict=True):
            axis.imshow(image[0].astype(np.float32), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    return figure


def masks_figure(experiment: HologramPruning) -> plt.Figure:
    """The object mask of one target, and its coverage of the grids of the network's four levels."""
    _, target = experiment.validation[:1]
    masks = RegionMasks(regions_from_target(target, 0.5))
    size = target.shape[-1]
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.6))
    axes[0].imshow(target[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("target", fontsize=9)
    for level, axis in enumerate(axes[1:]):
        grid = size >> level
        pure, coverage = masks.weights(1, (grid, grid))[0, :, 0].reshape(2, grid, grid).numpy()
        axis.imshow(coverage, cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"object coverage on {grid} x {grid}\n{int(pure.sum())} pure cells", fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    return figure


def filters_figure(experiment: HologramPruning, keep_fraction: float) -> plt.Figure:
    """Each filter's mean activation in the object and in the background, and which ones the spatial mask keeps."""
    base, (hologram, _) = experiment.base, experiment.validation[:1]
    importance = CRITERIA["spatial_mask"](experiment.calibration)
    graph = tp.DependencyGraph().build_dependency(base, hologram.to(experiment.device))
    middle = {f"encoder, level {i + 1}": level[1:] for i, level in enumerate(base.encoder)}
    middle |= {f"decoder, level {3 - i}": level[1:] for i, level in enumerate(base.decoder)}
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.4), layout="constrained")
    for axis, (name, (layer, reader)) in zip(axes.flat, middle.items(), strict=True):
        channels = layer.out_channels
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(channels)))
        scores = importance(group)
        kept = scores >= scores.topk(int(keep_fraction * channels)).values[-1]
        inside, outside = importance.statistics(graph).values[importance.measurement][reader][:2]
        for chosen, label, face in ((kept, "kept", None), (~kept, "removed", "none")):
            axis.scatter(outside[chosen], inside[chosen], edgecolors="#0072B2", facecolors=face, label=label)
        axis.set_title(name, fontsize=9)
    figure.supxlabel("mean activation in the background")
    figure.supylabel("mean activation in the object")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def performance_figure(results: pd.DataFrame) -> plt.Figure:
    """MSE and loss of accuracy against compression and speed-up (the paper's Figure 3); dashed: unpruned."""
    base = results[results["criterion"] == UNPRUNED].iloc[0]
    pruned = results[results["criterion"] != UNPRUNED]
    costs = {
        "compression": "compression (parameters, unpruned / pruned)",
        "speedup": "speed-up (FLOPs, unpruned / pruned)",
    }
    scores = {"mse": ("test MSE", 1.0), "delta_accuracy": ("Δacc (percentage points)", 100.0)}
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex="col", sharey="row", layout="constrained")
    for line, (score, (score_label, scale)) in zip(axes, scores.items(), strict=True):
        line[0].set_ylabel(score_label)
        for axis, cost in zip(line, costs, strict=True):
            axis.axhline(scale * base[score], color="black", linestyle="--", linewidth=1, label=UNPRUNED)
            for criterion, rows in pruned.groupby("criterion", sort=False):
                colour, marker = STYLES.get(criterion, ("black", "."))
                rows = rows.sort_values(cost)
                axis.plot(rows[cost], scale * rows[score], color=colour, marker=marker, label=_label(criterion))
            axis.set_xscale("log")
            axis.xaxis.set(major_locator=FixedLocator(COST_TICKS), minor_locator=NullLocator())
            axis.xaxis.set_major_formatter("{x:g}")
            axis.grid(which="both", alpha=0.25)
    axes[0, 0].set_yscale("log")
    for axis, label in zip(axes[1], costs.values(), strict=True):
        axis.set_xlabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=8, frameon=False)
    return figure


def _label(criterion: str) -> str:
    return criterion.replace("_", " ")


def _markdown(experiment: HologramPruning, results: pd.DataFrame, command: str, seconds: float) -> str:
    preset, base = experiment.preset, results[results["criterion"] == UNPRUNED].iloc[0]
    pruned = results["criterion"] != UNPRUNED
    table = pd.DataFrame(
        {
            "criterion": results["criterion"].map(_label),
            "kept": results["keep_fraction"].map("{:g}".format),
            "compression": results["compression"].map("x{:.1f}".format),
            "speed-up": results["speedup"].map("x{:.1f}".format),
            "MSE before retraining": (1e3 * results["mse_before_retraining"]).map("{:.2f}e-3".format).where(pruned, ""),
            "MSE": (1e3 * results["mse"]).map("{:.2f}e-3".format),
            "Δacc (points)": (100 * results["delta_accuracy"]).map("{:.1f}".format),
        }
    )
    channels = results.drop_duplicates(["keep_fraction", "channels"])
    device = torch.cuda.get_device_name() if experiment.device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    packages = ("torch", "torch-pruning", "torchprune-spatial", "accelerate", "numpy")
    precision = experiment.hardware.mixed_precision
    facts = {
        "command": f"`{command}`",
        "seed": experiment.seed,
        "data": f"{preset.train_images} training, {preset.validation_images} validation and {preset.test_images} test "
        f"holograms of {preset.simulation.image_px} px",
        "network": f"20 convolutions, {preset.width} channels at full resolution, {base['parameters']:,.0f} "
        f"parameters, {base['flops'] / 1e6:,.0f} MFLOPs an image",
        "training": preset.training,
        "retraining": preset.retraining,
        "precision": "float32" if precision == "no" else f"mixed, {precision}",
        "hardware": f"{device}, {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "wall time of the last call": f"{seconds:.0f} s",
    }
    return f"""# Hologram pruning

{bullets(facts)}

Every criterion keeps the same number of filters in each layer, `int(kept * channels)`, and retrains with the same
budget. The epoch with the lowest validation loss is kept, the start included. Δacc is the accuracy of a digit
classifier on the targets ({100 * (base["accuracy"] + base["delta_accuracy"]):.1f} %) less its accuracy on the
reconstructions.

{table.to_markdown(index=False, disable_numparse=True)}

![MSE and loss of accuracy against compression and speed-up](performance.png)

![Test holograms and their reconstructions](reconstructions.png)

The masks that the spatial criterion sees, from a target thresholded at 0.5:

![A target and the coverage of its object at each level of the network](masks.png)

Filters of the base network, and those that the spatial criterion keeps at {results["keep_fraction"].min():g}: the
highest in the object, and the furthest to the right in the background.

![Mean activation of each filter in the object and in the background, kept or removed](filters.png)

Channels of the twenty layers, in the order of the forward, by the fraction kept:

{bullets({f"{row.keep_fraction:g}": row.channels for row in channels.itertuples()})}

The paper (256 px, 5,000 holograms, 100 + 10 epochs; preset `paper`) reports a base MSE of 0.22e-3, improvement on the
base network up to compression 4 for all criteria but random, and at compression 20 less than half of the others' MSE
and a Δacc of 0.4 points for the spatial mask. It compares at an equal `fract`, where the union of two top sets keeps
more filters than the other criteria. One base network and one seed, as here, cannot rank criteria that are close.
"""

"""Tables and figure of the criterion study."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from resolution_scaling.ground.figures import COLORS, MARKERS, new_figure

from ..experiments.claims import Interval
from ..experiments.files import save_report
from ..experiments.run_facts import bullets, run_facts
from ..experiments.training import Hardware
from .cells import EQUAL, OF_TORCH_PRUNING, UNPRUNED
from .experiment import Preset
from .tasks import TASKS

WAY = ["criterion", "allocation", "fold"]
OURS = ("interpolative", EQUAL, True)
"""The setting that the others are compared with."""


def write_report(output: Path, results: pd.DataFrame, preset: Preset, hardware: Hardware, command: str) -> list[Path]:
    """Write ``results.csv`` and ``report.md``, and ``study.png`` if a limit has several factors; return their paths.

    Args:
        output: folder of the results.
        results: rows of all base networks of all tasks.
        preset: sizes.
        hardware: where the run took place.
        command: the command that was given.
    """
    figures = {"study.png": study_figure(results)} if _has_figure(results) else {}
    text = _markdown(results, preset, hardware, command)
    return save_report(output, text, figures, results, dpi=130, bbox_inches="tight")


def _has_figure(results: pd.DataFrame) -> bool:
    """Whether there are several budgets to draw errors against."""
    return bool((results[results["criterion"] != UNPRUNED.criterion].groupby("limit")["factor"].nunique() > 1).any())


def paired(results: pd.DataFrame, error: str = "mse") -> pd.DataFrame:
    """The error of each way to prune over that of ours, on the same base networks.

    Args:
        results: rows of one task, limit and factor.
        error: a column of errors that are above 0.

    Returns:
        Columns ``criterion, allocation, fold, times`` (an `Interval` of ratios to `OURS`); no row if ours is missing.
    """
    errors = results.pivot(index="seed", columns=WAY, values=error)
    if OURS not in errors:
        return pd.DataFrame(columns=[*WAY, "times"])
    return pd.DataFrame(
        [(*way, Interval.of_ratios((errors[way] / errors[OURS]).dropna())) for way in errors if way != OURS],
        columns=[*WAY, "times"],
    )


def against_torch_pruning(results: pd.DataFrame) -> pd.DataFrame:
    """Our criterion, folded, beside the best rival with any of Torch-Pruning's own allocations.

    Args:
        results: rows of all tasks.

    Returns:
        A row for each task, limit, factor and allocation of ours: ``mse`` and ``delta_accuracy`` (medians over base
        networks), the ``rival`` of the lowest median and its ``rival_mse``, ``times`` (our MSE over the rival's).
    """
    budget = ["task", "limit", "factor"]
    medians = results.groupby([*budget, *WAY], sort=False)[["mse", "delta_accuracy"]].median().reset_index()
    rows = [pd.DataFrame()]
    for _, ways in medians.groupby(budget, sort=False):
        is_ours = ways["criterion"] == OURS[0]
        rivals = ways[~is_ours & ~ways["fold"] & ways["allocation"].isin(OF_TORCH_PRUNING)]
        if len(rivals):
            best = rivals.loc[rivals["mse"].idxmin()]
            ours = ways[is_ours & ways["fold"]].drop(columns=["criterion", "fold"])
            rows.append(ours.assign(rival=name_of(*best[WAY]), rival_mse=best["mse"], times=ours["mse"] / best["mse"]))
    return pd.concat(rows, ignore_index=True)


def verdict(times: Interval) -> str:
    """What an interval of ratios to ours says, in a word."""
    if times.low > 1:
        return "worse"
    return "better" if times.high < 1 else "noise"


def name_of(criterion: str, allocation: str, fold: bool) -> str:
    """A way to prune, in words."""
    return f"{criterion.replace('_', ' ')}, {allocation}{', folded' * bool(fold)}"


def study_figure(results: pd.DataFrame) -> Figure:
    """Test MSE against the budget, with a panel for each task: geometric means over base networks.

    It shows the limit and the ways to prune that have the largest number of budgets.
    """
    pruned = results[results["criterion"] != UNPRUNED.criterion]
    budgets = pruned.groupby(["limit", *WAY], sort=False)["factor"].nunique()
    limit = budgets.idxmax()[0]
    ways = budgets[budgets == budgets.max()][limit].index
    styles = dict(zip(ways, zip(itertools.cycle(COLORS), itertools.cycle(MARKERS)), strict=False))
    panels = pruned[pruned["limit"] == limit].groupby("task", sort=False)
    figure = new_figure(4 * len(panels), 4.6)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (task, rows) in zip(axes.flat, panels, strict=True):
        base = results[(results["task"] == task) & (results["criterion"] == UNPRUNED.criterion)]["mse"]
        axis.axhline(1e3 * Interval.of_ratios(base).mean, color="black", linewidth=0.8, label="unpruned")
        for way, (colour, marker) in styles.items():
            line = rows[rows[WAY].eq(pd.Series(way, WAY)).all(axis=1)].groupby("factor")["mse"]
            means = line.agg(lambda errors: 1e3 * Interval.of_ratios(errors).mean)
            axis.plot(means.index, means, color=colour, marker=marker, markersize=4, label=name_of(*way))
        factors = sorted(rows["factor"].unique())
        axis.set(xscale="log", title=task, xlabel=f"{limit} (x)", ylim=(0, None))
        axis.set_xticks(factors, [f"{factor:g}" for factor in factors])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("test MSE x 1e3")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _markdown(results: pd.DataFrame, preset: Preset, hardware: Hardware, command: str) -> str:
    facts = run_facts(command, hardware, results["seconds"].sum(), ("torch-pruning", "accelerate", "numpy"))
    seeds = results["seed"].unique()
    facts |= {
        "base networks": f"{len(seeds)} a task, of seeds {', '.join(map(str, seeds))}",
        "network": f"U-Net of 20 convolutions, {preset.width} channels at full resolution"
        + ", batch norms" * preset.norms,
        "images": f"{preset.train_images} training, {preset.validation_images} validation (they calibrate the criteria "
        f"too) and {preset.test_images} test images of 64 px",
        "training": f"{preset.training}"
        + (f", {preset.sparsity:g} times the sum of the norms' |scales| in the loss" if preset.sparsity else ""),
        "retraining": preset.retraining,
    }
    parts = [
        "# Which criterion, and which allocation",
        bullets(facts),
        "Every way to prune reaches the same budget on the same base networks, with the same retraining. *Times "
        f"ours*: test MSE over that of {name_of(*OURS)} on the same base network, geometric mean with its 95 % "
        "interval (Student's t over base networks); *noise* where the interval holds 1. Allocation *equal*: every "
        'criterion keeps as many channels in each layer as the others (by `allocation="cost"`); *folded*: the next '
        "layers make up for removed channels (`fold=True`).",
        *(["![Test MSE against the budget](study.png)"] if _has_figure(results) else []),
    ]
    pruned = results[results["criterion"] != UNPRUNED.criterion]
    if len(rivals := against_torch_pruning(results)):
        rivals = rivals.round({"times": 2}).assign(
            mse=1e3 * rivals["mse"],
            rival_mse=1e3 * rivals["rival_mse"],
            delta_accuracy=100 * rivals["delta_accuracy"],
        )
        parts += [
            "## Against Torch-Pruning's own allocations",
            f"Medians over base networks of MSE x 1e3 and Δacc in points: {OURS[0]}, folded, with each allocation, and "
            f"the rival that does best with any of {', '.join(OF_TORCH_PRUNING)}, not folded.",
            rivals.rename(columns=lambda name: name.replace("_", " ")).to_markdown(index=False, floatfmt=".2f"),
        ]
    for task, of_task in pruned.groupby("task", sort=False):
        unpruned = results[(results["task"] == task) & (results["criterion"] == UNPRUNED.criterion)]
        parts += [
            f"## {task.capitalize()}",
            f"Unpruned: MSE {1e3 * unpruned['mse'].mean():.2f}e-3, inside the objects "
            f"{1e3 * unpruned['mse_object'].mean():.1f}e-3, accuracy {100 * unpruned['accuracy'].mean():.1f} %"
            + (f" ({TASKS[task].accuracy})." if TASKS[task].accuracy else "."),
        ]
        for (limit, factor), rows in of_task.groupby(["limit", "factor"], sort=False):
            parts += [f"### {limit} x{factor:g}", _table(rows).to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    times = {tuple(row[:3]): row[3] for row in paired(rows).itertuples(index=False)}
    table = []
    for way, group in rows.groupby(WAY, sort=False):
        table.append(
            {
                "criterion": way[0].replace("_", " "),
                "allocation": way[1],
                "folded": "yes" * way[2],
                "MSE x 1e3": f"{1e3 * Interval.of_ratios(group['mse']).mean:.2f}",
                "in objects x 1e3": f"{1e3 * Interval.of_ratios(group['mse_object']).mean:.1f}",
                "Δacc, points": f"{100 * group['delta_accuracy'].mean():.1f}",
                "compression": f"x{group['compression'].mean():.1f}",
                "speed-up": f"x{group['speedup'].mean():.1f}",
                "times ours": format(times[way], ".2f") if way in times else "",
                "verdict": verdict(times[way]) if way in times else "ours" * (way == OURS),
            }
        )
    return pd.DataFrame(table).sort_values("MSE x 1e3", key=lambda column: column.astype(float))

"""Figures and report of the ResNet resolution recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import resolution_scaling as rs
from resolution_scaling.ground.figures import COLORS, MARKERS, SMALL, TEXT, new_figure

from ..experiments.claims import Interval, claims_table
from ..experiments.classification import Classification
from ..experiments.files import save_report
from ..experiments.run_facts import bullets, run_facts
from ..resolution_costs.costs import resnet_costs
from .claims import NETWORK, choose_sizes, judged_claims

PUBLIC = (
    ("resnet50.tv2_in1k", 176, 176, 79.434),
    ("resnet50.tv2_in1k", 176, 224, 80.846),
    ("resnet50.a1h_in1k", 176, 176, 79.264),
    ("resnet50.a1h_in1k", 176, 224, 80.654),
    ("resnet50.a3_in1k", 160, 160, 75.994),
    ("resnet50.a3_in1k", 160, 224, 78.052),
    ("resnet50.a1_in1k", 224, 224, 80.382),
    ("resnet50.a1_in1k", 224, 288, 81.240),
)
"""ImageNet top-1 of public ResNet-50, in percent, by K_train and K_eval: timm's results-imagenet.csv."""


def write_report(experiment: Classification, results: pd.DataFrame, command: str) -> list[Path]:
    """Write ``report.md`` and its figures; return their paths.

    Args:
        experiment: the one that was run.
        results: its rows to report on.
        command: the command that was given.
    """
    chosen = choose_sizes(results)
    figures = {
        "figure_1.png": rs.compare(resnet_costs(1)).plot(),
        "figure_3.png": sizes_figure(results, chosen),
        "figure_4.png": trade_offs_figure(results, chosen),
    }
    return save_report(experiment.output, _markdown(experiment, results, chosen, command), figures, dpi=150)


def sizes_figure(results: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Test accuracy against ``K_eval`` (the paper's Figure 3): mean and 95 % band over seeds; stars mark choices."""
    figure = new_figure(11, 4.8)
    panels = dict(zip(("RC", "FCR"), figure.subplots(1, 2, sharey=True), strict=True))
    titles = {"RC": "trained on crops of K_train (RC)", "FCR": "trained at full size, reduced as to K_train (FCR)"}
    settings = list(dict.fromkeys(results.loc[results["method"] == "RC", "setting"]))
    for method, axes in panels.items():
        for setting, colour, marker in zip(settings, COLORS, MARKERS, strict=False):
            rows = results[(results["method"] == method) & (results["setting"] == setting)]
            if rows.empty:
                continue
            by_size = {size: Interval.of(100 * group) for size, group in rows.groupby("K_eval")["accuracy"]}
            means, lows, highs = zip(*((i.mean, i.low, i.high) for i in by_size.values()), strict=True)
            axes.plot([*by_size], means, color=colour, marker=marker, markersize=4, label=setting)
            if np.isfinite(lows).all():
                axes.fill_between([*by_size], lows, highs, color=colour, alpha=0.2, linewidth=0)
            best = chosen[(chosen["method"] == method) & (chosen["setting"] == setting)]
            star = {"marker": "*", "s": 170, "color": colour, "edgecolors": "black", "zorder": 3}
            axes.scatter(best["K_eval"].mean(), 100 * best["accuracy"].mean(), **star)
        axes.set_title(titles[method], fontsize=TEXT)
        axes.set_xlabel("K_eval (px)")
        axes.grid(alpha=0.25)
        axes.legend(title="K_train (px)", frameon=False)
    means = 100 * results[results["method"] != "width"].groupby([*NETWORK, "K_eval"])["accuracy"].mean()
    panels["RC"].set(ylabel="test accuracy (%)", ylim=(means.min() - 3, means.max() + 3))
    return figure


def trade_offs_figure(results: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Memory against FLOPs, coloured by accuracy (Figure 4): every network at every size; rings mark choices."""
    points = results.groupby([*NETWORK, "K_eval"])[["flops", "memory", "accuracy"]].mean()
    points = points.sort_values(
        "accuracy"
    )  # at one K_eval all networks of RC cost the same, and the best is drawn last
    best = chosen.groupby(NETWORK, sort=False)[["flops", "memory", "accuracy"]].mean()
    scale = Normalize(100 * best["accuracy"].min() - 5, 100 * best["accuracy"].max())
    figure = new_figure(8, 5.5)
    axes = figure.subplots()
    for method, marker in zip(("RC", "FCR", "width"), MARKERS, strict=False):
        for rows, look in (
            (points.loc[method], {"s": 22, "label": method}),
            (best.loc[method], {"s": 110, "edgecolors": "black", "zorder": 3}),
        ):
            drawn = axes.scatter(
                rows["flops"] / 1e6,
                rows["memory"] / 1e6,
                c=100 * rows["accuracy"],
                norm=scale,
                cmap="viridis",
                marker=marker,
                **look,
            )
        for row in best.loc[method].itertuples():
            place = (row.flops / 1e6, row.memory / 1e6)
            axes.annotate(row.Index, place, (7, -3), textcoords="offset points", fontsize=SMALL, zorder=4)
    axes.set(xscale="log", xlabel="MFLOPs", ylabel="memory (MB)")
    axes.grid(alpha=0.25)
    for handle in axes.legend(frameon=False).legend_handles:
        handle.set(array=None, facecolor="grey")
    figure.colorbar(drawn, label="test accuracy (%)", extend="min")
    return figure


def networks_table(results: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """Each network at its chosen size, and at the size of its training crops."""
    trained = results[results["K_eval"] == results["K_train"]].groupby(NETWORK)["accuracy"].mean()
    rows = []
    for name, group in chosen.groupby(NETWORK, sort=False):
        rows.append(
            {
                "network": " ".join(name),
                "K_train": group["K_train"].iloc[0],
                "training MFLOPs": f"{group['training_flops'].iloc[0] / 1e6:.2f}",
                "chosen K_eval": f"{group['K_eval'].mean():.1f}",
                "MFLOPs": f"{group['flops'].mean() / 1e6:.2f}",
                "memory, MB": f"{group['memory'].mean() / 1e6:.3f}",
                "parameters": f"{group['parameters'].iloc[0]:,}",
                "accuracy, % (95 % interval)": format(Interval.of(100 * group["accuracy"]), ".2f"),
                "at K_train, %": f"{100 * trained[name]:.2f}" if name in trained else "",
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def _markdown(experiment: Classification, results: pd.DataFrame, chosen: pd.DataFrame, command: str) -> str:
    data = experiment.data
    sizes, seeds = sorted(results["K_eval"].unique()), sorted(results["seed"].unique())
    facts = run_facts(
        command, experiment.hardware, experiment.seconds, ("torchvision", "torch-pruning", "accelerate", "numpy")
    )
    facts |= {
        "seeds": ", ".join(map(str, seeds)),
        "data": data,
        "training": experiment.training,
        "augmentation": f"{experiment.augmentation}, horizontal flips {data.flip:g}",
        "K_eval": f"{sizes[0]} to {sizes[-1]} px, {len(sizes)} sizes, out of images of K = 232 / 224 K_eval",
    }
    public = pd.DataFrame(PUBLIC, columns=["network", "K_train", "K_eval", "top-1, %"]).to_markdown(index=False)
    return f"""# ResNets at lower resolution, and with fewer filters

{bullets(facts)}

Every network is trained anew, by the same settings. Its K_eval is the one with the best validation accuracy; all scores
are of test images, as means over seeds. "Holds" and "does not hold" mean that the whole 95 % interval (Student's t over
seeds, which differ in initial weights and in the order of the images, not in the images) lies on that side. The reasons
below the table are conjectures, for the claims that do not hold or are not decided.

## Claims

{claims_table(judged_claims(chosen))}
RC and FCR are compared each at its own K_eval. Their training costs are nearly equal, not equal: FCR has the first
convolution at full size. With fewer filters they are compared at equal FLOPs, all at their own K_eval: the accuracy of
RC or FCR is interpolated over the logarithm of FLOPs between the networks that are better on validation than every
cheaper one. A row, or a seed of it, is missing where all of them cost more: FCR cannot be as cheap as a quarter of the
filters.

## Networks

{networks_table(results, chosen)}

## Figure 3

![Test accuracy against the evaluation size](figure_3.png)

Mean over seeds and its 95 % band; the star is at the chosen K_eval. Images that have K px already are not resampled,
and so are sharper than the enlarged crops of training: accuracy can dip there (at 28 px, for images of 28 px). And the
strides of a network meet the borders otherwise at sizes that they do not divide, so that lines can zigzag.

## Figure 4

![Memory against FLOPs, coloured by accuracy](figure_4.png)

Every network at every K_eval; large at the chosen one, with its K_train or its share of filters.

## Figure 1

![FLOPs against memory of ResNet-50 for images of 224 px](figure_1.png)

Exact costs of ResNet-50, of which nothing is trained here.

## Beside public numbers

ImageNet accuracy of public ResNet-50, trained on random crops and evaluated at two sizes (timm's results-imagenet.csv).
All are better above K_train than at it; our gains are the last two columns of the table of networks.

{public}
"""

"""Figures, claims and report of the ResNet resolution recipe."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import resolution_scaling as rs
from resolution_scaling.ground.figures import COLORS, MARKERS, SMALL, TEXT, new_figure

from ..experiments.claims import Claim, Interval, claims_table
from ..experiments.classification import Classification
from ..experiments.files import replacing, save_figures
from ..experiments.run_facts import bullets, run_facts
from ..resolution_costs.costs import resnet_costs

NETWORK = ["method", "setting"]
DEFAULT_RATIO = 224 / 176
"""The paper's default K_eval over its default K_train (section 4.1)."""
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


def write_report(experiment: Classification, results: pd.DataFrame, command: str) -> tuple[str, list[Path]]:
    """Write ``report.md`` and its figures; return the table of the networks, and the files that a reader opens.

    Args:
        experiment: that was run.
        results: its rows, of the seeds to report.
        command: that was given.
    """
    output, chosen = experiment.output, choose_sizes(results)
    figures = {
        "figure_1.png": rs.compare(resnet_costs(1)).plot(),
        "figure_3.png": sizes_figure(results, chosen),
        "figure_4.png": trade_offs_figure(results, chosen),
    }
    save_figures(output, figures, dpi=150)
    table = networks_table(results, chosen)
    with replacing(output / "report.md") as partial:
        partial.write_text(_markdown(experiment, results, chosen, table, command))
    return table, [output / name for name in ("results.csv", "report.md", *figures)]


def choose_sizes(results: pd.DataFrame) -> pd.DataFrame:
    """Of each network and seed the row with the best validation accuracy; of equal ones the smallest ``K_eval``."""
    best_first = results.sort_values(["validation_accuracy", "K_eval"], ascending=[False, True])
    return best_first.drop_duplicates(["seed", *NETWORK]).sort_index()


def accuracy_at(rows: pd.DataFrame, flops: float) -> float:
    """Test accuracy that one of some networks reaches with so many FLOPs.

    Those count that are better on validation than every cheaper one; between them, accuracy is interpolated linearly
    over the logarithm of FLOPs, and above them it stays.

    Args:
        rows: of `choose_sizes`, of one seed.
        flops: an image.

    Returns:
        In 0..1; NaN if all cost more.
    """
    rows = rows.sort_values(["flops", "validation_accuracy"], ascending=[True, False])
    better = rows["validation_accuracy"] > rows["validation_accuracy"].cummax().shift(fill_value=-1)
    front = rows[better]
    return float(np.interp(math.log(flops), np.log(front["flops"]), front["accuracy"], left=math.nan))


def judged_claims(chosen: pd.DataFrame) -> list[Claim]:
    """What section 4.1 of the paper claims, paired over seeds; pooled values are averaged within a seed first."""
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


def sizes_figure(results: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Test accuracy against ``K_eval`` (the paper's Figure 3): mean and 95 % band over seeds; a star where chosen."""
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
    """Memory against FLOPs, coloured by accuracy (Figure 4): every network at every size, ringed at its chosen one."""
    points = results.groupby([*NETWORK, "K_eval"])[["flops", "memory", "accuracy"]].mean()
    points = points.sort_values("accuracy")  # at one K_eval all of RC cost the same: the best is drawn last
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


def _markdown(experiment: Classification, results: pd.DataFrame, chosen: pd.DataFrame, table: str, command: str) -> str:
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

{table}

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

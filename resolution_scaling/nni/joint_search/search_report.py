"""The results of several searches side by side: a CSV table of all trials, a figure of the Pareto fronts, Markdown."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from ...ground.figures import COLORS, MARKERS, new_figure
from ..experiment.results import TrialResult
from .front import hypervolume, pareto_front
from .limits import COSTS, METRICS
from .search_space import KEEP, NOTHING, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
UNITS = {"flops": ("MFLOPs", 1e6), "memory_bytes": ("memory (weights + largest operator), MB", 1e6)}
"""The costs for which fronts are drawn, with their labels and units."""

SHORT = {"flops": "FLOPs", "memory_bytes": "memory"}
"""Short names of these costs."""

NEAR = 0.01
"""A network is nearly as good as the unchanged one if its accuracy is lower by at most this share."""


def row_of(result: TrialResult) -> Row:
    """One trial as a row: ``"accuracy"`` is the evaluator's number, ``"score"`` the one that the search maximises."""
    metrics = result.metrics
    trial = Trial.of(result.parameters) if result.parameters else None
    row = {
        "trial": result.trial,
        "status": result.status,
        "pruning": trial.pruning_text if trial else None,
        "resolution": trial.resolution_text if trial else None,
        "feasible": metrics.get("feasible"),
        "accuracy": metrics.get("accuracy"),
        "score": result.score,
        **{cost: metrics.get(METRICS[cost]) for cost in COSTS},
        "seconds": metrics.get("seconds"),
        "repeated": metrics.get("repeated"),
    }
    return row | {"error": metrics.get("error")}


def apart(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The trials of a joint search: all of them, those that only prune, and those that only scale."""
    return {
        "joint": list(rows),
        "pruning alone": [row for row in rows if row["resolution"] == KEEP],
        "resolution alone": [row for row in rows if row["pruning"] == NOTHING],
    }


class SearchReport:
    """Searches of one network under the same limits, compared by their Pareto fronts.

    The hypervolume is the area between a front and a reference point: the cost of the unchanged network, and the lowest
    accuracy on any of the fronts. Costs are shares of the unchanged network's.

    Attributes:
        searches: the rows of all trials (`row_of`), by the name of the search.
        unchanged: costs and ``"score"`` of the network before the search. Its score is its accuracy.
    """

    def __init__(self, searches: Mapping[str, Sequence[Row]], unchanged: Mapping[str, float]):
        self.searches = {name: list(rows) for name, rows in searches.items()}
        self.unchanged = dict(unchanged)

    def networks(self, name: str) -> list[Row]:
        """The networks that a search trained, each once."""
        found = {(row["pruning"], row["resolution"]): row for row in reversed(self.searches[name]) if _counts(row)}
        return list(reversed(found.values()))

    def front(self, name: str, cost: str = "flops") -> list[Row]:
        """The networks of a search that no other of its networks dominates, from the lowest cost to the highest."""
        networks = self.networks(name)
        return [networks[i] for i in pareto_front(*_points(networks, cost))]

    def hypervolume(self, name: str, cost: str = "flops") -> float:
        """The hypervolume of a search's front. Compare it only with those of the other searches in this report."""
        lowest, (costs, scores) = self._lowest(cost), _points(self.networks(name), cost)
        shares = [value / self.unchanged[cost] for value in costs]
        return 0.0 if lowest is None else hypervolume(shares, scores, (1.0, lowest))

    def nearly_as_good(self, name: str, cost: str = "flops") -> Row | None:
        """The cheapest network of a search whose accuracy is within 1 % of the unchanged one's; None without one."""
        enough = self.unchanged["score"] - NEAR * abs(self.unchanged["score"])
        return next((row for row in self.front(name, cost) if row["accuracy"] >= enough), None)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all trials, each with the fronts that its network is on."""
        rows = []
        for name in self.searches:
            fronts = self._trials_on_fronts(name)
            for row in self.searches[name]:
                on = {f"on_front_of_{cost}": row["trial"] in trials for cost, trials in fronts.items()}
                rows.append({"search": name, **row, **on})
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0] if rows else ["search"])
            writer.writeheader()
            writer.writerows(rows)

    def plot(self) -> Figure:
        """Plot accuracy against FLOPs and memory: all networks, the fronts as steps, the unchanged network as a star.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure = new_figure(10, 4.4)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (cost, (label, unit)) in zip(panels, UNITS.items(), strict=True):
            for i, name in enumerate(self.searches):
                style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
                costs, scores = _points(self.networks(name), cost)
                axes.scatter([value / unit for value in costs], scores, s=16, alpha=0.35, linewidths=0, **style)
                costs, scores = _points(self.front(name, cost), cost)
                axes.step([v / unit for v in costs], scores, where="post", label=name, markersize=5, **style)
            base = self.unchanged[cost] / unit, self.unchanged["score"]
            axes.scatter(*base, s=120, color="black", marker="*", label="unchanged network", zorder=3)
            axes.set_xlabel(label)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("score (higher is better)")
        panels[1].legend(frameon=False, loc="lower right")
        return figure

    def markdown(self) -> str:
        """Tables of the searches, and of the networks on the front of the first search."""
        first = next(iter(self.searches))
        scores = map(self._lowest, UNITS)
        lowest = " and ".join("none" if score is None else f"{score:.4f}" for score in scores)
        return f"""{self._searches_table()}

Hypervolume: the area between a front and the cost of the unchanged network (costs as shares of that) and the lowest
score on any of the fronts ({lowest}). It is to be compared inside a column only, and a front that rests on more
networks has an advantage. "Within 1 %": the cheapest network whose score is at most 1 % below the unchanged one's.

Pareto fronts of the {first} search:

{self._front_table(first)}
"""

    def _searches_table(self) -> str:
        rows = []
        for name, trials in self.searches.items():
            row: dict[str, Any] = {"search": name, "trials": len(trials), "networks": len(self.networks(name))}
            row["infeasible"] = sum(trial["feasible"] is False for trial in trials)
            row["failed"] = sum(trial["status"] == "failed" for trial in trials)
            for cost, short in SHORT.items():
                row[f"hypervolume, {short}"] = f"{self.hypervolume(name, cost):.4f}"
                near = self.nearly_as_good(name, cost)
                row[f"{short} within 1 %"] = f"{near[cost] / self.unchanged[cost]:.1%}" if near else "none"
            rows.append(row)
        return tabulate(rows, "keys", "github", disable_numparse=True)

    def _front_table(self, name: str) -> str:
        fronts = self._trials_on_fronts(name)
        networks = [row for row in self.networks(name) if any(row["trial"] in front for front in fronts.values())]
        unchanged = {"pruning": NOTHING, "resolution": KEEP, "accuracy": self.unchanged["score"], **self.unchanged}
        table = [
            {
                "pruning": row["pruning"],
                "resolution": row["resolution"],
                "score": f"{row['accuracy']:.4f}",
                "MFLOPs": f"{row['flops'] / 1e6:.3f}",
                "memory, MB": f"{row['memory_bytes'] / 1e6:.3f}",
                "peak, MB": f"{row['peak_bytes'] / 1e6:.3f}",
                "parameters": f"{row['parameters']:,}",
                "on the front of": " and ".join(SHORT[cost] for cost in fronts if row.get("trial") in fronts[cost])
                or "(unchanged)",
            }
            for row in [*sorted(networks, key=lambda row: row["flops"]), unchanged]
        ]
        return tabulate(table, "keys", "github", disable_numparse=True)

    def _trials_on_fronts(self, name: str) -> dict[str, list[str]]:
        return {cost: [row["trial"] for row in self.front(name, cost)] for cost in UNITS}

    def _lowest(self, cost: str) -> float | None:
        """The lowest accuracy on any of the fronts."""
        return min((row["accuracy"] for name in self.searches for row in self.front(name, cost)), default=None)


def _counts(row: Row) -> bool:
    return row["status"] == "succeeded" and bool(row["feasible"])


def _points(rows: Sequence[Row], cost: str) -> tuple[list[float], list[float]]:
    return [row[cost] for row in rows], [row["accuracy"] for row in rows]

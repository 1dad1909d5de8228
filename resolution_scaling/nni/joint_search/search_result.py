"""The result of a search: its trials, their Pareto fronts, and the network of any trial, made again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn as nn

from ..algorithms.module_class import ModuleClass
from ..experiment.results import TrialResult
from .search_report import SearchReport, apart, row_of
from .search_trial import rebuild

SETTINGS_FILE = "search.json"


class SearchResult:
    """The result of a search.

    Attributes:
        trials: all trials, in the order in which they ended.
        unchanged: costs and ``"score"`` of the network before the search.
        output: folder of the record.
    """

    def __init__(self, trials: Sequence[TrialResult], unchanged: Mapping[str, float], output: Path):
        self.trials, self.unchanged, self.output = list(trials), dict(unchanged), output

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict for each trial: what was done, accuracy, score, costs, whether it keeps the limits."""
        return [row_of(result) for result in self.trials]

    @property
    def report(self) -> SearchReport:
        """A report of the search beside those of its trials that only prune, or only scale."""
        return SearchReport(apart(self.rows), self.unchanged)

    def front(self, cost: str = "flops") -> list[dict[str, Any]]:
        """The Pareto front of accuracy and this cost: the rows of its networks, the cheapest first."""
        return self.report.front("joint", cost)

    def network(self, module_class: ModuleClass, trial: str) -> nn.Module:
        """The network of a trial, pruned, scaled and trained again as it was then: searches do not keep networks.

        Args:
            module_class: the class that was searched.
            trial: the id of the trial, as in `rows`.

        Raises:
            ValueError: there is no such trial, or it reported nothing.
        """
        parameters = next((result.parameters for result in self.trials if result.trial == trial), None)
        if parameters is None:
            raise ValueError(f"trial is {trial!r}; expected the id of a trial that reported its parameters, see rows")
        settings = read_settings(self.output)
        return rebuild(
            module_class, parameters, **{name: settings[name] for name in ("config_list", "imports", "seed")}
        )

    def write(self) -> list[Path]:
        """Write ``results.csv``, ``front.png`` and ``report.md`` into `output`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        files = [self.output / name for name in ("results.csv", "front.png", "report.md")]
        report = self.report
        report.to_csv(files[0])
        report.plot().savefig(files[1], dpi=150)
        files[2].write_text(f"# Search\n\n{report.markdown()}\n![Pareto fronts](front.png)\n", encoding="utf-8")
        return files

    def __str__(self) -> str:
        return self.report.markdown()


def read_settings(output: Path) -> dict[str, Any]:
    """The settings of a search; ``"unchanged"`` has costs and score of the network before the search.

    Raises:
        FileNotFoundError: there is no search in this folder.
    """
    return json.loads((output / SETTINGS_FILE).read_text(encoding="utf-8"))

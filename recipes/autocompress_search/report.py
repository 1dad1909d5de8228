"""The report: the Pareto fronts of the three searches, and every trial."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from resolution_scaling.ground.files import replacing
from resolution_scaling.nni.joint_search.search_report import SearchReport
from resolution_scaling.nni.joint_search.search_result import SearchResult

from ..experiments.files import save_report
from ..experiments.run_facts import bullets, version_of
from .experiment import REWARD_FOR_HALVING, Searches
from .task import IMAGE_PX


def write_report(searches: Searches, results: Mapping[str, SearchResult]) -> list[Path]:
    """Write ``results.csv``, ``report.md`` and ``front.png``; return their paths.

    Args:
        searches: those that were run.
        results: their results by the name of the search.
    """
    report = SearchReport({name: result.rows for name, result in results.items()}, results["joint"].unchanged)
    with replacing(searches.output / "results.csv") as partial:
        report.to_csv(partial)
    return save_report(searches.output, _markdown(searches, report), {"front.png": report.plot()}, dpi=150)


def _markdown(searches: Searches, report: SearchReport) -> str:
    task, options, preset, base = searches.task, searches.options, searches.preset, report.unchanged
    finished = {
        name: json.loads((searches.output / name.replace(" ", "_") / "finished.json").read_text())
        for name in report.searches
    }
    resumed = [name for name, facts in finished.items() if facts["resumed"]]
    rewards = "".join(f" + {value:g} for each halving of {cost}" for cost, value in REWARD_FOR_HALVING.items())
    facts = {
        "command": f"`{options.command}`",
        "seed": options.seed,
        "data": f"{task.name}: {task.train_images} training and {task.validation_images} validation images",
        "network": f"ResNet of 9 convolutions, {task.width} to {4 * task.width} channels, {base['parameters']:,} "
        f"parameters, {base['flops'] / 1e6:.2f} MFLOPs an image of {IMAGE_PX} px, accuracy {base['score']:.4f}",
        "training": f"{preset.training.epochs} epochs; after compression {task.finetuning_epochs}",
        "limit": f"{preset.flops_limit:.0%} of the FLOPs of the unchanged network",
        "objective": f"accuracy{rewards}",
        "tuner": f"{options.tuner}, {options.concurrency} trials at once; resolution alone: GridSearch",
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version_of(name)}" for name in ("nni", "torch", "torchprune-spatial")),
        "wall time": ", ".join(f"{name} {facts['seconds']:.0f} s" for name, facts in finished.items())
        + (f" (of {', '.join(resumed)}: since it was resumed)" if resumed else ""),
    }
    repeated = sum(bool(row["repeated"]) for rows in report.searches.values() for row in rows)
    return f"""# Joint search of pruning and resolution

{bullets(facts)}

{report.markdown()}
![Accuracy against FLOPs and memory: all networks, and the Pareto fronts of the three searches](front.png)

Accuracy is that on the validation images, which the tuner also saw: no test score. Points that an earlier trial had
tried ({repeated}) were not trained again. One network and one seed cannot tell which way to compress is the better one.
"""

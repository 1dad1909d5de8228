"""What `prune_to` takes with each of its graphs: ``ChannelGraph``, and Torch-Pruning's own.

``python -m benchmarks.graphs`` prints a table. Each run is a process of its own, with one thread, so that its peak of
memory can be read, and gets 8 GiB at most; the graphs take turns. It needs timm and torchvision.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from tabulate import tabulate
from tqdm import tqdm

from benchmarks import publish, seconds

NETWORKS = {
    "resnest14d": "timm:create_model('resnest14d')",
    "densenet121": "torchvision:models.densenet121()",
    "swin_t": "torchvision:models.swin_t()",
}
"""The networks, and how they are made: a package, and an expression in it."""

WAYS = ("forward", "torch-pruning", "channels")
"""What is run: a forward pass alone, and `prune_to` with each graph."""


MEMORY_BYTES = 8 * 2**30
"""More than this a process does not get: lists of indices can fill a machine."""


@dataclass(frozen=True)
class Run:
    """What a process took.

    Attributes:
        seconds: of the forward pass, or of `prune_to`; None if it was stopped.
        peak_bytes: the most memory that the process had; everything that it imports is part of it.
        says: what it printed last, if it failed.
        at_least: the seconds after which it was stopped; 0 if it was not.
    """

    seconds: float | None
    peak_bytes: int
    says: str = ""
    at_least: float = 0.0


def here(network: str, way: str, size: int) -> None:
    """Run a network in this process, and print the seconds."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    package, expression = NETWORKS[network].split(":")
    module = importlib.import_module(package)
    model, images = eval(f"module.{expression}", {"module": module}).eval(), torch.rand(1, 3, size, size)
    import torch_pruning as tp

    import torchprune_spatial

    importance = tp.importance.GroupMagnitudeImportance()
    options = {"compression": 2, "graph": way, "progress": False}

    def run() -> None:
        if way == "forward":
            with torch.no_grad():
                model(images)
        else:
            torchprune_spatial.prune_to(model, images, importance, **options)

    print(seconds(run))


def apart(network: str, way: str, size: int, limit: float) -> Run:
    """Run a network in a process of its own, which is stopped after ``limit`` seconds."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.graphs", "--here", network, way, "--size", str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stop = threading.Timer(limit, process.kill)
    stop.start()
    assert process.stdout is not None
    printed = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    stop.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if process.returncode == -signal.SIGKILL:
        return Run(None, peak, f"stopped after {limit:.0f} s", limit)
    if process.returncode != 0:
        says = printed[-1] if printed else f"exit status {process.returncode}"
        return Run(None, peak, f"more than {MEMORY_BYTES / 2**30:.0f} GiB" if says == "MemoryError" else says)
    return Run(float(printed[-1]), peak)


def row(network: str, runs: dict[str, list[Run]]) -> dict[str, str]:
    """The medians for a network, as a row of the table."""
    taken = {way: [run.seconds for run in runs[way] if run.seconds is not None] for way in WAYS}
    peaks = {way: statistics.median(run.peak_bytes for run in runs[way]) / 2**20 for way in WAYS}
    cells = {"network": network}
    for way in WAYS:
        cells[f"{way}, s"] = f"{statistics.median(taken[way]):.2f}" if taken[way] else runs[way][0].says
    ours, theirs = taken["channels"] or [0.0], taken["torch-pruning"] or [runs["torch-pruning"][0].at_least]
    ratio = statistics.median(theirs) / statistics.median(ours) if taken["channels"] else 0.0
    more = "" if taken["torch-pruning"] else "> "
    cells["torch-pruning / channels"] = f"{more}{ratio:.1f}" if ratio else ""
    return cells | {f"{way}, MiB": f"{peaks[way]:.0f}" for way in WAYS}


def main() -> None:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    parser.add_argument("--size", type=int, default=224, help="of the images, px (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=300, help="seconds a run may take (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--here", nargs=2, metavar=("NETWORK", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        here(*arguments.here, arguments.size)
        return
    options = [
        f"--networks {' '.join(arguments.networks)}",
        f"--size {arguments.size}",
        f"--rounds {arguments.rounds}",
        f"--limit {arguments.limit:g}",
    ]
    options += [f"--output {arguments.output}"] if arguments.output else []
    runs: dict[str, dict[str, list[Run]]] = {network: {way: [] for way in WAYS} for network in arguments.networks}
    for _ in tqdm(range(arguments.rounds), desc="rounds"):
        for network, of_network in runs.items():
            for way, of_way in of_network.items():
                if not of_way or of_way[0].seconds is not None:  # what failed once is not tried again
                    of_way.append(apart(network, way, arguments.size, arguments.limit))
    rows = [row(network, of_network) for network, of_network in runs.items()]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch-pruning", "timm", "torchvision"))
    parts = [
        tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True),
        f"`python -m benchmarks.graphs {' '.join(options)}`: 1 CPU thread, {platform.machine()}, {versions}.",
    ]
    publish(parts, arguments.output)


if __name__ == "__main__":
    main()

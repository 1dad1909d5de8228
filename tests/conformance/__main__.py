"""``python -m tests.conformance --output docs/conformance.md``: the table of all the networks."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .networks import NETWORKS
from .table import table

CPU_SECONDS = {"ours": 120, "alone": 60}
"""For each stage of a network, as processor time, so that a busy machine does not change the table."""
MEMORY_BYTES = 12 * 2**30
ENDS = {"ours": "masked", "alone": "torch-pruning"}
"""The stage at which an error is noted that ended the process in this part."""


def run_apart(name: str, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Outcomes of a network in a process of its own, whose memory and processor time are limited.

    Args:
        name: of the network.
        known: what is known already; parts that it has are not run.
    """
    results = dict(known or {})
    while parts := [part for part in ENDS if ENDS[part] not in results]:
        command = [sys.executable, "-m", "tests.conformance", "--network", name, "--parts", *parts]
        done = subprocess.run(command, capture_output=True, text=True)
        results.update(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
        unfinished = [ENDS[part] for part in parts if ENDS[part] not in results]
        if unfinished:
            results[unfinished[0]] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    return results


def run_here(name: str, parts: list[str]) -> None:
    """Print the outcomes of parts of a network as lines of JSON."""
    from . import outcome

    def stop(*_: Any) -> None:
        raise outcome.OutOfTime(f"no answer within {CPU_SECONDS[part]} s of processor time")

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, stop)
    for part in parts:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS[part])
        for stage in getattr(outcome, part)(NETWORKS[name]):
            print(json.dumps(stage), flush=True)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS[part])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/conformance.md"))
    parser.add_argument("--match", default="", help="only networks whose name holds this")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--results", type=Path, help="a file of results, as lines of JSON; what it has is not repeated")
    parser.add_argument("--network", choices=NETWORKS, metavar="NAME", help="one network, in this process, as JSON")
    parser.add_argument("--parts", choices=ENDS, nargs="+", default=list(ENDS), help="of --network")
    arguments = parser.parse_args()
    if arguments.network:
        run_here(arguments.network, arguments.parts)
        return
    names = [name for name in NETWORKS if arguments.match in name]
    rows: dict[str, dict[str, Any]] = {}
    if arguments.results and arguments.results.exists():
        rows.update(json.loads(line) for line in arguments.results.read_text().splitlines())
    left = [name for name in names if not {*ENDS.values()} <= rows.get(name, {}).keys()]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        found = pool.map(run_apart, left, [rows.get(name) for name in left])
        for count, (name, results) in enumerate(zip(left, found, strict=True), len(names) - len(left) + 1):
            rows[name] = results
            print(f"{count}/{len(names)} {name}: {results}", flush=True)
            if arguments.results:
                with arguments.results.open("a") as file:
                    file.write(json.dumps([name, results]) + "\n")
    arguments.output.write_text(table({name: rows[name] for name in names}))


if __name__ == "__main__":
    main()

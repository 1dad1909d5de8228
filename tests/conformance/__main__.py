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

from .outcome import outcomes
from .table import table
from .zoo import NETWORKS

CPU_SECONDS = 120
"""For each stage of a network, as processor time, so that a busy machine does not change the table."""
MEMORY_BYTES = 6 * 2**30


def run_apart(name: str) -> dict[str, str]:
    """Outcomes of a network in a process of its own, whose memory and processor time are limited."""
    command = [sys.executable, "-m", "tests.conformance", "--network", name]
    done = subprocess.run(command, capture_output=True, text=True)
    results = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    if done.returncode:
        stage = next(stage for stage in ("magnitude", "check", "ours", "masked", "end") if stage not in results)
        results[stage] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    return results


def run_here(name: str) -> None:
    """Print the outcomes of a network as lines of JSON."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no answer within {CPU_SECONDS} s of processor time")

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    for stage in outcomes(NETWORKS[name]):
        print(json.dumps(stage), flush=True)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/conformance.md"))
    parser.add_argument("--match", default="", help="only networks whose name holds this")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument(
        "--network", choices=NETWORKS, metavar="NAME", help="one network, in this process, as lines of JSON"
    )
    arguments = parser.parse_args()
    if arguments.network:
        run_here(arguments.network)
        return
    names = [name for name in NETWORKS if arguments.match in name]
    rows = {}
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for name, results in zip(names, pool.map(run_apart, names), strict=True):
            rows[name] = results
            print(f"{len(rows)}/{len(names)} {name}: {results}", flush=True)
    arguments.output.write_text(table(rows))


if __name__ == "__main__":
    main()

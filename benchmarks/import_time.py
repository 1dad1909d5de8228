"""How much longer importing the packages takes than importing their hosts: ``python -m benchmarks.import_time``.

Each pair is timed in processes of its own, after one that brings the files into the cache of the system. What counts is
what the package adds after its host in the same process: two processes differ by more than that.
"""

import os
import statistics
import subprocess
import sys

from tabulate import tabulate

PAIRS = (("torch", "resolution_scaling"), ("torch, torch_pruning", "torchprune_spatial"))
SCRIPT = """
import time
start = time.perf_counter()
import {host}
middle = time.perf_counter()
import {package}
print(middle - start, time.perf_counter() - middle)
"""


def measure(host: str, package: str) -> tuple[float, float]:
    """Seconds for the hosts, and for the package after them, in a new process."""
    command = [sys.executable, "-c", SCRIPT.format(host=host, package=package)]
    compiled = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # once, as pip does when it installs
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=compiled).stdout
    host_s, package_s = map(float, output.split())
    return host_s, package_s


def table(runs: int = 5) -> str:
    """Medians over runs, after one that warms the caches."""
    rows = []
    for host, package in PAIRS:
        measure(host, package)
        host_s, package_s = map(statistics.median, zip(*(measure(host, package) for _ in range(runs)), strict=True))
        ratio = (host_s + package_s) / host_s
        rows.append((f"`{package}`", f"`{host}`", f"{host_s:.2f} s", f"{package_s:.3f} s", f"{ratio:.3f}"))
    return tabulate(rows, ("package", "host", "host alone", "package on top", "ratio"), "github", disable_numparse=True)


if __name__ == "__main__":
    print(table())

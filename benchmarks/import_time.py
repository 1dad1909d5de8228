"""How much importing the packages adds to importing PyTorch and Torch-Pruning: ``python -m benchmarks.import_time``.

Each pair is timed in processes of its own, after one that brings the files into the cache of the system. Base and
package are imported in the same process, because two processes differ by more than the package takes.
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
import {base}
middle = time.perf_counter()
import {package}
print(middle - start, time.perf_counter() - middle)
"""


def measure(base: str, package: str) -> tuple[float, float]:
    """Seconds for the base, and for the package after it, in a new process."""
    command = [sys.executable, "-c", SCRIPT.format(base=base, package=package)]
    compiled = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # written once, as pip does when it installs
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=compiled).stdout
    base_s, package_s = map(float, output.split())
    return base_s, package_s


def table(runs: int = 5) -> str:
    """Medians over runs, after one that warms the caches."""
    rows = []
    for base, package in PAIRS:
        measure(base, package)
        base_s, package_s = map(statistics.median, zip(*(measure(base, package) for _ in range(runs)), strict=True))
        ratio = (base_s + package_s) / base_s
        rows.append((f"`{package}`", f"`{base}`", f"{base_s:.2f} s", f"{package_s:.3f} s", f"{ratio:.3f}"))
    return tabulate(rows, ("package", "host", "host alone", "package on top", "ratio"), "github", disable_numparse=True)


if __name__ == "__main__":
    print(table())

"""What a report says about its run, so that a reader can repeat it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

import torch

from .training import Hardware


def run_facts(command: str, hardware: Hardware, seconds: float, packages: Iterable[str]) -> dict[str, str]:
    """Command, precision, hardware, versions and wall time, in words.

    Args:
        command: the command that was given.
        hardware: where the run took place.
        seconds: wall time of all sittings.
        packages: packages whose versions are shown, beside torch and this one.
    """
    on_gpu = hardware.accelerator().device.type == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads on {os.cpu_count()} CPUs"
    precision = hardware.mixed_precision
    return {
        "command": f"`{command}`",
        "precision": "float32" if precision == "no" else f"mixed, {precision}",
        "hardware": f"{device}, {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version_of(name)}" for name in ("torch", "torchprune-spatial", *packages)),
        "wall time": f"{seconds / 60:.1f} minutes",
    }


def bullets(facts: Mapping[str, object]) -> str:
    """A Markdown list of names and values."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def version_of(package: str) -> str:
    """The version of a package, or a note that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed as a package)"

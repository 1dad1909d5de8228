"""Speed and memory as ratios to a plain forward pass, measured side by side in one run."""

import time
from collections.abc import Callable
from pathlib import Path

import torch


def publish(parts: list[str], path: Path | None) -> None:
    """Print a page of Markdown, and write it to a file if one is given."""
    page = "\n\n".join(parts) + "\n"
    print(page)
    if path:
        path.write_text(page)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start

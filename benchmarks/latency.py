"""Whether fewer FLOPs take less time: latency against FLOPs at 224 to 96 px, in eager mode and in onnxruntime.

``python -m benchmarks.latency`` prints a table; ``--output FILE`` also writes it, with a figure beside it. It
needs timm, torchvision, matplotlib and the extra ``onnx``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import timm
import torch
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import nn
from torchvision.models import resnet50
from tqdm import tqdm

import resolution_scaling as rs
from benchmarks import publish, seconds
from resolution_scaling.ground.figures import COLORS, MARKERS, new_figure, saved

FULL_SIZE = 224
SIZES = (192, 160, 128, 96)


Variant = tuple[str, str, nn.Module, int]
"""Method, its setting, the network, and the size of the images that it reads, px."""


def resnet() -> Iterator[Variant]:
    """ResNet-50 at full size, then with smaller images, then reduced after the first convolution."""
    model = resnet50().eval()
    yield "full size", f"{FULL_SIZE} px", model, FULL_SIZE
    yield from (("RC", f"{size} px", model, size) for size in SIZES)
    yield from (("FCR", f"{size} px", rs.scale_resolution(model, size), FULL_SIZE) for size in SIZES)


def vit() -> Iterator[Variant]:
    """ViT-S/16 at full size, then with fewer tokens: smaller images, or larger patches of the full image."""
    model = timm.create_model("vit_small_patch16_224").eval()
    yield "full size", f"{FULL_SIZE} px", model, FULL_SIZE
    yield from (("smaller images", f"{size} px", rs.scale_resolution(model, size), size) for size in SIZES)
    for patch in (28, 32):
        scaled = rs.scale_resolution(model, FULL_SIZE, patch_size=patch)
        yield "larger patches", f"{patch} px", scaled, FULL_SIZE


NETWORKS = {"ResNet-50": resnet, "ViT-S/16": vit}


def eager(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A forward pass of PyTorch."""

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        return model(images)

    return forward


def by_onnxruntime(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A forward pass of onnxruntime, with as many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.onnx")
        torch.onnx.export(model, (images,), path, dynamo=True, opset_version=18, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


RUNTIMES = {"eager": eager, "onnxruntime": by_onnxruntime}


def measure(network: str, batch: int, rounds: int) -> list[dict]:
    """One dict for each method and size: FLOPs, and latencies by runtime in every round, relative to the full size."""
    torch.manual_seed(0)
    rows: list[dict] = []
    forwards: list[dict[str, Callable[[], object]]] = []
    for method, setting, model, image_size in tqdm(list(NETWORKS[network]()), desc=f"{network}, export"):
        images = torch.rand(batch, 3, image_size, image_size)
        rows.append({"method": method, "setting": setting, "gflops": rs.profile(model, images).flops / 1e9})
        forwards.append({runtime: build(model, images) for runtime, build in RUNTIMES.items()})
    for runtime in RUNTIMES:
        times: list[list[float]] = [[] for _ in rows]
        for i in tqdm(range(rounds + 2), desc=f"{network}, {runtime}"):  # the first two warm up
            for forward, row_times in zip(forwards, times, strict=True):  # in turn, so that a slower machine slows all
                taken = seconds(forward[runtime])
                row_times += [taken] * (i >= 2)
        for row, row_times in zip(rows, times, strict=True):
            row[f"{runtime}, ms"] = 1e3 * statistics.median(row_times)
            row[runtime] = statistics.median(taken / full for taken, full in zip(row_times, times[0], strict=True))
    return rows


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    full = rows[0]
    cells = [
        {
            "method": row["method"],
            "setting": row["setting"],
            "GFLOPs": f"{row['gflops']:.2f}",
            "FLOPs": f"{row['gflops'] / full['gflops']:.2f}",
            **{f"latency, {runtime}": f"{row[runtime]:.2f}" for runtime in RUNTIMES},
        }
        for row in rows
    ]
    return tabulate(cells, headers="keys", tablefmt="github", disable_numparse=True)


def plot(measured: dict[str, list[dict]]) -> Figure:
    """Latency against FLOPs, relative to the full size: one panel for each runtime, one line a network and method."""
    figure = new_figure(10, 5)
    panels = figure.subplots(1, len(RUNTIMES), sharex=True, sharey=True)
    for runtime, axes in zip(RUNTIMES, panels, strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="latency = FLOPs")
        lines = dict.fromkeys((network, row["method"]) for network, rows in measured.items() for row in rows[1:])
        for (network, method), color, marker in zip(lines, COLORS, MARKERS, strict=False):
            full, *others = measured[network]
            rows = [full, *(row for row in others if row["method"] == method)]
            points = sorted((row["gflops"] / full["gflops"], row[runtime]) for row in rows)
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=f"{network}, {method}")
        axes.set(title=runtime, xlabel="FLOPs, of those at 224 px", xlim=0, ylim=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("latency, of that at 224 px")
    panels[0].legend(frameon=False)
    return figure


def main() -> None:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="images a forward pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="forward passes of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    options = [f"--batch {arguments.batch}", f"--rounds {arguments.rounds}"]
    options += [f"--output {arguments.output}"] if arguments.output else []
    measured = {network: measure(network, arguments.batch, arguments.rounds) for network in NETWORKS}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "torchvision", "timm"))
    parts = [
        "# Latency",
        "FLOPs (`profile`) and latency, relative to the full size: medians of interleaved runs. RC is the "
        "same network on smaller images, FCR reduces the features after the first convolution.",
    ]
    if arguments.output:
        figure = arguments.output.with_suffix(".png")
        saved(plot(measured), figure)
        parts.append(f"![latency against FLOPs]({figure.name})")
    for network, rows in measured.items():
        absolute = ", ".join(f"{rows[0][f'{runtime}, ms']:.0f} ms ({runtime})" for runtime in RUNTIMES)
        parts += [f"## {network}", f"At full size {absolute}.", table(rows)]
    parts.append(
        f"`python -m benchmarks.latency {' '.join(options)}`: {torch.get_num_threads()} CPU threads, "
        f"{platform.machine()}, {versions}."
    )
    publish(parts, arguments.output)


if __name__ == "__main__":
    main()

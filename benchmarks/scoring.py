"""What scoring a network costs, for every criterion here and for those of Torch-Pruning, in plain forward passes.

``python -m benchmarks.scoring`` prints a table; ``--output FILE`` also writes it.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch_pruning as tp
from tabulate import tabulate
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torchvision.models import resnet50
from tqdm import tqdm

import torchprune_spatial
from benchmarks import publish, seconds
from recipes.networks.unet import ResUNet

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Method:
    """One way to look at calibration data.

    Attributes:
        run: passes over the batches once, with a network and its dependency graph.
        images: number of images that it is timed on; the plain forward pass beside it sees the same images.
        limits: the bounds of this project on time and on peak memory.
    """

    run: Callable[[tp.DependencyGraph, Batches], None]
    images: int | None = None
    limits: tuple[float | None, float | None] = (None, None)


@torch.no_grad()
def plain_forward(graph: tp.DependencyGraph, batches: Batches) -> None:
    """The pass that all others are compared with."""
    for images, _ in batches:
        graph.model(images)


def measured(*criteria: Callable) -> Callable[[tp.DependencyGraph, Batches], None]:
    """The pass over the data that these criteria share."""

    def run(graph: tp.DependencyGraph, batches: Batches) -> None:
        calibration = torchprune_spatial.Calibration(batches)
        importances = [criterion(calibration) for criterion in criteria]
        calibration.statistics(graph, [needed for one in importances for needed in one.measurements()])

    return run


@torch.no_grad()
def activation_importance(graph: tp.DependencyGraph, batches: Batches) -> None:
    """Torch-Pruning's activation importance, which keeps the last batch."""
    with tp.importance.ActivationImportance().compute_importance(graph.model):
        for images, _ in batches:
            graph.model(images)
    for module in graph.model.modules():
        if hasattr(module, "_importance"):
            del module._importance


@torch.no_grad()
def storing_all_activations(graph: tp.DependencyGraph, batches: Batches) -> None:
    """Keep the input of every convolution, to look at it afterwards."""
    stored, layers = [], [m for m in graph.model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hook = layer.register_forward_pre_hook(lambda layer, args: stored.append(args[0].clone()))
            hooks.callback(hook.remove)
        for images, _ in batches:
            graph.model(images)
    for x in stored:
        x.abs().mean()


def taylor(graph: tp.DependencyGraph, batches: Batches) -> None:
    """Torch-Pruning's Taylor importance, with the backward passes that it leaves to the user."""
    for images, targets in batches:
        _losses(graph.model, images, targets).mean().backward()
    graph.model.zero_grad()


def hessian(graph: tp.DependencyGraph, batches: Batches) -> None:
    """Torch-Pruning's Hessian importance, with a backward pass for each image."""
    importance = tp.importance.GroupHessianImportance()
    for images, targets in batches:
        for loss in _losses(graph.model, images, targets):
            graph.model.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(graph.model)
    graph.model.zero_grad()


def _losses(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    outputs = model(images)
    return (outputs - (targets if outputs.shape == targets.shape else 0)).square().flatten(1).mean(1)


_ours = tp.importance
METHODS = {
    "spatial mask": Method(measured(_ours.SpatialMaskImportance), limits=(1.15, 1.10)),
    "spatial mask, interpolative": Method(measured(_ours.InterpolativeImportance), limits=(1.15, None)),
    "mean activation": Method(measured(_ours.MeanActivationImportance)),
    "APoZ": Method(measured(_ours.APoZImportance)),
    "ThiNet": Method(measured(_ours.ThiNetImportance)),
    "all four together": Method(
        measured(
            _ours.SpatialMaskImportance, _ours.MeanActivationImportance, _ours.APoZImportance, _ours.ThiNetImportance
        ),
        limits=(1.5, None),
    ),
    "ActivationImportance (Torch-Pruning)": Method(activation_importance),
    "storing all activations": Method(storing_all_activations),
    "Taylor (Torch-Pruning)": Method(taylor),
    "Hessian (Torch-Pruning)": Method(hessian, images=8),
}


def networks(device: str) -> dict[str, tuple[nn.Module, int, int]]:
    """Networks with their input channels and image size in pixels."""
    torch.manual_seed(0)
    return {
        "U-Net of 20 convolutions, 128 px": (ResUNet(32).to(device).eval(), 1, 128),
        "ResNet-50, 224 px": (resnet50().to(device).eval(), 3, 224),
    }


def calibration_batches(channels: int, size: int, images: int, batch: int, device: str) -> Batches:
    """Random images; the targets hold a bright square."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(images, channels, size, size, generator=generator)
    targets = torch.zeros(images, 1, size, size)
    targets[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    return [(x.to(device), t.to(device)) for x, t in zip(inputs.split(batch), targets.split(batch), strict=True)]


def peak_bytes(run: Callable[[], None], held: int, device: str) -> int:
    """Largest sum of the tensors that exist at one time: those held before (weights, data) and those made in the call.

    On the CPU it comes from the allocations that the profiler sees, which leave out scratch memory of the kernels.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = held
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def compare(network: str, images: int, batch: int, rounds: int, device: str) -> list[dict]:
    """One row for each method: median time ratio and peak memory ratio, with their limits."""
    model, channels, size = networks(device)[network]
    batches = calibration_batches(channels, size, images, batch, device)
    graph = tp.DependencyGraph().build_dependency(model, batches[0][0][:1])
    model.eval()
    held = sum(t.nbytes for t in [*model.parameters(), *model.buffers(), *(t for pair in batches for t in pair)])
    plain_forward(graph, batches[:1])
    plain_peak = peak_bytes(lambda: plain_forward(graph, batches), held, device)
    rows = []
    for name, method in tqdm(METHODS.items(), desc=network):
        some = batches[: max(1, (method.images or images) // batch)]
        ratios = []
        for _ in range(rounds):  # in turn, so that a machine that slows down slows both
            plain = seconds(lambda some=some: plain_forward(graph, some))
            ratios.append(seconds(lambda some=some, run=method.run: run(graph, some)) / plain)
        peak = peak_bytes(lambda some=some, run=method.run: run(graph, some), held, device)
        time_limit, memory_limit = method.limits
        rows.append(
            {
                "pass over the data": name,
                "time": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                "limit": "" if time_limit is None else f"{time_limit:g}",
                "peak memory": f"{peak / plain_peak:.2f}",
                "limit ": "" if memory_limit is None else f"{memory_limit:g}",
            }
        )
    return rows


def main() -> None:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="calibration images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="batch size (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs a method (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = [f"--images {arguments.images}", f"--batch {arguments.batch}", f"--rounds {arguments.rounds}"]
    options += [f"--output {arguments.output}"] if arguments.output else []
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch-pruning", "torchprune-spatial"))
    parts = [
        "# Cost of scoring",
        "Time and peak memory are relative to plain forward passes over the same images; time is the median of paired "
        "runs, with their range. Peak memory includes the weights and the calibration images. The limits are the "
        "project's own.",
    ]
    for network in networks("cpu"):
        rows = compare(network, arguments.images, arguments.batch, arguments.rounds, device)
        parts += [f"## {network}", tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)]
    parts.append(f"`python -m benchmarks.scoring {' '.join(options)}`: {hardware}, {platform.machine()}, {versions}.")
    publish(parts, arguments.output)


if __name__ == "__main__":
    main()

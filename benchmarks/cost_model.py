"""What counting a network's cost takes, and how far off it is: `profile` beside fvcore and torch's FlopCounterMode.

``python -m benchmarks.cost_model`` prints two tables; ``--output FILE`` also writes them. Needs fvcore, timm and
torchvision.
"""

from __future__ import annotations

import argparse
import functools
import logging
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from tabulate import tabulate
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model
from tqdm import tqdm

from benchmarks import publish, seconds
from recipes.networks.unet import ResUNet
from resolution_scaling.cost.profiling import profile

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float | None]] = {
    "ResNet-50": (lambda: get_model("resnet50"), (1, 3, 224, 224), 4.089),
    "DenseNet-121": (lambda: get_model("densenet121"), (1, 3, 224, 224), 2.834),
    "MobileNetV2": (lambda: get_model("mobilenet_v2"), (1, 3, 224, 224), 0.301),
    "EfficientNet-B0": (lambda: get_model("efficientnet_b0"), (1, 3, 224, 224), 0.386),
    "ConvNeXt-T": (lambda: get_model("convnext_tiny"), (1, 3, 224, 224), 4.456),
    "ViT-B/16 (torchvision)": (lambda: get_model("vit_b_16"), (1, 3, 224, 224), 17.564),
    "ViT-S/16 (timm)": (lambda: timm.create_model("vit_small_patch16_224"), (1, 3, 224, 224), 4.61),
    "Swin-T": (lambda: get_model("swin_t"), (1, 3, 224, 224), 4.491),
    "DeepLabV3 (MobileNetV3)": (
        lambda: get_model("deeplabv3_mobilenet_v3_large", weights_backbone=None, aux_loss=True),
        (1, 3, 520, 520),
        10.452,
    ),
    "U-Net of 20 convolutions": (lambda: ResUNet(32), (1, 1, 256, 256), None),
}
"""Networks with their input shapes, and published GMACs: torchvision's with its weights, timm's results table."""


def ours(model: nn.Module, image: torch.Tensor) -> float:
    """GMACs by `profile`."""
    return profile(model, image).macs / 1e9


def by_fvcore(model: nn.Module, image: torch.Tensor) -> float:
    """GMACs by fvcore, which counts one FLOP a MAC."""
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return sum(analysis.by_operator()[name] for name in ("conv", "linear", "matmul", "bmm", "einsum", "addmm")) / 1e9


@torch.no_grad()
def by_flop_counter(model: nn.Module, image: torch.Tensor) -> float:
    """GMACs by torch's counter around a plain forward pass."""
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2e9


def by_flop_counter_with_gradients(model: nn.Module, image: torch.Tensor) -> float:
    """GMACs by torch's counter with gradients on, where ``nn.MultiheadAttention`` hides nothing."""
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2e9


COUNTERS = {
    "fvcore": by_fvcore,
    "FlopCounterMode": by_flop_counter,
    "FlopCounterMode, gradients on": by_flop_counter_with_gradients,
}


def allocator_peak_bytes(model: nn.Module, image: torch.Tensor, with_scratch: bool = True) -> int:
    """Bytes of input and activations at the fullest moment of a forward pass on the CPU, as its allocator shows them.

    Args:
        model: the network, in evaluation mode; it runs twice, because some networks keep tensors of the first pass.
        image: its input.
        with_scratch: whether to count memory that oneDNN's convolutions allocate and free while they run.
    """
    with torch.inference_mode():
        model(image)
        with torch_profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            model(image)
    events = list(profiler.profiler.kineto_results.events())
    convolutions = sorted(
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.name() == "aten::mkldnn_convolution"
    )
    changes: dict[float, int] = {}
    for event in events:
        if event.name() == "[memory]":
            moment = event.start_ns()
            if not with_scratch:  # all that happens in a convolution happens at its end
                moment = next((end for start, end in convolutions if start <= moment <= end), moment)
            changes.setdefault(moment, []).append(event.nbytes())
    live = peak = image.nbytes
    for moment in sorted(changes):
        steps = changes[moment] if with_scratch else [sum(changes[moment])]
        for change in steps:
            live += change
            peak = max(peak, live)
    return peak


def counting(rounds: int) -> list[dict[str, str]]:
    """One row for each network: time relative to ours, and error of the count."""
    rows = []
    for name, (build, shape, published) in tqdm(NETWORKS.items(), desc="counting"):
        torch.manual_seed(0)
        model, image = build().eval(), torch.rand(shape)
        right = by_flop_counter_with_gradients(model, image)
        times: dict[str, list[float]] = {counter: [] for counter in COUNTERS}
        own = []
        for _ in range(rounds):  # in turn, so that a machine that slows down slows all
            own.append(seconds(functools.partial(ours, model, image)))
            for counter, count in COUNTERS.items():
                times[counter].append(seconds(functools.partial(count, model, image)) / own[-1])
        row = {"network": name, "profile, ms": f"{1e3 * statistics.median(own):.0f}"}
        row |= {f"time, {counter}": f"x{statistics.median(ratios):.1f}" for counter, ratios in times.items()}
        row["error, profile"] = _percent(ours(model, image), right)
        row |= {f"error, {name}": _percent(COUNTERS[name](model, image), right) for name in list(COUNTERS)[:2]}
        row["GMACs, published"] = f"{published:g}" if published else ""
        row["GMACs, profile"] = f"{ours(model, image):.3f}"
        rows.append(row)
    return rows


def memory() -> list[dict[str, str]]:
    """One row for each network: peak of the activations, beside what the CPU's allocator shows."""
    rows = []
    for name, (build, shape, _) in tqdm(NETWORKS.items(), desc="memory"):
        torch.manual_seed(0)
        model, image = build().eval(), torch.rand(shape)
        report = profile(model, image)
        peaks = {scratch: allocator_peak_bytes(model, image, scratch) for scratch in (False, True)}
        rows.append(
            {
                "network": name,
                "peak, MB": f"{report.peak_bytes / 1e6:.2f}",
                "error, allocator without scratch of convolutions": _percent(report.peak_bytes, peaks[False]),
                "error, allocator": _percent(report.peak_bytes, peaks[True]),
            }
        )
    return rows


def _percent(value: float, right: float) -> str:
    return f"{value / right - 1:+.1%}".replace("-0.0%", "+0.0%")


def main() -> None:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that each count is done (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    options = [f"--rounds {arguments.rounds}"] + ([f"--output {arguments.output}"] if arguments.output else [])
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "fvcore", "torchvision", "timm"))
    parts = [
        "# Cost model",
        "Counting the multiply-accumulates of one forward pass of one image. Times are multiples of the time of "
        "`profile`, the median of runs by turns (that of `profile` itself is in milliseconds): the other tools run "
        "the network, `profile` only computes its shapes. Errors are relative to FlopCounterMode with gradients on, "
        "which agrees with the published counts. Only convolutions and matrix products of fvcore's count are "
        "included.",
        tabulate(counting(arguments.rounds), headers="keys", tablefmt="github", disable_numparse=True),
        "## Memory",
        "Largest sum of the activations that exist at one time, with the input, compared with the CPU's allocator in "
        "eager mode (`torch.profiler`). `profile` does not count the scratch memory of kernels. It dominates in "
        "convolutions on CPUs, where oneDNN reorders inputs, outputs and weights into blocks of its own.",
        tabulate(memory(), headers="keys", tablefmt="github", disable_numparse=True),
        f"`python -m benchmarks.cost_model {' '.join(options)}`: {torch.get_num_threads()} CPU threads, "
        f"{platform.machine()}, {versions}.",
    ]
    publish(parts, arguments.output)


if __name__ == "__main__":
    main()

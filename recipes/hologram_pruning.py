"""Pruning a hologram reconstruction network by several criteria (sections 4 and 5 of the spatial-mask paper).

One base network is trained, pruned once by each criterion at each fraction of kept filters, retrained, and judged on
test holograms: mean squared error, and loss of accuracy of a digit classifier, against compression (parameters) and
speed-up (FLOPs). Every criterion keeps the same number of filters in each layer, so that they are compared at equal
compression. Everything is written to the output folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from .hologram_experiment import CRITERIA, HologramPruning, Preset
from .hologram_report import write_report
from .holography import HologramSimulation
from .training import Hardware, Training

_SMALL_HOLOGRAMS = HologramSimulation(image_px=64, padded_px=192, upsampling=1, pixel_m=3 * 3.45e-6)
PRESETS = {
    "smoke": Preset(
        simulation=_SMALL_HOLOGRAMS,
        width=8,
        train_images=1000,
        test_images=500,
        training=Training(epochs=8, learning_rate=2e-3, batch_size=16, schedule="one_cycle"),
        retraining=Training(epochs=4, learning_rate=2e-3, batch_size=16, schedule="one_cycle"),
        classifier_epochs=3,
        keep_fractions=(0.4, 0.5, 0.7),
    ),
    "small": Preset(
        simulation=_SMALL_HOLOGRAMS,
        width=16,
        train_images=3000,
        test_images=1000,
        training=Training(epochs=12, learning_rate=2e-3, batch_size=16, schedule="one_cycle"),
        retraining=Training(epochs=4, learning_rate=1e-3, batch_size=16, schedule="one_cycle"),
        classifier_epochs=8,
        keep_fractions=(0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    ),
    "paper": Preset(
        simulation=HologramSimulation(),
        width=32,
        train_images=5000,
        test_images=1000,
        training=Training(epochs=100, learning_rate=1e-4),
        retraining=Training(epochs=10, learning_rate=1e-5),
        classifier_epochs=100,
        keep_fractions=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    ),
}


def _criterion(name: str) -> str:
    if name not in CRITERIA:
        raise argparse.ArgumentTypeError(f"unknown criterion {name!r}; choose from {', '.join(CRITERIA)}")
    return name


def _keep_fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction of kept filters; choose it between 0 and 1")
    return value


def _device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"{name!r} cannot be used here ({reason}); choose cpu or leave it out"
        ) from None
    return name


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.hologram_pruning", description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="size of the experiment (default: smoke)")
    parser.add_argument("--criteria", nargs="+", type=_criterion, default=list(CRITERIA), metavar="NAME")
    parser.add_argument(
        "--keep-fractions", nargs="+", type=_keep_fraction, metavar="F", help="kept filters (default: the preset's)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--device", type=_device, help="cpu, cuda, cuda:1, mps (default: an accelerator if there is one)"
    )
    parser.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--output", type=Path, help="folder of the results (default: results/hologram_PRESET)")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    options.keep_fractions = options.keep_fractions or preset.keep_fractions
    options.output = options.output or Path("results") / f"hologram_{options.preset}"
    if int(min(options.keep_fractions) * preset.width) < 1:
        parser.error(
            f"argument --keep-fractions: {min(options.keep_fractions):g} leaves no filter in layers of {preset.width}; "
            f"choose at least {1 / preset.width:g}"
        )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and write its report."""
    options = parse_arguments(arguments)
    options.command = "python -m recipes.hologram_pruning " + " ".join(sys.argv[1:] if arguments is None else arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(options.output / ".lock", timeout=0):  # the system lets go of it, also after a kill
            _run(options)
    except Timeout:
        sys.exit(f"error: --output: another run is writing to {options.output}; wait for it or choose another folder")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; the same command goes on from {options.output}")


def _run(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    hardware = Hardware(options.device, options.mixed_precision)
    try:
        experiment = HologramPruning(PRESETS[options.preset], options.seed, hardware, options.output)
    except ValueError as error:
        sys.exit(f"error: {error}")
    results = experiment.run(options.criteria, options.keep_fractions)
    files = write_report(experiment, results, options.command, time.perf_counter() - start)
    print(results.drop(columns=["channels", "seed"]).to_string(index=False, float_format="{:.4g}".format))
    print("\nwritten:", *files, sep="\n  ")


if __name__ == "__main__":
    main()

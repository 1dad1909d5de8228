"""What the command lines of the recipes share."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import Timeout

from .training import Hardware, SittingOver


def device(name: str) -> str:
    """Of an argument: a device that can be used here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"{name!r} cannot be used here ({reason}); choose cpu or leave it out"
        ) from None
    return name


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Of an argument: a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = kind.__name__  # for argparse's own text
    return parse


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--mixed-precision``, ``--workers`` and ``--minutes``; see `hardware_of`."""
    parser.add_argument(
        "--device", type=device, help="cpu, cuda, cuda:1, mps (default: an accelerator if there is one)"
    )
    parser.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images (default: %(default)s)")
    parser.add_argument(
        "--minutes",
        type=positive(float),
        metavar="M",
        help=f"stop after these, with exit code {os.EX_TEMPFAIL}; the same command goes on another time",
    )


def hardware_of(options: argparse.Namespace) -> Hardware:
    """What `add_hardware_options` asked for."""
    return Hardware(options.device, options.mixed_precision, options.workers, options.minutes)


@contextlib.contextmanager
def refusing(argument: str = "") -> Iterator[None]:
    """Exit with the text of a ValueError or FileNotFoundError: for what is checked before a run, not for the run.

    Args:
        argument: to name, where the text does not.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {argument}{': ' * bool(argument)}{error}")


def command_of(parser: argparse.ArgumentParser, arguments: list[str] | None) -> str:
    """The command as it was given, for reports."""
    return " ".join([parser.prog, *(sys.argv[1:] if arguments is None else arguments)])


@contextlib.contextmanager
def ending_in_words(output: Path) -> Iterator[None]:
    """Exit with a sentence that says what to do, if another run is at it, or this one is stopped or over for now."""
    try:
        yield
    except Timeout:
        sys.exit(f"error: --output: another run is writing to {output}; wait for it or choose another folder")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; the same command goes on from {output}")
    except SittingOver as over:
        print(f"{over}; the same command goes on from {output}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)

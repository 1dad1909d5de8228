"""What the command lines of the recipes share."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .training import Hardware, SittingOver

Result = TypeVar("Result")
_WRITING_FAILED = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST")
    if hasattr(errno, name)
}


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
    """Make the folder; exit with a sentence that says what to do where the run cannot go on.

    That is: another run is at it, or this one is stopped, over for now, or cannot write.

    Args:
        output: folder.
    """
    going_on = f"the same command goes on from {output}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield
    except Timeout:
        sys.exit(f"error: --output: another run is writing to {output}; wait for it or choose another folder")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; {going_on}")
    except SittingOver as over:
        print(f"{over}; {going_on}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except (OSError, RuntimeError, SafetensorError, sqlite3.OperationalError) as error:
        if not _says_that_writing_failed(error):
            raise
        sys.exit(
            f"error: --output: cannot write to {output}: {error}. Make room there, or choose another folder; what it "
            f"holds is whole, and {going_on}"
        )


def _says_that_writing_failed(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _WRITING_FAILED
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)
    return isinstance(error, sqlite3.OperationalError) or "inline_container" in str(error)  # NNI's files; torch's


def run_what_is_free(output: Path, jobs: Mapping[str, Callable[[Path], Result]]) -> list[Result]:
    """Do the jobs, each in a folder of its own, but those that another process is at: so processes share them.

    Args:
        output: folder of the folders.
        jobs: by folder, what is called with it.

    Returns:
        The results of all. If others were at some, the process exits with a sentence that says so.
    """
    results, busy = [], []
    for name, job in jobs.items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):  # the system lets go of it, also after a kill
                results.append(job(folder))
        except Timeout:
            busy.append(name)
    if busy:
        sys.exit(
            f"another run is at {', '.join(busy)} of {output}; when it has ended, the same command makes the report of "
            "all"
        )
    return results


def show_report(output: Path, files: Iterable[Path]) -> None:
    """Print the report, and where the files are."""
    print((output / "report.md").read_text())
    print("written:", *files, sep="\n  ")


def classification_arguments(
    recipe: str, short: str, description: str, presets: Mapping[str, Any], arguments: list[str] | None
) -> argparse.Namespace:
    """The command line of a recipe that trains image classifiers.

    Args:
        recipe: its module.
        short: for the folder of the results.
        description: its docstring.
        presets: by name.
        arguments: those given; None for the process's own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m recipes.{recipe}", description=description.split("\n\n")[0])
    parser.add_argument("--preset", choices=presets, default="smoke", help="size of the experiment (default: smoke)")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with train and val, each of a folder a class, or of Fashion-MNIST "
        "(default: Fashion-MNIST where it is installed, else the embedded digits)",
    )
    parser.add_argument("--seeds", type=positive(int), metavar="N", help="repetitions (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first one's (default: %(default)s)")
    add_hardware_options(parser)
    parser.add_argument("--output", type=Path, help=f"folder of the results (default: results/{short}_PRESET)")
    options = parser.parse_args(arguments)
    if options.preset == "paper" and options.data is None:
        parser.error("argument --preset: paper needs --data, a folder with ImageNet's train and val")
    options.output = options.output or Path("results") / f"{short}_{options.preset}"
    options.command = command_of(parser, arguments)
    return options

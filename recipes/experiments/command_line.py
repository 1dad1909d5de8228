"""What the command lines of the recipes share."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
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
_IMPORTED: set[Path] = set()


def device(name: str) -> str:
    """Check an argument that names a device."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"{name!r} cannot be used here ({reason}); choose cpu or leave it out"
        ) from None
    return name


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """The type of an argument that is a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = kind.__name__  # for argparse's own text
    return parse


def recipe_parser(recipe: str, short: str, description: str, presets: Mapping[str, Any]) -> argparse.ArgumentParser:
    """A parser of ``--preset`` and ``--output``, to which a recipe adds its own options; see `parse`.

    Args:
        recipe: the name of its module.
        short: the first part of the name of its folder of results.
        description: its docstring; ``--help`` shows the first paragraph.
        presets: by name.
    """
    parser = argparse.ArgumentParser(prog=f"python -m recipes.{recipe}", description=description.split("\n\n")[0])
    parser.add_argument("--preset", choices=presets, default="smoke", help="size of the experiment (default: smoke)")
    parser.add_argument("--output", type=Path, help=f"folder of the results (default: results/{short}_PRESET)")
    parser.set_defaults(short=short)
    return parser


def parse(
    parser: argparse.ArgumentParser,
    arguments: list[str] | None,
    presets: Mapping[str, Any],
    from_preset: Iterable[str] = (),
) -> argparse.Namespace:
    """Parse a command line of `recipe_parser`.

    Args:
        parser: with all its options.
        arguments: those given; None for the process's own.
        presets: by name.
        from_preset: options whose default is the field of the same name in the preset.

    Returns:
        The options; ``command`` holds the command as it was given.
    """
    options = parser.parse_args(arguments)
    for name in from_preset:
        if getattr(options, name) is None:
            setattr(options, name, getattr(presets[options.preset], name))
    options.output = options.output or Path("results") / f"{options.short}_{options.preset}"
    options.command = command_of(parser, arguments)
    return options


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--mixed-precision``, ``--workers`` and ``--minutes``; see `hardware_of`."""
    parser.add_argument(
        "--device", type=device, help="cpu, cuda, cuda:1, mps (default: an accelerator if there is one)"
    )
    parser.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images (default: %(default)s)")
    parser.add_argument(
        "--minutes",
        type=positive(float),
        metavar="M",
        help=f"stop after M minutes, with exit code {os.EX_TEMPFAIL}; the same command continues later",
    )


def hardware_of(options: argparse.Namespace) -> Hardware:
    """The hardware that the options of `add_hardware_options` ask for."""
    return Hardware(options.device, options.mixed_precision, options.workers, options.minutes)


def add_import_option(parser: argparse.ArgumentParser, registered: str) -> None:
    """Add ``--import FILE ...``; see `import_own_files`.

    Args:
        parser: to add it to.
        registered: what such files may register, in words.
    """
    parser.add_argument(
        "--import", nargs="+", dest="own_files", default=[], metavar="FILE", help=f"Python files with {registered}"
    )


def import_own_files(arguments: list[str] | None) -> None:
    """Import the user's files that ``--import`` names, so that other options can name what these files register."""
    early = argparse.ArgumentParser(add_help=False)
    add_import_option(early, "")
    for name in early.parse_known_args(arguments)[0].own_files:
        file = Path(name).resolve()
        if not file.is_file():
            sys.exit(f"error: argument --import: {name} is not a file")
        if file not in _IMPORTED:
            spec = importlib.util.spec_from_file_location(f"recipes_own_{file.stem}", file)
            if spec is None:
                sys.exit(f"error: argument --import: {name} is not a Python file; its name must end in .py")
            sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            _IMPORTED.add(file)


@contextlib.contextmanager
def refusing(argument: str = "") -> Iterator[None]:
    """Exit with the text of a ValueError or FileNotFoundError. This is for checks before a run, not for the run.

    Args:
        argument: the argument to name in front of the text, if the text does not name it.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {argument}{': ' * bool(argument)}{error}")


def command_of(parser: argparse.ArgumentParser, arguments: list[str] | None) -> str:
    """The command that was given, for reports."""
    return " ".join([parser.prog, *(sys.argv[1:] if arguments is None else arguments)])


@contextlib.contextmanager
def explaining_exits(output: Path) -> Iterator[None]:
    """Make the folder; if the run cannot continue, exit with a sentence that says why and what to do.

    A run cannot continue if another run is writing to the folder, if it is interrupted, if its time is up, or if it
    cannot write.

    Args:
        output: the folder of the results.
    """
    remedy = f"the same command continues from {output}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield
    except Timeout:
        sys.exit(f"error: --output: another run is writing to {output}; wait for it or choose another folder")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; {remedy}")
    except SittingOver as over:
        print(f"{over}; {remedy}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except (OSError, RuntimeError, SafetensorError, sqlite3.OperationalError) as error:
        if not _says_that_writing_failed(error):
            raise
        sys.exit(
            f"error: --output: cannot write to {output}: {error}. Make room there, or choose another folder; its "
            f"files are whole, and {remedy}"
        )


def _says_that_writing_failed(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _WRITING_FAILED
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)
    return isinstance(error, sqlite3.OperationalError) or "inline_container" in str(error)  # NNI's files; torch's


def run_free_jobs(output: Path, jobs: Mapping[str, Callable[[Path], Result]]) -> list[Result]:
    """Do the jobs, each in a folder of its own. Jobs that another process is doing are left to it.

    Args:
        output: folder of the folders.
        jobs: by the name of the folder, a function that is called with its path.

    Returns:
        The results of all jobs. If other processes were doing some, this process exits with a sentence that says so.
    """
    results, busy = [], []
    for name, job in jobs.items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):  # the system releases it, also after a kill
                results.append(job(folder))
        except Timeout:
            busy.append(name)
    if busy:
        sys.exit(
            f"another run is writing to {', '.join(busy)} in {output}; when it has ended, give the same command again "
            "for the report"
        )
    return results


def show_report(output: Path, files: Iterable[Path]) -> None:
    """Print the report and the paths of the files."""
    print((output / "report.md").read_text())
    print("written:", *files, sep="\n  ")

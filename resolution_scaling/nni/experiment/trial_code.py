"""How the process of a trial finds the user's class: its name, and the directory from which it is imported."""

from __future__ import annotations

import inspect
import subprocess
import sysconfig
from pathlib import Path
from typing import Any


def code_directory_of(module_class: Any) -> Path:
    """The directory from which a class can be imported under the name of its module."""
    file, module_name = _file_of(module_class), module_class.__module__
    levels = module_name.count(".") + (file.name == "__init__.py")
    return file.parents[levels]


def import_path(module_class: Any, code_directory: Path) -> str:
    """The name ``package.module:Class`` under which a trial can import a class.

    Args:
        module_class: a class, or a function, of a file in the directory or of an installed package.
        code_directory: the trial code directory of NNI's configuration.

    Raises:
        TypeError: it is no class or function.
        ValueError: trials could not import it: it is defined in the script that is run, in a function, or elsewhere.
    """
    name = getattr(module_class, "__name__", repr(module_class))
    if not inspect.isclass(module_class) and not inspect.isfunction(module_class):
        raise TypeError(f"{module_class!r} is no class: pass the class itself, which trials import by its name")
    qualified = module_class.__qualname__
    if "<locals>" in qualified or "<lambda>" in qualified:
        raise ValueError(
            f"{qualified} is defined inside a function, where trials cannot find it: move it to the module"
        )
    if module_class.__module__ == "__main__":
        raise ValueError(
            f"{name} is defined in the script that is run, which trials cannot import: move it to a file of its own "
            "in the trial code directory, and import it from there"
        )
    file = _file_of(module_class)
    directory = code_directory.resolve()
    if file.is_relative_to(directory) and not _is_installed(file):
        relative = file.relative_to(directory).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        if not all(part.isidentifier() for part in parts):
            raise ValueError(
                f"{file} of {name} cannot be imported: its path below {directory} is not the name of a module"
            )
        module_name = ".".join(parts)
    elif _is_installed(file) or _is_of_this_library(module_class):
        module_name = module_class.__module__
    else:
        raise ValueError(
            f"{name} is defined in {file}, which is not in the trial code directory {directory}: move it there, or set "
            "trial_code_directory of the configuration to a directory that holds it"
        )
    return f"{module_name}:{qualified}"


def check_imports(command: list[str], code_directory: Path, timeout_s: float = 300.0) -> None:
    """Import what trials will import in a process of its own, before the experiment starts.

    Args:
        command: the command of a trial, as a list.
        code_directory: the directory in which it is run.
        timeout_s: how long the imports may take, seconds.

    Raises:
        ImportError: an import failed; the message has the end of the traceback.
    """
    done = subprocess.run(
        [*command, "--check"], cwd=code_directory, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise ImportError(f"trials could not import their code from {code_directory}:\n{done.stderr.strip()[-2000:]}")


def _file_of(module_class: Any) -> Path:
    try:
        return Path(inspect.getfile(module_class)).resolve()
    except (TypeError, OSError):
        name = getattr(module_class, "__name__", repr(module_class))
        raise ValueError(f"{name} is not defined in a file: trials import it from one") from None


def _is_installed(file: Path) -> bool:
    return any(file.is_relative_to(Path(sysconfig.get_path(kind)).resolve()) for kind in ("purelib", "platlib"))


def _is_of_this_library(module_class: Any) -> bool:
    """True also where the library is installed as a link to a checkout."""
    return module_class.__module__.partition(".")[0] in ("resolution_scaling", "torchprune_spatial")

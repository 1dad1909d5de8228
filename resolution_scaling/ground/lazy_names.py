"""Names of a package that are imported on first use, because they need a library that may be missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str], needs: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module (PEP 562) that imports names when they are first used.

    Args:
        package: the ``__name__`` of the module.
        homes: the module that defines each name, relative to the package, such as ``".steps.step"``.
        needs: the library that the names need, for the message of the ImportError.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(homes[name], package), name)
        except ImportError as error:
            raise ImportError(f"{name} needs {needs}: {error}") from error

    return get

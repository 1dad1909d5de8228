"""Names of a package that are imported when they are first used, because they need a host that may be missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str], needs: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562).

    Args:
        package: the ``__name__`` of the module.
        homes: the file that holds each name, relative to the package, such as ``".steps.step"``.
        needs: what the ImportError says that the names need.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(homes[name], package), name)
        except ImportError as error:
            raise ImportError(f"{name} needs {needs}: {error}") from error

    return get

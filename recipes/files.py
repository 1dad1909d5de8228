"""Writing files so that a kill leaves the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path beside the file to write to; it takes the file's place by one rename when all went well."""
    partial = file.with_name(file.name + ".partial")
    yield partial
    os.replace(partial, file)

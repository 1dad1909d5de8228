"""Writing files so that a reader, or the next run, finds the old file or the new one and never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside a file to write to; it takes the file's place by one rename at the end.

    After an exception the file is as it was, and nothing lies beside it.

    Args:
        path: the file, in a folder that exists. The path that is given ends in ``.partial``: writers that choose a
            format by the ending must be given the format.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> with replacing("results.json") as partial:
        ...     partial.write_text(json.dumps(results))
    """
    file = Path(path)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")  # two processes may write the same file
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)

"""Writing files atomically: a reader, or the next run, finds the old file or the new one, never a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end, one rename replaces the file by what was written.

    After an exception, the file is unchanged, and the temporary file is deleted.

    Args:
        path: the file, in an existing folder. The temporary path ends in ``.partial``, so a writer that would choose
            the format by the ending must be told the format.

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

"""Progress bars of long work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")

_shown: ContextVar[bool] = ContextVar("progress bars are shown", default=True)


def progress(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """Iterate with a bar on stderr.

    There is none where stderr is not a terminal, under `showing_progress` of False, or with ``TQDM_DISABLE=1`` in the
    environment.

    Args:
        items: what to iterate over.
        description: what is done, in front of the bar.
        total: the number of items, where ``len(items)`` does not give it.
    """
    return iter(tqdm(items, description, total, leave=False, disable=None if _shown.get() else True))


@contextmanager
def showing_progress(shown: bool) -> Iterator[None]:
    """Inside, whether `progress` shows bars. An outer False holds."""
    token = _shown.set(_shown.get() and shown)
    try:
        yield
    finally:
        _shown.reset(token)

"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")

_shown: ContextVar[bool] = ContextVar("progress bars are shown", default=True)


def progress(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """Iterate with a progress bar on stderr.

    No bar is shown if stderr is not a terminal, inside ``showing_progress(False)``, or if the environment has
    ``TQDM_DISABLE=1``.

    Args:
        items: the items to iterate over.
        description: the text in front of the bar.
        total: the number of items, if ``len(items)`` does not work.
    """
    return iter(tqdm(items, description, total, leave=False, disable=None if _shown.get() else True))


@contextmanager
def counting(description: str) -> Iterator[Callable[[], object]]:
    """A context with a counter on stderr, for work of unknown length; it is hidden where `progress` hides its bars.

    Yields:
        A function to call whenever one more piece of work is done.
    """
    with tqdm(desc=description, leave=False, disable=None if _shown.get() else True) as bar:
        yield bar.update


@contextmanager
def showing_progress(shown: bool) -> Iterator[None]:
    """A context that sets whether `progress` shows bars. Inside a context with False, it remains False."""
    token = _shown.set(_shown.get() and shown)
    try:
        yield
    finally:
        _shown.reset(token)

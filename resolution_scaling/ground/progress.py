"""Progress bars of long work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], description: str, *, total: int | None = None, shown: bool = True
) -> Iterator[Item]:
    """Iterate with a bar on stderr; silent where that is not a terminal, or with ``TQDM_DISABLE=1`` in the environment.

    Args:
        items: what to iterate over.
        description: what is done, in front of the bar.
        total: the number of items, where ``len(items)`` does not give it.
        shown: False for no bar.
    """
    return iter(tqdm(items, description, total, leave=False, disable=None if shown else True))

"""The channels that each layer keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..record.pruning_record import PruningRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_kept_channels(record: PruningRecord, path: str | os.PathLike[str] | None = None) -> Figure:
    """Bars of the output channels that each layer had and keeps, see `PruningRecord.plot`."""
    return record.plot(path)

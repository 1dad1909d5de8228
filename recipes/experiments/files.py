"""Writing files so that a kill leaves the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS_FILE = "settings.json"


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path beside the file to write to; it takes the file's place by one rename when all went well."""
    partial = file.with_name(file.name + ".partial")
    try:
        yield partial
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def save_figures(folder: Path, figures: Mapping[str, Figure], **options: Any) -> None:
    """Save figures as PNG files of these names; ``options`` are those of ``savefig``."""
    for name, figure in figures.items():
        with replacing(folder / name) as partial:
            figure.savefig(partial, format="png", **options)


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Remember what was asked for, so that a folder never mixes two experiments.

    Args:
        folder: of the results.
        settings: such as JSON can hold.

    Raises:
        ValueError: the folder holds a run with other settings; the text names them.
    """
    settings, file = json.loads(json.dumps(settings)), folder / SETTINGS_FILE
    if not file.exists():
        with replacing(file) as partial:
            partial.write_text(json.dumps(settings, indent=1))
    elif (found := json.loads(file.read_text())) != settings:
        changed = ", ".join(sorted(key for key in settings if found.get(key) != settings[key]))
        raise ValueError(
            f"--output: {folder} holds a run with other settings ({changed}); choose another folder or delete it"
        )

"""Files of results, written so that a kill leaves the old file or the new one, never a part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resolution_scaling.ground.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

SETTINGS_FILE = "settings.json"


def save_figures(folder: Path, figures: Mapping[str, Figure], **options: Any) -> None:
    """Save figures as PNG files.

    Args:
        folder: where to.
        figures: by the name of the file.
        options: those of matplotlib's ``savefig``.
    """
    for name, figure in figures.items():
        with replacing(folder / name) as partial:
            figure.savefig(partial, format="png", **options)


def save_report(
    folder: Path, text: str, figures: Mapping[str, Figure], results: DataFrame | None = None, **options: Any
) -> list[Path]:
    """Save ``report.md``, its figures and ``results.csv``; return their paths.

    Args:
        folder: where to.
        text: of the report, in Markdown.
        figures: by the name of the file.
        results: the rows; None if the folder has its ``results.csv`` already.
        options: those of matplotlib's ``savefig``.
    """
    save_figures(folder, figures, **options)
    if results is not None:
        with replacing(folder / "results.csv") as partial:
            results.to_csv(partial, index=False)
    with replacing(folder / "report.md") as partial:
        partial.write_text(text)
    return [folder / name for name in ("results.csv", "report.md", *figures)]


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of an experiment into its folder, so that a folder never mixes two experiments.

    Args:
        folder: of the results.
        settings: values that JSON can hold.

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

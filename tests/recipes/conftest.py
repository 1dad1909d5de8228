"""What the tests of several recipes use."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved during the test, by the name of their file; each file must hold a picture."""
    figures, savefig = {}, Figure.savefig

    def save(figure, path, *arguments, **options):
        savefig(figure, path, *arguments, **options)
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20, f"{path} is blank"
        name = re.sub(r"(\.\d+)?\.partial$", "", Path(path).name)  # files are written under such a name, then renamed
        figures[name] = figure

    monkeypatch.setattr(Figure, "savefig", save)
    return figures

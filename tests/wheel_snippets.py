"""Runs README's snippets with what is installed, and nothing else: see `make package`.

    cd elsewhere && environment/bin/python -I tests/wheel_snippets.py README.md

Not those of NNI, which are extras; where matplotlib is not installed, plotting has to say so.
"""

import ast
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import torch
import torch_pruning as tp
from torch import nn

import resolution_scaling
import torchprune_spatial


class Network(nn.Module):
    """Images of three channels to maps of one, with a residual addition."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2))
        self.inner = nn.Sequential(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 48, 3, padding=1))
        self.decoder = nn.Sequential(nn.Conv2d(48, 32, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2))
        self.output = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, x):
        x = self.encoder(x)
        return self.output(self.decoder(x + self.inner(x)))


def presupposed() -> dict:
    """What the text around the snippets presupposes, made anew for each."""
    images = torch.rand(16, 3, 32, 32)
    targets = (images.mean(1, keepdim=True) > 0.5).float()
    loader = list(zip(images.split(8), targets.split(8), strict=True))
    names = {"Network": Network, "model": Network(), "loader": loader, "example_inputs": images[:1]}
    importance = tp.importance.SpatialMaskImportance(loader)
    return names | {"importance": importance, "tp": tp, "torchprune_spatial": torchprune_spatial}


def run(block: str) -> None:
    """One snippet, statement by statement; those that plot may raise the error that asks for matplotlib."""
    names = presupposed()
    for statement in ast.parse(block).body:
        try:
            exec(compile(ast.Module([statement], []), "README.md", "exec"), names)
        except ImportError as error:
            if "pip install matplotlib" not in str(error):
                raise


if __name__ == "__main__":
    for package in (torchprune_spatial, resolution_scaling):
        assert "site-packages" in package.__file__, f"{package.__file__} is not what was installed"
        assert (Path(package.__file__).parent / "py.typed").exists()
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if ".nni import" not in block]
    assert len(blocks) >= 7, f"found {len(blocks)} snippets"
    for block in blocks:
        run(block)
    print(f"{distribution('torchprune-spatial').version}: {len(blocks)} snippets ran with torch {torch.__version__}")

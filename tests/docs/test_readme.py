"""The snippets of the README run, each on a network and data as its text presupposes them."""

import re

import pytest
import torch
import torch_pruning as tp
from torch import nn

import torchprune_spatial

from .pages import DOCS, ROOT, python_blocks, read

BLOCKS = [str(block.parsed) for block in python_blocks(read(ROOT / "README.md"))]


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
    images = torch.rand(16, 3, 32, 32)
    loader = list(zip(images.split(8), (images.mean(1, keepdim=True) > 0.5).float().split(8), strict=True))
    return {
        "Network": Network,
        "model": Network(),
        "example_inputs": images[:1],
        "image": images[:1],
        "loader": loader,
        "importance": tp.importance.SpatialMaskImportance(loader),
        "config_list": [{"op_types": ["Conv2d"], "exclude_op_names": ["output"], "compression": 4}],
        "tp": tp,
        "torchprune_spatial": torchprune_spatial,
    }


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: BLOCKS[number].strip().splitlines()[0][:50])
def test_snippet_runs(number, tmp_path, monkeypatch):
    if re.search(r"^from \w+\.nni ", BLOCKS[number], re.MULTILINE):
        pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "README.md", "exec"), presupposed())


def test_links_lead_to_files_and_pages():
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    here = [link for link in links if "://" not in link]
    assert len(here) > 10
    for link in here:
        assert (ROOT / link).is_file(), link
    pages = {path for path in DOCS.rglob("*") if path.suffix in (".md", ".png", ".csv")}
    for link in here:
        assert not link.startswith("docs/") or ROOT / link in pages, f"{link} is not on the site"

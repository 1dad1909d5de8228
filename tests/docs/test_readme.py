"""The snippets of the README run, each on a network and data as its text presupposes them."""

import re

import pytest
import torch

from tests.wheel_snippets import presupposed

from .pages import DOCS, ROOT, python_blocks, read

BLOCKS = [str(block.parsed) for block in python_blocks(read(ROOT / "README.md"))]


def names_of_nni() -> dict:
    """What the text around the snippets of NNI presupposes besides."""
    config_list = [{"op_types": ["Conv2d"], "exclude_op_names": ["output"], "compression": 4}]
    return {"image": torch.rand(1, 3, 32, 32), "config_list": config_list}


@pytest.mark.filterwarnings("ignore:.*outputs of the network")
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: BLOCKS[number].strip().splitlines()[0][:50])
def test_snippet_runs(number, tmp_path, monkeypatch):
    if re.search(r"^from \w+\.nni ", BLOCKS[number], re.MULTILINE):
        pytest.importorskip("nni.compression.base", reason="needs NNI 3.0 (extra nni3)")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "README.md", "exec"), presupposed() | names_of_nni())


def test_links_lead_to_files_and_pages():
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    here = [link for link in links if "://" not in link]
    assert len(here) > 10
    for link in here:
        assert (ROOT / link).is_file(), link
    pages = {path for path in DOCS.rglob("*") if path.suffix in (".md", ".png", ".csv")}
    for link in here:
        assert not link.startswith("docs/") or ROOT / link in pages, f"{link} is not on the site"

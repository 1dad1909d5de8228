"""Every block of Python in the guides runs, page by page, on what the page itself makes."""

import re

import pytest

from .pages import DOCS, FENCE, python_blocks, read, run

NEEDS = {
    "diffusers": "diffusers",
    "matplotlib": "matplotlib",
    "segmentation_models_pytorch": "segmentation_models_pytorch",
    "timm": "timm",
    "torchvision": "torchvision",
}
NNI_PAGES = {"nni_step.md", "nni_autocompress.md", "nni_search.md"}
"""They run in the environments of NNI: see `test_nni_pages`."""

PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if FENCE.search(path.read_text()) and path.name not in NNI_PAGES
)


def test_all_the_guides_are_found():
    assert {"index.md", "criterion.md", "counting.md"} <= set(PAGES)
    assert len([page for page in PAGES if page.startswith("guides/")]) >= 5


@pytest.mark.parametrize("page", PAGES)
def test_runs(page, tmp_path, monkeypatch):
    text = (DOCS / page).read_text()
    for package in NEEDS:
        if re.search(rf"\b{package}\b", text):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    run(DOCS / page, {})


@pytest.mark.parametrize("page", PAGES)
def test_downloads_nothing(page):
    code = "\n".join(re.sub("#.*", "", str(block.parsed)) for block in python_blocks(read(DOCS / page)))
    assert not re.findall(r"pretrained=True|from_pretrained\(|weights=\"|https?://", code)

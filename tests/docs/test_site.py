"""The site builds without a warning, and nothing on it leads nowhere (extra docs; `make docs` does the same)."""

import subprocess
import sys

import pytest

from .pages import DOCS, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def check(site):
    return subprocess.run([sys.executable, DOCS / "check_links.py", site], capture_output=True, text=True)


def test_every_page_is_in_the_navigation(site):
    home = (site / "index.html").read_text()
    for page in DOCS.rglob("*.md"):
        assert f'href="{page.relative_to(DOCS).with_suffix(".html").as_posix()}"' in home, page


def test_links_and_images_lead_somewhere(site):
    assert (checked := check(site)).returncode == 0, checked.stdout


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        for start in ('src="http', 'src="//', 'rel="stylesheet" href="http', "fonts.googleapis"):
            assert start not in text, f"{page}: {start}"


def test_a_broken_link_image_or_anchor_is_found(tmp_path):
    (tmp_path / "page.html").write_text('<h2 id="here">x</h2>')
    (tmp_path / "index.html").write_text(
        '<a href="page.html#here">right</a> <a href="https://example.org/x">elsewhere</a>'
        '<a href="page.html#there">wrong</a> <a href="#top">wrong</a> <img src="figure.png"> <a href="../out.html">'
    )
    checked = check(tmp_path)
    assert checked.returncode == 1
    broken = ["#top", "../out.html", "figure.png", "page.html#there"]
    assert checked.stdout.splitlines() == sorted(f"index.html: {reference}" for reference in broken)

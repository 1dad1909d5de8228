"""``python docs/check_links.py site``: every link and image of the built site leads somewhere.

MkDocs checks what stands in Markdown; this sees also what HTML, docstrings and templates link to.
Nothing is downloaded: links to elsewhere are left alone.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Anchors and references of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what can be linked to, and what is linked."""
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif (name == "href" and tag in ("a", "link")) or name == "src":
                self.references.append(value or "")


def broken_links(site: Path) -> list[str]:
    """``page: reference`` for each link and image that leads nowhere."""
    site = site.resolve()
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of wherever the site will be
            continue
        for reference in page.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            missing = not target.is_file() or not target.is_relative_to(site)
            if missing or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {reference}")
    return sorted(set(broken))


if __name__ == "__main__":
    found = broken_links(Path(sys.argv[1]))
    print("\n".join(found) if found else f"{sys.argv[1]}: every link and image leads somewhere")
    sys.exit(bool(found))

"""What lies outside of this folder and belongs on the site: two pages, and the examples.

Links such as ``../CONTRIBUTING.md`` are right on GitHub; here they are brought to the copies on the
site. And figures link to their files, because on a phone their print is too small where they stand.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
COPIES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COPIES |= {f"examples/{path.name}": f"examples/{path.name}" for path in ROOT.glob("examples/*.yml")}
"""Files of the repository, and where they are on the site."""
LINK = re.compile(r"\[([^]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
FIGURE = re.compile(r'<p>(<img [^>]*src="([^"]+)"[^>]*>)</p>')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the copies to the files of the site."""
    for name, copy in COPIES.items():
        files.append(File.generated(config, copy, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Bring links out of this folder to the copies; what is not on the site becomes plain text."""
    source = page.file.src_uri
    origin = {copy: name for name, copy in COPIES.items()}.get(source, f"docs/{source}")
    up = "../" * source.count("/")

    def moved(link: re.Match) -> str:
        target = (ROOT / origin).parent.joinpath(link[2]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return link[0]  # MkDocs complains
        name = target.relative_to(ROOT).as_posix()
        on_site = "index.md" if name == "README.md" else COPIES.get(name)
        if name.startswith("docs/"):
            return f"[{link[1]}]({up}{name.removeprefix('docs/')}{link[3] or ''})"
        return f"[{link[1]}]({up}{on_site}{link[3] or ''})" if on_site else link[1]

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let a figure, where it stands alone, lead to its file."""
    return FIGURE.sub(r'<p><a href="\2" title="in full size">\1</a></p>', html)

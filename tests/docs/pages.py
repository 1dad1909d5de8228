"""The pages of the site, and running the Python of one."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

FENCE = re.compile(r"^[ \t]*(?:```+[ {.]*|<!--+ *invisible-code-block: *)(?:python|py|pycon)\b", re.MULTILINE)
"""Opens a block of Python, or one that readers do not see, with what the page presupposes."""


class _Printed:
    """Runs blocks of Python, and compares blocks of text with what the last one printed."""

    def __init__(self):
        self.python, self.text = PythonEvaluator(), ""

    def run(self, example: Example) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.python(example)
        self.text = out.getvalue()

    def compare(self, example: Example) -> None:
        shown = str(example.parsed).strip()
        assert shown in self.text, f"{example.path}:{example.line} does not show what is printed:\n{self.text}"


def read(path: Path) -> Document:
    """A page with its blocks, in order; a block of Python that is not found is an error."""
    printed = _Printed()
    parsers = [CodeBlockParser("python", printed.run), CodeBlockParser("text", printed.compare)]
    document = Sybil(parsers=parsers).parse(path)
    blocks, fences = len(python_blocks(document)), len(FENCE.findall(path.read_text()))
    assert blocks == fences, f"{path.name} has {fences} blocks of Python, but {blocks} were found: mark them ```python"
    return document


def python_blocks(document: Document) -> list[Example]:
    """Those that are run."""
    return [example for example in document.examples() if example.region.lexemes["arguments"] == "python"]


def run(path: Path, names: dict[str, Any], before: Callable[[str, dict[str, Any]], None] | None = None) -> dict:
    """Run all the Python of a page in one namespace, as a reader does who copies block after block.

    A block of ``text`` has to be what the block before it printed.

    Args:
        path: the page.
        names: what its text presupposes.
        before: called before each block with its text and the namespace.

    Returns:
        The namespace.
    """
    document = read(path)
    document.namespace.update({"__name__": "__main__"} | names)
    for example in document.examples():
        if before is not None:
            before(str(example.parsed), document.namespace)
        example.evaluate()
    return document.namespace

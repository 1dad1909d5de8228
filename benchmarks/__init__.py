"""Speed and memory as ratios to a plain forward pass, measured side by side in one run."""

from pathlib import Path


def publish(parts: list[str], path: Path | None) -> None:
    """Print a page of Markdown, and write it to a file if one is given."""
    page = "\n\n".join(parts) + "\n"
    print(page)
    if path:
        path.write_text(page)

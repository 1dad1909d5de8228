"""The outcomes as a page of Markdown."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

PRUNES = "prunes"
PACKAGES = (
    "torch-pruning",
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "spandrel",
    "monai",
    "transformers",
    "diffusers",
)

HEAD = """# Conformance

{count} real networks with random weights and small images, of which half of each group of channels is removed: by
Torch-Pruning with its own dependency graph, and by Torch-Pruning with our `ChannelGraph`. Torch-Pruning alone prunes
{alone}, and {alone_right} of these compute what they should; with our graph it prunes {ours}, and {ours_right} of these
compute what they should. {halved} ({percent} %) lose at least half of their parameters.

{summary}

- **Torch-Pruning**: with its own graph, `GroupMagnitudeImportance`, the layers that produce the outputs ignored, and
  `num_heads` given. "prunes" means that the network runs afterwards, with outputs of the same shapes and fewer
  parameters; "prunes wrongly", that it is not equal to the masked network. Otherwise the cell has the error.
- **Ours**: the same with `ChannelGraph`, with nothing ignored and nothing given.
- **In reach**: the share of the parameters that lie at an index that our graph can remove.
- **Pruned = masked**: whether the network, after 30 % of each group were removed at random, gives what the original
  gives with all the removed coordinates of its parameters at zero: to 1e-6 of the largest output, in float64. A norm
  over channels averages over fewer of them. Such networks are equal "with norms counted" if the norms of the pruned
  network count the removed channels as zeros, as those of the masked one do; and "in the masked run" if the norms of
  the masked one leave the removed channels out (`MaskedRun`).
- **Compression**: parameters before, by parameters after half of each group was removed. "Halves": it is 2 at least.
- **Seconds**: to build the graph; in brackets, for one forward pass. One thread.

Made on the CPU by `python -m tests.conformance`, with Python {python},
{versions}.

| network | Torch-Pruning | ours | in reach | pruned = masked | compression | seconds |
|---|---|---|---|---|---|---|
"""

TAIL = """

## What is left alone

Of networks that keep more than half of their parameters, or of which less than {least} % is in reach: why.

"""
LEAST = 90


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The page, for the outcomes of the stages by network."""
    counts = _counts(rows)
    head = HEAD.format(
        count=len(rows),
        summary=_summary(rows),
        python=platform.python_version(),
        versions=", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES),
        percent=100 * counts["halved"] // max(1, len(rows)),
        **counts,
    )
    reasons = [
        f"- **{_cell(name)}**: {_cell(results.get('left alone') or 'no layer')}"
        for name, results in rows.items()
        if results.get("reach", 100) < LEAST or results.get("compression", 1) < 2
    ]
    return head + "\n".join(_row(*row) for row in rows.items()) + TAIL.format(least=LEAST) + "\n".join(reasons) + "\n"


def right(outcome: str) -> bool:
    """Whether a comparison with the masked network found no difference."""
    return outcome.startswith("equal")


def _counts(rows: dict[str, dict[str, Any]]) -> dict[str, int]:
    alone = [results for results in rows.values() if results.get("torch-pruning") == PRUNES]
    ours = [results for results in rows.values() if results.get("ours") == PRUNES]
    return {
        "alone": len(alone),
        "alone_right": sum(right(results.get("torch-pruning masked", "")) for results in alone),
        "ours": len(ours),
        "ours_right": sum(right(results.get("masked", "")) for results in ours),
        "halved": sum(results.get("compression", 1) >= 2 for results in ours),
    }


def _summary(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| library | networks | Torch-Pruning prunes | and is right | ours prunes | and is right | and halves |",
        "|---|---|---|---|---|---|---|",
    ]
    for library in dict.fromkeys(name.split()[0] for name in rows):
        own = {name: results for name, results in rows.items() if name.split()[0] == library}
        lines.append(f"| {' | '.join(map(str, (_cell(library), len(own), *_counts(own).values())))} |")
    return "\n".join(lines)


def _row(name: str, results: dict[str, Any]) -> str:
    alone = results.get("torch-pruning", "not reached")
    masked = results.get("torch-pruning masked", "equal")
    seconds = results.get("seconds")
    cells = [
        name,
        alone if right(masked) else f"prunes wrongly: {masked}",
        results.get("ours", "not reached"),
        f"{results['reach']:.1f} %" if "reach" in results else "",
        results.get("masked", "not reached"),
        f"{results['compression']:.2f}" if "compression" in results else "",
        f"{seconds[0]:.1f} ({seconds[1]:.2f})" if seconds else "",
    ]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str, length: int = 200) -> str:
    text = text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("_", "\\_")
    return text if len(text) <= length else text[: length - 3] + "..."

"""The outcomes as a page of Markdown."""

from __future__ import annotations

import importlib.metadata
import platform

from .outcome import PRUNES, RATIO

PACKAGES = ("torch-pruning", "torch", "torchvision", "timm", "segmentation-models-pytorch", "diffusers")

HEAD = """# Conformance

Real networks with random weights and small images, pruned by {ratio:.0%} a group: by Torch-Pruning with its
`GroupMagnitudeImportance`, and with `SpatialMaskImportance`. Of {count} networks, Torch-Pruning prunes {magnitude}
({plain} of them with nothing ignored but the outputs); ours prunes {ours} of these {magnitude}.

- **Magnitude**: Torch-Pruning alone, with the layers that produce the outputs ignored and `num_heads` given. "prunes"
  means that the network runs afterwards, with outputs of the same shapes and fewer parameters. Otherwise the cell has
  the error.
- **To ignore**: how many layers `check_network` advises to ignore; the reasons are below the table. **Then**: magnitude
  importance again, with these layers ignored.
- **Ours**: `SpatialMaskImportance`, with nothing ignored; if that fails, with these layers ignored.
- **Pruned = masked**: whether the pruned network gives what the original gives with the removed channels at zero, to
  1e-6 of the largest output, in float64. Only groups without a norm over channels are compared, because other channels
  change with such a norm; their number is given.

Made on the CPU by `python -m tests.conformance`, with Python {python},
{versions}.

| network | magnitude | to ignore | then | ours | pruned = masked |
|---|---|---|---|---|---|
"""


def table(rows: dict[str, dict[str, str]]) -> str:
    """The page, for the outcomes of the stages by network."""
    magnitude = [results for results in rows.values() if best(results, "magnitude") == PRUNES]
    head = HEAD.format(
        ratio=RATIO,
        count=len(rows),
        magnitude=len(magnitude),
        plain=sum(results.get("magnitude") == PRUNES for results in magnitude),
        ours=sum(best(results, "ours") == PRUNES for results in magnitude),
        python=platform.python_version(),
        versions=", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES),
    )
    lines = [_row(name, results) for name, results in rows.items()]
    reasons = [
        f"- **{_cell(name)}**: {_cell(results['check'])}"
        for name, results in rows.items()
        if results.get("check", "fine") != "fine"
    ]
    return head + "\n".join(lines) + "\n\n## What `check_network` says\n\n" + "\n".join(reasons) + "\n"


def best(results: dict[str, str], importance: str) -> str:
    """The outcome of an importance with the advice of `check_network`, or without it where that does as well."""
    plain = results.get(importance, "not reached")
    return plain if plain == PRUNES else results.get(f"{importance} advised", plain)


def _fine(results: dict[str, str]) -> bool:
    return results.get("check") == "fine"


def _row(name: str, results: dict[str, str]) -> str:
    advised = "" if _fine(results) else results.get("magnitude advised", "not reached")
    cells = [
        name,
        results.get("magnitude", "not reached"),
        results.get("ignored", "not reached"),
        advised,
        best(results, "ours"),
        results.get("masked", "not reached"),
    ]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str, length: int = 300) -> str:
    text = text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("_", "\\_")
    return text if len(text) <= length else text[: length - 3] + "..."

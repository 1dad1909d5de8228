"""What a check of a network has found, and how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch.nn as nn

MOST_LINES = 20
"""How many problems are printed."""
LEAST_SHARE = 0.001
"""Tensors outside of layers are printed if they have a larger share of the parameters than this."""


@dataclass(frozen=True)
class NetworkProblem:
    """One thing that goes wrong when a network is pruned.

    Attributes:
        layers: names of the layers that produce the channels concerned.
        what: what goes wrong.
        advice: what to do about it.
    """

    layers: tuple[str, ...]
    what: str
    advice: str

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{_some(self.layers) or 'the network'}: {self.what}{advice}"


@dataclass(frozen=True)
class NetworkCheck:
    """What `check_network` has found.

    Attributes:
        problems: what goes wrong, in the order of Torch-Pruning's groups.
        outputs: names of the layers whose channels are outputs of the network. These layers are no problem, but they
            must be ignored: the importances of this package leave them alone, those of Torch-Pruning prune them.
        ignored_layers: the layers of the problems and of the outputs, to pass to the pruner. Pruners that follow the
            channels leave them alone in any case.
        within_reach: the share of the parameters that pruning can remove; None for Torch-Pruning's graph.
        groups: the number of groups of channels; None for Torch-Pruning's graph.
        unknown: operations that are not known: channels that reach them are left alone. See `register_rule`.
        whole: the share of the parameters that each tensor outside of layers has of which nothing can be removed, by
            name: tables of positions, for instance.
    """

    problems: list[NetworkProblem]
    outputs: list[str]
    ignored_layers: list[nn.Module] = field(repr=False)
    within_reach: float | None = None
    groups: int | None = None
    unknown: list[str] = field(default_factory=list)
    whole: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every layer can be pruned, apart from those of the outputs."""
        return not self.problems

    def __str__(self) -> str:
        found, several = len(self.problems), "s" * (len(self.problems) > 1)
        lines = [f"{found} problem{several} found." if found else "No problem found."]
        if self.within_reach is not None:
            lines = [
                f"{self.within_reach:.1%} of the parameters can be pruned, in {self.groups} groups of channels.",
                f"{found} thing{several} cannot be:" if found else "Nothing but the outputs is left alone.",
            ]
        lines += [f"- {problem}." for problem in self.problems[:MOST_LINES]]
        if found > MOST_LINES:
            lines.append(f"- and {found - MOST_LINES} more, in `problems`.")
        share = sum(self.whole.values())
        if share > LEAST_SHARE:
            largest = sorted(self.whole, key=lambda name: -self.whole[name])
            lines.append(f"Outside of layers and whole: {_some(largest)} ({share:.1%} of the parameters).")
        if self.unknown:
            lines.append(f"Operations without a rule (see register_rule): {', '.join(self.unknown)}.")
        ignored = ", to be ignored" if self.within_reach is None else ""
        lines.append(f"Outputs of the network{ignored}: {', '.join(map(repr, self.outputs)) or 'none'}.")
        return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = [f"and {len(names) - 3} more"] if len(names) > 4 else []
    return ", ".join([*map(repr, names[: 3 if more else 4]), *more])

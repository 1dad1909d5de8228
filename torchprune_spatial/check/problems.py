"""What a check of a network has found, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn as nn


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
        more = [f"and {len(self.layers) - 3} more"] if len(self.layers) > 4 else []
        names = [*map(repr, self.layers[: 3 if more else 4]), *more]
        return f"{', '.join(names) or 'the network'}: {self.what}; {self.advice}"


@dataclass(frozen=True)
class NetworkCheck:
    """What `check_network` has found.

    Attributes:
        problems: what goes wrong, in the order of Torch-Pruning's groups.
        outputs: names of the layers whose channels are outputs of the network. These layers are no problem, but they
            must be ignored: the importances of this package leave them alone, those of Torch-Pruning prune them.
        ignored_layers: the layers of the problems and of the outputs, to pass to the pruner.
    """

    problems: list[NetworkProblem]
    outputs: list[str]
    ignored_layers: list[nn.Module] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether every layer can be pruned, apart from those of the outputs."""
        return not self.problems

    def __str__(self) -> str:
        outputs = f"Outputs of the network, to be ignored: {', '.join(map(repr, self.outputs)) or 'none'}."
        if self.ok:
            return f"No problem found.\n{outputs}"
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)} found."
        return "\n".join([count, *(f"- {problem}." for problem in self.problems), outputs])

"""The result of `profile`: totals, costs by module and by operator, as a table, as JSON, as a bar chart."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from .bars import cost_bars
from .fusion import fused
from .tracing import Operator, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 30
"""Largest number of modules in a table or plot, unless a depth is given."""

TOTALS = {
    "macs": ("GMACs", 1e9),
    "flops": ("GFLOPs (2 x MACs)", 1e9),
    "elementwise_flops": ("element-wise GFLOPs, not in these", 1e9),
    "weight_bytes": ("weights, MB", 1e6),
    "largest_operator_bytes": ("largest operator, MB", 1e6),
    "memory_bytes": ("weights + largest operator, MB", 1e6),
    "peak_bytes": ("peak of activations, MB", 1e6),
}
"""The numbers of a report: label and unit in the table, by attribute."""


@dataclass
class Cost:
    """Cost of a part of a network in one forward pass.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products, attention included.
        elementwise_flops: all other arithmetic, roughly: norms, activations, additions, softmax, pooling.
        weight_bytes: parameters and buffers, each once.
        largest_operator_bytes: the most that one operator reads and writes of activations.
        calls: number of operators that ran.
    """

    macs: int = 0
    elementwise_flops: int = 0
    weight_bytes: int = 0
    largest_operator_bytes: int = 0
    calls: int = 0

    @property
    def flops(self) -> int:
        """2 x `macs`."""
        return 2 * self.macs

    def add(self, operator: Operator) -> None:
        """Add the cost of one operator."""
        self.macs += operator.macs
        self.elementwise_flops += operator.elementwise_flops or 0
        self.largest_operator_bytes = max(self.largest_operator_bytes, operator.bytes)
        self.calls += 1

    def to_dict(self) -> dict[str, int]:
        """The cost as a dictionary, for JSON."""
        return {"macs": self.macs, "flops": self.flops} | asdict(self)


@dataclass(frozen=True)
class CostReport:
    """Costs of one forward pass of a network; `profile` makes it.

    ``print(report)`` shows the table. All bytes are for the batch and the dtype that were passed to `profile`.

    Attributes:
        model: name of the network's class.
        inputs: shapes of its inputs, with the batch.
        dtype: dtype of weights and activations; None for the network's own.
        view: ``"eager"`` or ``"fused"``, see `fused`.
        weights: bytes of parameters and buffers, each once, of every module by name; ``""`` is the network. Everything
            that the network holds counts, whether it is used or not; batch norms count in the fused view too.
        trace: the operators that ran.
    """

    model: str
    inputs: tuple[tuple[int, ...], ...]
    dtype: str | None
    weights: dict[str, int] = field(repr=False)
    trace: Trace = field(repr=False)
    view: str = "eager"

    @functools.cached_property
    def fused(self) -> CostReport:
        """The costs with norms and activations folded into the operators before them, as compilers fold them.

        Memory is freed after its last use. The arithmetic is the same, the memory is not. In the eager view each
        operator reads and writes memory by itself, and memory is freed when Python and PyTorch free it.
        """
        if self.view == "fused":
            return self
        return CostReport(self.model, self.inputs, self.dtype, self.weights, fused(self.trace), "fused")

    @property
    def operators(self) -> list[Operator]:
        """Every operator, in the order in which they run."""
        return self.trace.operators

    @functools.cached_property
    def _total(self) -> Cost:
        total = Cost(weight_bytes=self.weights[""])
        for operator in self.operators:
            total.add(operator)
        return total

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, attention included."""
        return self._total.macs

    @property
    def flops(self) -> int:
        """2 x `macs`."""
        return self._total.flops

    @property
    def elementwise_flops(self) -> int:
        """All arithmetic that is not in `flops`, roughly: norms, activations, additions, softmax, pooling."""
        return self._total.elementwise_flops

    @property
    def weight_bytes(self) -> int:
        """Bytes of parameters and buffers."""
        return self._total.weight_bytes

    @property
    def largest_operator(self) -> Operator | None:
        """The operator that reads and writes most; None if no operator ran."""
        return max(self.operators, key=lambda operator: operator.bytes, default=None)

    @property
    def largest_operator_bytes(self) -> int:
        """The most that one operator reads and writes, without its weights (section 3.1 of the paper).

        Each storage counts once. An operator in place, such as ``x += y``, therefore touches two activations, where
        adding up its inputs and its output gives three: in ResNet-50 at 224 px 6.42 instead of 9.63 MB.
        """
        return self._total.largest_operator_bytes

    @property
    def memory_bytes(self) -> int:
        """The paper's memory: `weight_bytes` + `largest_operator_bytes`."""
        return self.weight_bytes + self.largest_operator_bytes

    @property
    def peak_bytes(self) -> int:
        """The largest sum of activations that exist at one time, with the network's inputs and without weights.

        An allocator shows this number plus the scratch memory of kernels. Scratch memory dominates in convolutions on
        CPUs, where oneDNN reorders inputs, outputs and weights into blocks beside the originals.
        """
        return self.trace.peak_bytes

    @property
    def unknown_operators(self) -> Counter[str]:
        """Number of calls of each operator whose arithmetic is not known, and therefore in none of the counts."""
        return Counter(operator.name for operator in self.operators if operator.elementwise_flops is None)

    def by_module(self) -> dict[str, Cost]:
        """Cost of each module with everything inside it, by name, in the order of the network; ``""`` is the network.

        A function such as an addition counts for the module whose ``forward`` calls it.
        """
        costs = {name: Cost(weight_bytes=size) for name, size in self.weights.items()}
        for operator in self.operators:
            for name in {"", *operator.modules}:
                costs[name].add(operator)
        return costs

    def by_operator(self) -> dict[str, Cost]:
        """Cost of each kind of operator, without weights, by its name in PyTorch's dispatcher; the costliest first."""
        costs: dict[str, Cost] = {}
        for operator in self.operators:
            costs.setdefault(operator.name, Cost()).add(operator)
        return dict(sorted(costs.items(), key=lambda item: (-item[1].macs, -item[1].elementwise_flops)))

    def __str__(self) -> str:
        return self.table()

    def table(self, depth: int | None = None) -> str:
        """Format the totals in both views, and the modules in this view, as text.

        Args:
            depth: depth of the modules that are shown; 1 shows the network's children. Default: the largest depth with
                at most 30 rows.
        """
        inputs = " and ".join(str(list(shape)) for shape in self.inputs) or "no tensor"
        views = (self, self.fused) if self.view == "eager" else (self,)
        totals = [
            {"": label} | {view.view: f"{getattr(view, name) / unit:,.3f}" for view in views}
            for name, (label, unit) in TOTALS.items()
        ]
        modules = [
            {
                f"module ({self.view})": name,
                "MFLOPs": f"{cost.flops / 1e6:,.2f}",
                "share": f"{cost.flops / max(1, self.flops):.1%}",
                "weights, MB": f"{cost.weight_bytes / 1e6:,.3f}",
                "largest operator, MB": f"{cost.largest_operator_bytes / 1e6:,.3f}",
            }
            for name, cost in self.rows(depth).items()
        ]
        parts = [f"{self.model} on {inputs}, {self.dtype or 'the dtypes of the network'}", _text(totals)]
        parts += [f"Largest operator, {view.view}: {view._where()}" for view in views]
        parts += [_text(modules)] if modules else []
        if self.unknown_operators:
            calls = ", ".join(f"{name} ({calls} calls)" for name, calls in self.unknown_operators.items())
            parts.append(
                f"NOT COUNTED, because their arithmetic is not known: {calls}. Register a formula with "
                "torch.utils.flop_counter.register_flop_formula to count them."
            )
        return "\n\n".join(parts)

    def _where(self) -> str:
        operator = self.largest_operator
        return f"{operator.name} in {(operator.modules or ('',))[-1] or self.model}" if operator else "none"

    def rows(self, depth: int | None = None) -> dict[str, Cost]:
        """Costs of the modules at one depth, and of modules above it without children: together they are complete."""
        costs = {name: cost for name, cost in self.by_module().items() if name and (cost.calls or cost.weight_bytes)}
        parents = {name.rpartition(".")[0] for name in costs}
        depths = {name: name.count(".") + 1 for name in costs}

        def at(depth: int) -> dict[str, Cost]:
            return {n: c for n, c in costs.items() if depths[n] == depth or (depths[n] < depth and n not in parents)}

        if depth is None:
            depth = max((d for d in set(depths.values()) if len(at(d)) <= ROWS), default=1)
        return at(depth)

    def to_dict(self) -> dict[str, Any]:
        """All but the single operators, as dictionaries of numbers and text, for JSON."""
        return {
            "model": self.model,
            "inputs": [list(shape) for shape in self.inputs],
            "dtype": self.dtype,
            "definition": "standard",
            **{view.view: view._totals() for view in {self.view: self, "fused": self.fused}.values()},
            "unknown_operators": dict(self.unknown_operators),
            "modules": {name: cost.to_dict() for name, cost in self.by_module().items()},
            "operators": {name: cost.to_dict() for name, cost in self.by_operator().items()},
        }

    def _totals(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in TOTALS}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Format `to_dict` as JSON, and write it to ``path`` if that is given."""
        return json_text(self.to_dict(), path)

    def plot(self, path: str | os.PathLike[str] | None = None, depth: int | None = None) -> Figure:
        """Draw FLOPs, weights and the largest operator's activations, with one bar for each module.

        In the fused view, folded operators count for the module that computes them.

        Args:
            path: where to save the figure; the ending specifies the format.
            depth: depth of the modules that are shown, see `table`.

        Returns:
            A figure of matplotlib, made without ``pyplot``.

        Raises:
            ImportError: matplotlib is not installed.
        """
        costs = self.rows(depth) or {self.model: self.by_module()[""]}
        panels = {
            "MFLOPs": [cost.flops / 1e6 for cost in costs.values()],
            "weights, MB": [cost.weight_bytes / 1e6 for cost in costs.values()],
            "largest operator, MB": [cost.largest_operator_bytes / 1e6 for cost in costs.values()],
        }
        inputs = " and ".join(str(list(shape)) for shape in self.inputs)
        return cost_bars(list(costs), panels, f"{self.model} on {inputs}, {self.view} view", path)


def json_text(content: dict[str, Any], path: str | os.PathLike[str] | None = None) -> str:
    """Format as JSON, and write it to ``path`` if that is given."""
    text = json.dumps(content, indent=1)
    if path is not None:
        with open(path, "w") as file:
            file.write(text + "\n")
    return text


def _text(rows: list[dict[str, str]]) -> str:
    return tabulate(rows, "keys", disable_numparse=True, colalign=("left", *("right",) * (len(rows[0]) - 1)))

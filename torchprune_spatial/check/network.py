"""A check-up before pruning: does Torch-Pruning map this network's channels right, and does it run after a cut?"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch.utils._pytree import tree_map
from torch_pruning.dependency import Dependency, DependencyGraph, Group
from torch_pruning.dependency.node import Node

from resolution_scaling.ground.meta import tensors_in

from ..calibration.batches import call_model
from ..graph.attention import attention_heads, update_attention
from ..graph.groups import channel_layers, producers_in, producers_of
from ..graph.layers import CHANNEL_LAYERS
from ..graph.outputs import OutputTrace
from ..graph.private_names import channel_groups_of, graph_of, own_containers, parameter_name_in
from .zeroed_channels import KillTest

IGNORE = "add them to the pruner's ignored_layers"
REWRITE = (
    "Torch-Pruning stops here whatever is ignored: rewrite the operation behind these layers (split, unbind, slice, "
    "reshape, pixel shuffle), or describe it with customized_pruners"
)


@dataclass(frozen=True)
class NetworkProblem:
    """One thing that goes wrong when a network is pruned.

    Attributes:
        layers: names of the layers whose output channels are concerned.
        what: what was seen.
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
    """What `check_network` found.

    Attributes:
        problems: what goes wrong, in the order of Torch-Pruning's groups.
        outputs: names of the layers whose channels are outputs of the network. That is no problem, but they must be
            ignored: the importances of this package leave them alone, those of Torch-Pruning prune them.
        ignored_layers: the layers of the problems and of the outputs, to pass to the pruner.
    """

    problems: list[NetworkProblem]
    outputs: list[str]
    ignored_layers: list[nn.Module] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether every layer can be pruned, outputs aside."""
        return not self.problems

    def __str__(self) -> str:
        outputs = f"Outputs of the network, to be ignored: {', '.join(map(repr, self.outputs)) or 'none'}."
        if self.ok:
            return f"No problem found.\n{outputs}"
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)} found."
        return "\n".join([count, *(f"- {problem}." for problem in self.problems), outputs])


def check_network(
    model: nn.Module,
    example_inputs: Any,
    *,
    channels: int = 3,
    ignored_layers: Iterable[nn.Module | nn.Parameter] = (),
    num_heads: Mapping[nn.Module, int] | None = None,
    **options: Any,
) -> NetworkCheck:
    """Find the layers of a network that Torch-Pruning cannot prune rightly, before pruning it.

    Every group of coupled layers is examined on a copy; the network itself is never touched. Two tests:

    - *Kill test*: a channel is set to zero where it is written. Exactly the inputs that Torch-Pruning maps to this
      channel must vanish. If others do, the wrong filters are scored and cut (split, slices, reshapes).
    - *Trial*: one channel is removed (one of every head or channel group). The network must run, and its outputs must
      keep their shape.

    What is not seen: mistakes that depend on which channels, or how many, are removed together.

    Args:
        model: the network; in memory once more while it is examined.
        example_inputs: as for the pruner; the values do not matter.
        channels: how many channels of each group the kill test takes.
        ignored_layers: layers that will not be pruned, and are not examined.
        num_heads: as for the pruner; by default `attention_heads`.
        **options: further options of `tp.pruner.BasePruner` that concern the graph: ``forward_fn``,
            ``output_transform``, ``unwrapped_parameters``, ``customized_pruners``, ``root_module_types``.

    Raises:
        ValueError: the network cannot be copied.

    Example:
        >>> check = check_network(model, example_inputs)
        >>> print(check)
        >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance, ignored_layers=check.ignored_layers)
    """
    modules = dict(model.named_modules())
    num_heads = attention_heads(model) if num_heads is None else dict(num_heads)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            copied = copy.deepcopy((model, example_inputs, list(ignored_layers), num_heads, options))
        except Exception as error:
            raise ValueError(
                f"model {type(model).__name__} cannot be copied ({_sentence(error)}): check it before it first runs, "
                "or delete the tensors that it keeps from the last run"
            ) from error
        patient = _Patient(*copied)
        problems = list(patient.problems(channels))
    found = [name for problem in problems for name in problem.layers]
    return NetworkCheck(problems, patient.outputs, [modules[name] for name in dict.fromkeys(found + patient.outputs)])


class _Patient:
    """A copy of the network under examination, with Torch-Pruning's groups of it."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        ignored_layers: list[Any],
        num_heads: dict[nn.Module, int],
        options: dict[str, Any],
    ):
        self.model, self.example_inputs, self.options = model.eval(), inputs, options
        self.ignored_layers, self.num_heads = ignored_layers, num_heads
        self.names = {module: name for name, module in model.named_modules()}
        self.inputs = [tree_map(_random_like, inputs) for _ in range(2)]
        self.outputs: list[str] = []

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        return (self.options.get("forward_fn") or call_model)(model, inputs)

    def problems(self, channels: int) -> Iterator[NetworkProblem]:
        """Examine all the groups, one after the other."""
        groups: list[Group] = []
        failure = None
        try:
            pruner = tp.pruner.BasePruner(
                self.model,
                self.example_inputs,
                importance=groups.append,  # returns None: nothing is pruned
                ignored_layers=self.ignored_layers,
                **own_containers({"num_heads": self.num_heads} | self.options),
            )
            pruner.step()
        except Exception as error:
            what = f"Torch-Pruning cannot follow the network ({_sentence(error)})"
            failure = NetworkProblem(self._names_at(error), what, REWRITE)
        if groups:
            yield from self._group_problems(groups, pruner, channels)
        if failure:
            yield failure

    def _group_problems(self, groups: list[Group], pruner: Any, channels: int) -> Iterator[NetworkProblem]:
        layers = channel_layers(pruner.DG)
        trace = OutputTrace(layers)
        with trace.recording(self.model):
            behind = trace.layers_behind(self.forward(self.model, self.inputs[0]))
        self.outputs = [name for layer, name in layers.items() if layer in behind]
        kill_test, trial = KillTest(pruner.DG, self.forward, self.inputs), _Trial(self)
        for group in groups:
            writers = producers_in(group)
            if writers & behind:
                continue
            what = kill_test.failure(group, channels) or trial.failure(group, channel_groups_of(pruner, group))
            if what:
                yield NetworkProblem(tuple(name for layer, name in layers.items() if layer in writers), what, IGNORE)

    def _names_at(self, error: Exception) -> tuple[str, ...]:
        """The layers that write the channels which Torch-Pruning was following when it failed."""
        frames, traceback = [], error.__traceback__
        while traceback:
            frames.append(traceback.tb_frame.f_locals)
            traceback = traceback.tb_next
        graph = next(
            (value for frame in frames for value in frame.values() if isinstance(value, DependencyGraph)), None
        )
        for frame in reversed(frames):
            nodes = [value for value in frame.values() if isinstance(value, Node)]
            layers: list[nn.Module] = [node.module for node in nodes if isinstance(node.module, CHANNEL_LAYERS)]
            if not layers and hasattr(graph, "module2node"):
                layers = [layer for node in nodes for layer in producers_of(graph, node.module)]
            if layers:
                return tuple(sorted({self.names[layer] for layer in layers}))
        return ()


class _Trial:
    """Removes channels from the copy of the network, runs it, and puts them back."""

    def __init__(self, patient: _Patient):
        self.patient = patient
        self.shapes = self._shapes()

    @torch.no_grad()
    def failure(self, group: Group, channel_groups: int) -> str | None:
        """What goes wrong when a channel of the group (one of each channel group) is removed, in words, or None."""
        graph, dep, idxs = graph_of(group), group[0].dep, list(group[0].idxs)
        with _restored(self.patient.model):
            try:
                pruned = graph.get_pruning_group(dep.target.module, dep.handler, idxs[:: len(idxs) // channel_groups])
                if not graph.check_pruning_group(pruned):
                    return None
                for dep, idxs in pruned:
                    self._remove(dep, idxs, graph)
                update_attention(self.patient.model, {})
                shapes = self._shapes()
            except Exception as error:
                return f"with one channel less the network fails ({_sentence(error)})"
        changed = [f"{old} to {new}" for old, new in zip(self.shapes, shapes, strict=True) if old != new]
        return f"with one channel less the output changes from {', '.join(changed)}" if changed else None

    def _remove(self, dep: Dependency, idxs: list[int], graph: DependencyGraph) -> None:
        if isinstance(dep.target.module, nn.Parameter):
            path, _, name = parameter_name_in(graph, dep.target.module).rpartition(".")
            setattr(self.patient.model.get_submodule(path), name, dep(idxs))
        elif dep.target.module in self.patient.names:  # not the graph's own operations, which keep a state
            dep(idxs)

    @torch.no_grad()
    def _shapes(self) -> list[tuple[int, ...]]:
        outputs = self.patient.forward(self.patient.model, self.patient.inputs[0])
        return [tuple(tensor.shape) for tensor in tensors_in(outputs)]


@contextlib.contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Afterwards each module has the parameters, buffers and attributes that it had."""
    parts = [part for m in model.modules() for part in (vars(m), m._parameters, m._buffers)]
    before = [dict(part) for part in parts]
    try:
        yield
    finally:
        for part, contents in zip(parts, before, strict=True):
            part.clear()
            part.update(contents)


def _random_like(leaf: Any) -> Any:
    return torch.randn_like(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__

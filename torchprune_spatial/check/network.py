"""`check_network`: what of a network can be pruned, and what cannot and why."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch.utils._pytree import tree_map
from torch_pruning.dependency import DependencyGraph, Group
from torch_pruning.dependency.node import Node

from resolution_scaling.ground.calls import call_model, on_copies, sentence
from resolution_scaling.ground.models import evaluating, of_autograd
from resolution_scaling.ground.progress import progress as with_bar
from resolution_scaling.ground.progress import showing_progress
from resolution_scaling.ground.put_back import restoring_attributes

from ..graph.attention import attention_heads
from ..graph.channel_graph import ChannelGraph
from ..graph.groups import channel_layers, producers_in, producers_of
from ..graph.labels.trace import OUTPUT
from ..graph.layers import CHANNEL_LAYERS
from ..graph.options import check_option_names
from ..graph.outputs import OutputTrace
from ..graph.private_names import channel_groups_of, own_containers
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS
from .problems import NetworkCheck, NetworkProblem
from .trial_removal import TrialRemoval
from .zeroed_channels import ZeroingTest

IGNORE = "add them to the pruner's ignored_layers"
REWRITE = (
    "Torch-Pruning stops here whatever is ignored: rewrite the operation behind these layers (split, unbind, slice, "
    "reshape, pixel shuffle), or describe it with customized_pruners"
)


@torch.inference_mode(False)
def check_network(
    model: nn.Module,
    example_inputs: Any,
    *,
    graph: str = "channels",
    channels: int = 3,
    ignored_layers: Iterable[nn.Module | nn.Parameter] = (),
    num_heads: Mapping[nn.Module, int] | None = None,
    progress: bool = True,
    **options: Any,
) -> NetworkCheck:
    """Find out what of a network can be pruned, and what cannot and why, before pruning it.

    The channels are followed through the network as `prune_to` does (`ChannelGraph`): once through the network itself,
    and once through the network without a third of each group, whose channels must belong together as before. Takes
    seconds. The network itself is left as it is.

    With ``graph="torch-pruning"``, the graph of Torch-Pruning is examined instead, on a copy of the network and group
    by group, by two tests:

    - *Zeroing test*: a channel is set to zero where it is produced. Exactly the inputs that Torch-Pruning maps to this
      channel must become zero. If others do, the wrong filters would be scored and removed (split, slices, reshapes).
    - *Trial removal*: one channel is removed (one of every head or channel group). The network must run, and its
      outputs must keep their shapes.

    Not seen by them are mistakes that depend on which channels, or how many, are removed together.

    Args:
        model: the network.
        example_inputs: as for the pruner; the values do not matter.
        graph: ``"channels"`` or ``"torch-pruning"``, as for `prune_to`.
        channels: how many channels of each group the zeroing test takes.
        ignored_layers: layers that will not be pruned. They are not examined.
        num_heads: as for the pruner; by default `attention_heads`. Only for ``graph="torch-pruning"``.
        progress: whether to show a bar over the groups on stderr, if that is a terminal.
        **options: further options of `tp.pruner.BasePruner` that concern the graph: ``forward_fn``,
            ``output_transform``, ``unwrapped_parameters``, ``customized_pruners``, ``root_module_types``.

    Raises:
        TypeError: Torch-Pruning's pruner has no such option.
        ValueError: ``graph`` is another word; or, for Torch-Pruning's, the network cannot be copied.

    Example:
        >>> print(check_network(model, example_inputs))
    """
    if graph not in ("channels", "torch-pruning"):
        raise ValueError(f"graph is {graph!r}; expected 'channels' or 'torch-pruning'")
    check_option_names(options)
    example_inputs = of_autograd(model, example_inputs)
    if graph == "channels":
        return _check_channels(model, example_inputs, list(ignored_layers), options)
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
                f"model {type(model).__name__} cannot be copied ({sentence(error)}): check it before it first runs, "
                "or delete the tensors that it keeps from the last run"
            ) from error
        examination = _Examination(*copied)
        with showing_progress(progress):
            problems = list(examination.problems(channels))
    found = [name for problem in problems for name in problem.layers]
    ignored = [modules[name] for name in dict.fromkeys(found + examination.outputs)]
    return NetworkCheck(problems, examination.outputs, ignored)


def _check_channels(
    model: nn.Module, example_inputs: Any, ignored: list[nn.Module | nn.Parameter], options: Mapping[str, Any]
) -> NetworkCheck:
    graph = ChannelGraph().build_dependency(
        model,
        example_inputs,
        forward_fn=options.get("forward_fn"),
        output_transform=options.get("output_transform"),
        customized_pruners=CUSTOMIZED_PRUNERS | (options.get("customized_pruners") or {}),
        ignored_layers=[layer for layer in ignored if not isinstance(layer, nn.Parameter)],
        ignored_params=[layer for layer in ignored if isinstance(layer, nn.Parameter)],
    )
    modules: dict[str, Any] = dict(model.named_modules()) | dict(model.named_parameters())
    left_alone, behind = graph.left_alone, _output_layers(model, example_inputs, options)
    free = {side.name for side in graph.sides if side.is_output} - left_alone.keys()
    outputs = [name for name in behind if name not in free]  # a weight of no layer of PyTorch is not among those behind
    outputs += [n for n, why in left_alone.items() if isinstance(modules[n], nn.Parameter) and OUTPUT in why]
    layers: dict[str, list[str]] = {}
    for name, why in left_alone.items():
        if name not in outputs and modules[name] not in ignored:
            layers.setdefault(why, []).append(name)
    problems = [NetworkProblem(tuple(names), f"left alone: {why}", "") for why, names in layers.items()]
    groups = sum(1 for _ in graph.get_all_groups())
    return NetworkCheck(
        problems,
        outputs,
        [modules[name] for name in outputs],
        graph.channels.within_reach(model),
        groups,
        graph.unknown,
        _whole(graph, left_alone),
    )


def _whole(graph: ChannelGraph, named: Container[str]) -> dict[str, float]:
    """The shares of the parameters that those have that are of no layer, of which nothing can be removed."""
    free = {name for members in graph.classes() for name, _, _ in members}
    sizes = {name: parameter.numel() for name, parameter in graph.model.named_parameters()}
    names = dict.fromkeys(side.name for side in graph.sides if side.is_tensor and side.name not in named)
    return {name: sizes[name] / sum(sizes.values()) for name in names if name in sizes and name not in free}


def _output_layers(model: nn.Module, example_inputs: Any, options: Mapping[str, Any]) -> list[str]:
    """Names of the layers that produce the outputs of a network."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, CHANNEL_LAYERS)}
    trace = OutputTrace(names)
    with restoring_attributes(model), evaluating(model), trace.recording(model):
        behind = trace.layers_behind(on_copies(options.get("forward_fn") or call_model)(model, example_inputs))
    return [name for module, name in names.items() if module in behind]


class _Examination:
    """A copy of the network that is examined.

    Attributes:
        outputs: names of the layers that produce outputs of the network; known after `problems`.
    """

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
        return on_copies(self.options.get("forward_fn") or call_model)(model, inputs)

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
            what = f"Torch-Pruning cannot follow the network ({sentence(error)})"
            failure = NetworkProblem(self._names_at(error), what, REWRITE)
        if groups:
            yield from self._group_problems(groups, pruner, channels)
        if failure:
            yield failure

    def _group_problems(
        self, groups: list[Group], pruner: tp.pruner.BasePruner, channels: int
    ) -> Iterator[NetworkProblem]:
        layers = channel_layers(pruner.DG)
        trace = OutputTrace(layers)
        with trace.recording(self.model):
            behind = trace.layers_behind(self.forward(self.model, self.inputs[0]))
        self.outputs = [name for layer, name in layers.items() if layer in behind]
        zeroing = ZeroingTest(pruner.DG, self.forward, self.inputs)
        trial = TrialRemoval(self.model, self.forward, self.inputs[0])
        for group in with_bar(groups, "checking groups of layers"):
            producers = producers_in(group)
            if producers & behind:
                continue
            what = zeroing.failure(group, channels) or trial.failure(group, channel_groups_of(pruner, group))
            if what:
                yield NetworkProblem(tuple(name for layer, name in layers.items() if layer in producers), what, IGNORE)

    def _names_at(self, error: Exception) -> tuple[str, ...]:
        """The layers that produce the channels which Torch-Pruning was following when it failed."""
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


def _random_like(leaf: Any) -> Any:
    return torch.randn_like(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

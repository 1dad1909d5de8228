"""What happens to one network: our graph, pruning by it, pruned against masked, and Torch-Pruning alone."""

from __future__ import annotations

import collections
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from resolution_scaling.ground.calls import call_model
from torchprune_spatial import following_channels
from torchprune_spatial.check.masked_run import MaskedRun
from torchprune_spatial.graph.attention import attention_heads, update_attention
from torchprune_spatial.graph.channel_graph import ChannelGraph
from torchprune_spatial.graph.layers import CHANNEL_LAYERS
from torchprune_spatial.graph.outputs import OutputTrace

from .masking import Comparison, compare, inputs_for, marked, outputs, run_seeded
from .network import Network
from .table import PRUNES

HALF = 0.5
THIRTY_PERCENT = 0.3
HARDLY = 1e-4
"""Masks that change the outputs by less than this prove nothing."""


class OutOfTime(BaseException):
    """The processor time of a stage is over; no `Exception`, which the code under test may catch."""


FAILURES = (Exception, OutOfTime)


def ours(network: Network) -> Iterator[tuple[str, Any]]:
    """Names and results of the stages with our graph, as they are reached.

    ``seconds``: of building the graph, and of one forward pass. ``reach``: percentage of the parameters that can be
    removed. ``left alone``: why the others cannot. ``ours``: ``"prunes"``, or what goes wrong if half of each group is
    removed. ``compression``: parameters before, by those after. ``masked``: whether a network of which 30 % were
    removed at random computes what the masked one does.
    """
    warnings.simplefilter("ignore")
    model = network.build()
    start = time.perf_counter()
    outputs(model, network)
    forward = time.perf_counter() - start
    start = time.perf_counter()
    try:
        graph = ChannelGraph().build_dependency(model, network.inputs())
    except FAILURES as error:
        yield "ours", sentence(error)
        yield "masked", "not reached"
        return
    yield "seconds", [round(time.perf_counter() - start, 2), round(forward, 3)]
    yield "reach", share_within_reach(model, graph.channels.coordinates())
    reasons = collections.Counter(graph.left_alone.values()).most_common(3)
    yield "left alone", "; ".join(f"{reason} ({count} layers)" for reason, count in reasons)
    result, compression = halve(network, model, graph)
    yield "ours", result
    if result == PRUNES:
        yield "compression", compression
    yield "masked", pruned_against_masked(network)


def alone(network: Network) -> Iterator[tuple[str, Any]]:
    """``torch-pruning``: what Torch-Pruning makes of the network, with its outputs ignored and ``num_heads`` given."""
    warnings.simplefilter("ignore")
    model = marked(network)
    parameters, shapes = _parameters(model), _shapes(model, network)
    options = network.options(model)
    options["ignored_layers"] += output_layers(model, network)
    try:
        pruner = tp.pruner.BasePruner(
            model,
            inputs_for(model, network),
            importance=tp.importance.GroupMagnitudeImportance(),
            pruning_ratio=HALF,
            num_heads=attention_heads(model),
            **options,
        )
        pruner.step()
        update_attention(model, pruner.num_heads)
        result = _outcome(model, network, parameters, shapes)
    except FAILURES as error:
        result = sentence(error)
    yield "torch-pruning", result
    if result == PRUNES:
        yield "torch-pruning masked", _in_words(_compared(network, model))


def halve(network: Network, model: nn.Module, graph: ChannelGraph) -> tuple[str, float]:
    """Half of each group is removed by magnitude: ``"prunes"`` or what goes wrong, and the compression."""
    parameters, shapes = _parameters(model), _shapes(model, network)
    try:
        _pruner(network, model, tp.importance.GroupMagnitudeImportance(), HALF, graph).step()
        return _outcome(model, network, parameters, shapes), round(parameters / _parameters(model), 2)
    except FAILURES as error:
        return sentence(error), 1


def pruned_against_masked(network: Network) -> str:
    """Whether a pruned network gives what the original gives with everything at zero that was removed.

    Where the two differ, the masked run is asked, whose averages over channels leave out what was removed.
    """
    model = marked(network)
    parameters = _parameters(model)
    torch.manual_seed(4)
    try:
        pruner = _pruner(network, model, tp.importance.RandomImportance(), THIRTY_PERCENT)
        before = MaskedRun(pruner.DG, run_seeded)
        pruner.step()
    except FAILURES as error:
        return sentence(error)
    if _parameters(model) == parameters:
        return "nothing is pruned"
    compared = _compared(network, model)
    if not isinstance(compared, Comparison) or compared.equal or compared.equal_but_for_norms:
        return _in_words(compared)
    try:
        difference = before.difference(inputs_for(model, network))
    except FAILURES as error:
        return f"{_in_words(compared)}; masked run: {sentence(error)}"
    if difference < compared.tolerance:
        return "equal in the masked run"
    return f"{_in_words(compared)}; masked run: {difference:.0e}"


def share_within_reach(model: nn.Module, classes: list[set[tuple[str, int, int]]]) -> float:
    """Percentage of the parameters that lie at an index that can be removed."""
    reached = collections.Counter((name, dim) for name, dim, _ in set().union(*classes))
    count = total = 0
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            continue
        groups = getattr(model.get_submodule(name.rpartition(".")[0]), "groups", 1)
        beyond = 1.0
        for dim, size in enumerate(parameter.shape):
            beyond *= 1 - reached[name, dim] / (size * groups if dim == 1 and parameter.ndim > 1 else size)
        count += (1 - beyond) * parameter.numel()
        total += parameter.numel()
    return round(100 * count / total, 1)


def output_layers(model: nn.Module, network: Network) -> list[nn.Module]:
    """The layers of the outputs, which a user of Torch-Pruning must ignore."""
    trace = OutputTrace({module: name for name, module in model.named_modules() if isinstance(module, CHANNEL_LAYERS)})
    with trace.recording(model):
        return list(trace.layers_behind(call_model(model, inputs_for(model, network))))


def _pruner(
    network: Network, model: nn.Module, importance: Any, ratio: float, graph: ChannelGraph | None = None
) -> Any:
    with following_channels(graph):
        return tp.pruner.BasePruner(model, inputs_for(model, network), importance=importance, pruning_ratio=ratio)


def _compared(network: Network, pruned: nn.Module) -> Comparison | str:
    try:
        return compare(network, pruned)
    except FAILURES as error:
        return sentence(error)


def _in_words(compared: Comparison | str) -> str:
    if isinstance(compared, str):
        return compared
    if compared.equal or compared.equal_but_for_norms:
        words = "equal" if compared.equal else "equal with norms counted"
        return words if compared.effect > HARDLY else f"{words}; hardly changed"
    reason = " (norm over channels)" if compared.norms else ""
    return f"differs by {min(compared.difference, compared.counted):.0e}{reason}"


def _outcome(model: nn.Module, network: Network, parameters: int, shapes: list[tuple[int, ...]]) -> str:
    pruned_shapes = _shapes(model, network)
    if pruned_shapes != shapes:
        return f"the output changes from {shapes} to {pruned_shapes}"
    return PRUNES if _parameters(model) < parameters else "nothing is pruned"


def _shapes(model: nn.Module, network: Network) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in outputs(model, network)]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def sentence(error: BaseException) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")

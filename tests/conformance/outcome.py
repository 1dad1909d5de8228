"""What happens to one network: `check_network`, magnitude importance, ours, and pruned against masked."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch_pruning as tp
from torch import nn

from resolution_scaling.ground.calls import tensors_in
from torchprune_spatial import SpatialMaskImportance
from torchprune_spatial.calibration.batches import call_model
from torchprune_spatial.check.network import check_network
from torchprune_spatial.graph.attention import attention_heads, update_attention
from torchprune_spatial.graph.layers import CHANNEL_LAYERS, channel_dimension
from torchprune_spatial.graph.outputs import OutputTrace

from .zoo import Network

PRUNES = "prunes"
RATIO = 0.5
TOLERANCE = 1e-6


def outcomes(network: Network) -> Iterator[tuple[str, str]]:
    """Names and results of the stages, as they are reached: ``"prunes"``, or what went wrong.

    ``magnitude`` and ``ours`` prune as a user would at first; ``magnitude advised`` and ``ours advised`` ignore the
    layers that `check_network` names, where it names any.
    """
    warnings.simplefilter("ignore")
    model = network.build()
    outputs = output_layers(model, network.inputs(network.images()))
    magnitude = attempt(network, model, tp.importance.GroupMagnitudeImportance(), outputs)
    yield "magnitude", magnitude
    if magnitude.startswith(("TimeoutError", "MemoryError")):
        return  # Torch-Pruning's graph has no end: so would be all that follows
    check = check_network(model, network.inputs(network.images()), channels=2, **network.options(model))
    yield "check", "; ".join(map(str, check.problems)) or "fine"
    yield "ignored", str(len({*check.ignored_layers} - {*outputs}))
    yield "ours", attempt(network, model, ours(network), [])
    if not check.ok:
        advised = tp.importance.GroupMagnitudeImportance()
        yield "magnitude advised", attempt(network, model, advised, check.ignored_layers)
        yield "ours advised", attempt(network, model, ours(network), check.ignored_layers)
    yield "masked", pruned_against_masked(network, model, check.ignored_layers)


def output_layers(model: nn.Module, inputs: Any) -> list[nn.Module]:
    """The layers of the outputs, which a user of Torch-Pruning must ignore."""
    traced = copy.deepcopy(model)  # some networks keep tensors of the trace
    names = {module: name for name, module in traced.named_modules() if isinstance(module, CHANNEL_LAYERS)}
    trace = OutputTrace(names)
    with trace.recording(traced):
        layers = trace.layers_behind(call_model(traced, inputs))
    return [model.get_submodule(names[layer]) for layer in layers]


def ours(network: Network) -> SpatialMaskImportance:
    """Our importance, on two random batches with a square in the middle of each image as the object."""

    def square(images: torch.Tensor, target: None) -> torch.Tensor:
        mask = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        mask[:, network.size // 4 : -network.size // 4, network.size // 4 : -network.size // 4] = True
        return mask

    return SpatialMaskImportance(
        [network.images() for _ in range(2)],
        masks=square,
        forward=lambda model, images: call_model(model, network.inputs(images)),
    )


def attempt(network: Network, model: nn.Module, importance: Any, ignored_layers: list[nn.Module]) -> str:
    """Prune a copy of the network: ``"prunes"`` if it runs, with outputs of the same shapes and fewer parameters."""
    model, ignored_layers = copy.deepcopy((model, ignored_layers))
    inputs = network.inputs(network.images())
    parameters, shapes = _parameters(model), _shapes(model, inputs)
    try:
        pruner = _pruner(network, model, importance, ignored_layers)
        pruner.step()
        update_attention(model, pruner.num_heads)
        pruned_shapes = _shapes(model, inputs)
    except Exception as error:
        return sentence(error)
    if pruned_shapes != shapes:
        return f"the output changes from {shapes} to {pruned_shapes}"
    return PRUNES if _parameters(model) < parameters else "nothing is pruned"


def pruned_against_masked(network: Network, model: nn.Module, ignored_layers: list[nn.Module]) -> str:
    """Whether the pruned network gives what the original gives with the removed channels at zero.

    Only groups without a norm over channels are pruned: other channels change with such a norm. Differences
    are relative to the largest output.
    """
    if network.not_linear:
        return f"not exact: {network.not_linear}"
    model, ignored_layers = copy.deepcopy((model, ignored_layers))
    inputs, masked = network.inputs(network.images()), copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules()}
    kept: dict[tuple[str, str, int], list[int]] = {}
    linear = count = 0
    try:
        pruner = _pruner(network, model, ours(network), ignored_layers)
        for group in pruner.step(interactive=True):
            count += 1
            if not _is_linear(group, model):
                continue
            linear += 1
            for dep, idxs in group:
                if place := _place(dep, names, pruner.DG):
                    now = kept.setdefault(place[:-1], list(range(place.channels)))
                    kept[place[:-1]] = [channel for i, channel in enumerate(now) if i not in set(idxs)]
            group.prune()
        update_attention(model, pruner.num_heads)
        for (name, side, dim), channels in kept.items():
            _hold_at_zero(masked, name, side, dim, channels)
        if not linear:
            return "not exact: a norm over channels in every group" if count else "no group left"
        outputs = [_outputs(m.double(), _double(inputs)) for m in (model, masked)]
    except Exception as error:
        return sentence(error)
    largest = max(tensor.abs().max().item() for tensor in outputs[1])
    difference = max((a - b).abs().max().item() for a, b in zip(*outputs, strict=True)) / largest
    groups = "" if linear == count else f" ({linear} of {count} groups)"
    return f"{'equal' if difference < TOLERANCE else f'differs by {difference:.0e}'}{groups}"


def _pruner(network: Network, model: nn.Module, importance: Any, ignored_layers: list[nn.Module]) -> Any:
    options = network.options(model)
    return tp.pruner.BasePruner(
        model,
        network.inputs(network.images()),
        importance=importance,
        pruning_ratio=RATIO,
        num_heads=attention_heads(model),
        **{**options, "ignored_layers": [*options.get("ignored_layers", []), *ignored_layers]},
    )


def _is_linear(group: tp.dependency.Group, model: nn.Module) -> bool:
    """No layer of the group computes with several channels at once what is not a sum over them."""
    for dep, _ in group:
        module = dep.target.module
        if isinstance(module, nn.Parameter):  # judged by the module that holds it
            module = model.get_submodule(group._DG._param_to_name[module].rpartition(".")[0])
        kind = type(module).__name__
        over_channels = "Norm" in kind and "BatchNorm" not in kind and "InstanceNorm" not in kind
        if over_channels or "Std" in kind or isinstance(module, nn.MultiheadAttention):
            return False
    return True


class _Place(NamedTuple):
    """Where channels are written or read: a module's output or input, or a parameter, and along which dimension."""

    name: str
    side: str
    dim: int
    channels: int


def _place(dep: Any, names: dict[nn.Module, str], graph: tp.DependencyGraph) -> _Place | None:
    target = dep.target.module
    if isinstance(target, nn.Parameter):
        dim = dep.target.pruning_dim
        return _Place(graph._param_to_name[target], "parameter", dim, target.shape[dim])
    if target not in names:
        return None
    if graph.is_out_channel_pruning_fn(dep.handler):
        return _Place(names[target], "output", channel_dimension(target), graph.get_out_channels(target))
    return _Place(names[target], "input", channel_dimension(target), graph.get_in_channels(target))


def _hold_at_zero(model: nn.Module, name: str, side: str, dim: int, kept: list[int]) -> None:
    """Hold channels at zero where they are written, and where they are read: sigmoid(0) is not 0."""

    def zero(tensor: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(tensor.shape[dim], dtype=tensor.dtype)
        mask[kept] = 1
        return tensor * mask.view(-1, *[1] * (tensor.ndim - 1 - dim % tensor.ndim))

    if side == "parameter":
        parameter = model.get_parameter(name)
        parameter.data = zero(parameter.data)
    elif side == "output":
        model.get_submodule(name).register_forward_hook(lambda layer, args, output: zero(output))
    else:
        model.get_submodule(name).register_forward_pre_hook(lambda layer, args: (zero(args[0]), *args[1:]))


def _outputs(model: nn.Module, inputs: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors_in(call_model(model, inputs))


def _shapes(model: nn.Module, inputs: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in _outputs(model, inputs)]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _double(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {key: _double(value) for key, value in inputs.items()}
    return inputs.double() if isinstance(inputs, torch.Tensor) and inputs.is_floating_point() else inputs


def sentence(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")

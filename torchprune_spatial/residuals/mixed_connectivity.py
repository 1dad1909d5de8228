"""Mixed connectivity: residual additions whose branches are pruned separately."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import fx

from resolution_scaling.ground.calls import tensors_in

from ..graph.layers import is_depthwise
from .channel_scatter import ChannelScatter

IN_PLACE_ADDS = (operator.iadd, torch.Tensor.add_, "add_")
ADDS = (operator.add, torch.add, torch.Tensor.add, "add", *IN_PLACE_ADDS)
CHANNEL_MOVES = {"flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze"}
CHANNEL_MOVES |= {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"}
"""Operations after which dimension 1 may no longer be the channels that a layer has produced."""


def decouple_residuals(
    model: nn.Module, example_inputs: torch.Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
) -> fx.GraphModule:
    """Make residual additions mixed, so that each branch keeps channels of its own.

    Lemaire, Achkar, Jodoin, "Structured pruning of neural networks with budget-aware regularization", CVPR 2019,
    section 3.3: if two branches keep the sets A and B of the channels, the sum has the channels A ∪ B. Channels that
    both branches have are added; those that one has are passed through. Here each operand passes through a
    `ChannelScatter`, and an ordinary addition follows. Until it is pruned, the network computes the same as before.

    An addition of two maps of the same shape is made mixed if layers (convolutions, or linear layers of
    ``[batch, channels]``) produce both operands and read the sum. Other additions are left as they are: those whose sum
    is an output of the network, is read by a depthwise convolution, or is joined with the channels of another layer.

    Args:
        model: a network that ``torch.fx`` can trace. It is not changed. The result has the same layers, with the same
            names and ``state_dict`` keys. Decisions that ``forward`` takes in Python are fixed as they are now.
        example_inputs: as for Torch-Pruning: a tensor, positional arguments or a dict of keywords. For Torch-Pruning
            itself use ``(image,)`` instead of ``image``: it tries ``model(*image)`` first, and a traced network prints
            the traceback of that failure to stderr.

    Returns:
        A copy of the network with mixed additions. It has the network's ``forward``, but none of its other methods.

    Raises:
        TypeError, ValueError: ``model`` is no module, cannot be traced, has no addition that can be made mixed, or
            gives other outputs for the example inputs when it is traced.

    Example:
        >>> model = decouple_residuals(model, example_inputs)
        >>> pruner = tp.pruner.BasePruner(model, example_inputs, importance, customized_pruners=CUSTOMIZED_PRUNERS)
        >>> pruner.step()
        >>> remove_dead_channels(pruner.DG)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    name, own = type(model).__name__, copy.deepcopy(model)
    try:
        graph = _Tracer().trace(own)
        _read_sums_made_in_place(graph)
        traced = fx.GraphModule(own, graph, class_name=name)
    except Exception as error:
        raise ValueError(
            f"model {name} cannot be traced symbolically ({error}): wrap the function that depends on the values of "
            "tensors with torch.fx.wrap, or decouple the submodules that hold the additions, one by one"
        ) from error
    for parts in ("_modules", "_parameters", "_buffers"):  # also those that forward does not use
        getattr(traced, parts).update(getattr(own, parts))
    traced._non_persistent_buffers_set |= own._non_persistent_buffers_set

    keywords = example_inputs if isinstance(example_inputs, Mapping) else {}
    inputs: Sequence[Any] = []
    if not isinstance(example_inputs, Mapping):
        inputs = [example_inputs] if isinstance(example_inputs, torch.Tensor) else example_inputs
    own.eval(), traced.eval()
    with torch.no_grad():
        expected = own(*inputs, **keywords)
        _note_shapes(traced, inputs, keywords)
        adds = _residual_adds(traced)
        for add in adds:
            _mix(traced, add)
        traced.recompile()
        outputs = zip(tensors_in(traced(*inputs, **keywords)), tensors_in(expected), strict=True)
        same = all(torch.allclose(*pair, rtol=1e-3, atol=1e-5, equal_nan=True) for pair in outputs)
    if not adds:
        raise ValueError(
            f"model {name} has no residual addition to make mixed: expected an addition of two feature maps of one "
            "shape, produced and read by convolutions or linear layers; prune the model as it is"
        )
    if not same:
        raise ValueError(
            f"model {name} computes something else when it is traced: forward must not change in place a tensor that "
            "it reads under another name, nor depend on self.training (call model.eval() before)"
        )
    for path, original in model.named_modules():
        traced.get_submodule(path).training = original.training
    return traced


class _Tracer(fx.Tracer):
    """Traces into a module only if it has children, so that other modules still follow their training mode."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ChannelScatter) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> object:
        if not kwargs and len(args) == 1 and isinstance(args[0], fx.Proxy) and next(m.children(), None) is None:
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
        return super().call_module(m, forward, args, kwargs)


def _read_sums_made_in_place(graph: fx.Graph) -> None:
    """Replace later reads of a tensor that an addition changes in place by reads of the sum: it is the same tensor."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    for add in (node for node in graph.nodes if node.target in IN_PLACE_ADDS):
        add.args[0].replace_all_uses_with(add, delete_user_cb=lambda user, add=add: order[user] > order[add])


def _note_shapes(traced: fx.GraphModule, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Run the network, and note shape and device of each tensor at the node that makes it."""

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                n.meta["shape"], n.meta["device"] = result.shape, result.device
            return result

    if keywords:
        inputs = [keywords.get(n.target, *n.args) for n in traced.graph.nodes if n.op == "placeholder"]
    Shapes(traced).run(*inputs)


def _residual_adds(traced: fx.GraphModule) -> list[fx.Node]:
    """The additions that can be made mixed, in the order of the forward."""
    modules = dict(traced.named_modules())
    producers, _ = _follow_channels(traced, modules, set())
    mixed = {node for node in traced.graph.nodes if _joins_layers(node, modules, producers)}
    while tied := _follow_channels(traced, modules, mixed)[1]:
        mixed -= tied
    return [node for node in traced.graph.nodes if node in mixed]


def _follow_channels(
    traced: fx.GraphModule, modules: dict[str, nn.Module], mixed: set[fx.Node]
) -> tuple[dict[fx.Node, set[fx.Node]], set[fx.Node]]:
    """What produces the channels (dimension 1) of each tensor, and which of the mixed sums are tied.

    Producers are layers, mixed sums, inputs of the network, and operations after which the channels are unknown. A sum
    is tied if its channels are outputs of the network or must be those of another layer, so that it cannot keep
    channels of its own.
    """
    producers: dict[fx.Node, set[fx.Node]] = {}
    tied: set[fx.Node] = set()
    for node in traced.graph.nodes:
        sources = set().union(*(producers[n] for n in node.all_input_nodes))
        inputs = [n for n in node.all_input_nodes if "shape" in n.meta]
        module = _module(node, modules)
        if node in mixed or _is_layer(node, modules):
            producers[node] = {node}
            continue
        weights = module is not None and any(p.squeeze().ndim > 1 for p in module.parameters())  # depthwise, attention
        is_cat = node.target in (torch.cat, torch.concat) and _cat_dimension(node) in (1, 1 - len(node.meta["shape"]))
        joined = len(inputs) > 1 and not is_cat and set().union(*(producers[n] for n in inputs)) - mixed
        if weights or joined or node.op == "output":
            tied |= sources & mixed
        name = type(module).__name__.lower() if module is not None else getattr(node.target, "__name__", node.target)
        kept = is_cat or node.meta.get("shape", ())[1:2] in [n.meta["shape"][1:2] for n in inputs]
        is_opaque = weights and not isinstance(module, nn.modules.conv._ConvNd)
        is_lost = node.op != "get_attr" and (not kept or is_opaque or name in CHANNEL_MOVES)
        producers[node] = sources | {node} if is_lost else sources
    return producers, tied


def _joins_layers(node: fx.Node, modules: dict[str, nn.Module], producers: dict[fx.Node, set[fx.Node]]) -> bool:
    """Whether this adds two maps of the same shape that layers produce, and that are not both scattered already."""
    if node.target not in ADDS or len(node.args) != 2 or not node.kwargs.keys() <= {"alpha"}:
        return False
    operands = [n for n in node.args if isinstance(n, fx.Node) and "shape" in n.meta]
    shapes = [n.meta["shape"] for n in operands]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) < 2 or shapes[0][1] < 2:
        return False
    if all(isinstance(_module(n, modules), ChannelScatter) for n in operands):
        return False
    return all(producers[n] and all(_is_layer(other, modules) for other in producers[n]) for n in operands)


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    """The module that a node calls; None if it calls a function or a method."""
    return modules[str(node.target)] if node.op == "call_module" else None


def _is_layer(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether this reads channels and produces others, in dimension 1. A depthwise convolution does not."""
    module = _module(node, modules)
    if isinstance(module, nn.Linear):
        return len(node.meta["shape"]) == 2
    if isinstance(module, nn.modules.conv._ConvNd):
        return not is_depthwise(module)
    return isinstance(module, ChannelScatter)


def _cat_dimension(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


def _mix(traced: fx.GraphModule, add: fx.Node) -> None:
    """Replace an addition by one of scattered operands, not in place. The scatters are put in the module that adds."""
    stack = list(add.meta.get("nn_module_stack", {}).values())
    owner = stack[-1][0] if stack else ""
    names = (f"add_{i}_scatter" if i else "add_scatter" for i in itertools.count())
    name = next(name for name in names if not hasattr(traced.get_submodule(owner), name))
    name = f"{owner}.{name}" if owner else name
    channels, device = add.meta["shape"][1], add.meta["device"]
    traced.add_submodule(name, nn.ModuleList(ChannelScatter(channels).to(device) for _ in add.args))
    with traced.graph.inserting_before(add):
        scattered = tuple(traced.graph.call_module(f"{name}.{i}", (operand,)) for i, operand in enumerate(add.args))
        mixed = traced.graph.call_function(torch.add, scattered, dict(add.kwargs))
    add.replace_all_uses_with(mixed)
    traced.graph.erase_node(add)

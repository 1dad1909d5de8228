"""Mixed connectivity: residual additions whose branches are pruned apart."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn as nn
import torch_pruning as tp
from torch import fx
from torch_pruning.dependency import DependencyGraph, Group

from .outputs import tensors_in

IN_PLACE_ADDS = (operator.iadd, torch.Tensor.add_, "add_")
ADDS = (operator.add, torch.add, torch.Tensor.add, "add", *IN_PLACE_ADDS)
CHANNEL_MOVES = {"flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze"}
CHANNEL_MOVES |= {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"}
"""Operations behind which dimension 1 may no longer be the channels that a layer wrote."""


class ChannelScatter(nn.Module):
    """Bring the channels that a branch has kept to their places in the sum; zeros elsewhere.

    Attributes:
        index: place of each input channel among the output channels, ascending: ``[in_channels]`` int64, a buffer.
        out_channels: channels of the sum.

    Args:
        channels: channels of the branch and of the sum before pruning.
    """

    index: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = channels
        self.register_buffer("index", torch.arange(channels))

    @property
    def in_channels(self) -> int:
        """Channels of the branch."""
        return self.index.numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, in_channels, ...]`` -> ``[batch, out_channels, ...]``."""
        if self.in_channels == self.out_channels:  # ascending, so the identity
            return torch.ops.aten.alias(x)  # not x: Torch-Pruning knows a layer by its own node of the autograd graph
        return x.new_zeros((x.shape[0], self.out_channels, *x.shape[2:])).index_add(1, self.index, x)

    def extra_repr(self) -> str:
        """As the layers of PyTorch."""
        return f"{self.in_channels}, {self.out_channels}"

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        if not self.index.is_meta and not _ascends(self.index, self.out_channels):
            errors.append(
                f"{prefix}index is {self.index.tolist()}; expected ascending numbers below out_channels="
                f"{self.out_channels}: set out_channels to that of the saved module first"
            )


def _ascends(index: torch.Tensor, stop: int) -> bool:
    bounds = index.new_tensor([-1]), index.new_tensor([stop])
    return bool((torch.cat([bounds[0], index, bounds[1]]).diff() > 0).all())


class ChannelScatterPruner(tp.pruner.BasePruningFunc):
    """Torch-Pruning's way to prune a `ChannelScatter`: inputs and outputs apart, as those of a convolution."""

    TARGET_MODULES = ChannelScatter

    def prune_in_channels(self, layer: ChannelScatter, idxs: list[int]) -> ChannelScatter:
        """Remove input channels; the outputs that they fed stay, as zeros."""
        keep = torch.ones_like(layer.index, dtype=torch.bool)
        keep[list(idxs)] = False
        layer.index = layer.index[keep]
        return layer

    def prune_out_channels(self, layer: ChannelScatter, idxs: list[int]) -> ChannelScatter:
        """Remove output channels that no input channel feeds, and number the others anew."""
        removed = torch.tensor(sorted(set(idxs)), dtype=layer.index.dtype, device=layer.index.device)
        if fed := layer.index[torch.isin(layer.index, removed)].tolist():
            raise ValueError(f"output channels {fed} are fed by input channels; remove those first")
        layer.index = layer.index - torch.searchsorted(removed, layer.index)
        layer.out_channels -= len(removed)
        return layer

    def get_in_channels(self, layer: ChannelScatter) -> int:
        """Channels of the branch."""
        return layer.in_channels

    def get_out_channels(self, layer: ChannelScatter) -> int:
        """Channels of the sum."""
        return layer.out_channels


CUSTOMIZED_PRUNERS = {ChannelScatter: ChannelScatterPruner()}
"""For ``customized_pruners=`` of Torch-Pruning's pruners and of ``DependencyGraph.build_dependency``."""


def decouple_residuals(model: nn.Module, example_inputs: torch.Tensor | tuple | list | Mapping) -> fx.GraphModule:
    """Make residual additions mixed, so that each branch keeps channels of its own.

    Lemaire, Achkar, Jodoin, "Structured pruning of neural networks with budget-aware regularization", CVPR 2019,
    section 3.3: where two branches keep the sets A and B of the channels, the sum has the channels A ∪ B, added where
    both exist and passed through where one does. Here a `ChannelScatter` stands before each operand, and an ordinary
    addition follows; before pruning the network computes what it did.

    An addition of two maps of one shape is made mixed where layers (convolutions, or linear layers of
    ``[batch, channels]``) write both operands and read the sum. The others stay as they are: a sum that is an output
    of the network, that a depthwise convolution reads, or that is joined with another layer's channels.

    Args:
        model: network that ``torch.fx`` can trace. It is left as it was; layers, their names and the keys of the
            ``state_dict`` stay the same in the result. What Python decides in ``forward`` is fixed as it is now.
        example_inputs: as in Torch-Pruning: a tensor, positional arguments or a dict of keywords. For Torch-Pruning
            itself ``(image,)`` is better than ``image``: it tries ``model(*image)`` first, and a traced network writes
            the traceback of such a failure to stderr.

    Returns:
        A copy of the network with mixed additions; of its own methods it has ``forward`` alone.

    Raises:
        TypeError, ValueError: ``model`` is no module, cannot be traced, has no addition that can be made mixed, or
            gives other outputs for the example inputs when traced.

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
            f"model {name} cannot be traced symbolically ({error}): wrap the function that decides on tensors with "
            "torch.fx.wrap, or decouple the submodules that hold the additions, one by one"
        ) from error
    for parts in ("_modules", "_parameters", "_buffers"):  # all, also what forward does not use
        getattr(traced, parts).update(getattr(own, parts))
    traced._non_persistent_buffers_set |= own._non_persistent_buffers_set

    keywords = example_inputs if isinstance(example_inputs, Mapping) else {}
    inputs = [example_inputs] if isinstance(example_inputs, torch.Tensor) else [] if keywords else example_inputs
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
            f"model {name} has no residual addition to make mixed: it needs one of two feature maps of the same shape, "
            "written and read by convolutions or linear layers; prune the model as it is"
        )
    if not same:
        raise ValueError(
            f"model {name} computes something else when it is traced: forward must not change in place what it reads "
            "under another name, nor use self.training (call model.eval() before)"
        )
    for path, original in model.named_modules():
        traced.get_submodule(path).training = original.training
    return traced


def dead_channel_groups(graph: DependencyGraph) -> Iterator[Group]:
    """Channels of mixed sums that no operand feeds any more, as groups for the caller to prune before it goes on.

    For use after the host's own step, as ``pruner.step(interactive=True)``. Removing them leaves the function as it
    is, unless a norm or an activation between the sum and its readers makes a constant of the zero: this constant is
    then held at zero, as for every channel that Torch-Pruning removes. Channels that a grouped convolution, GroupNorm
    or LayerNorm reads stay, because these cannot lose a channel without a change of the others.

    Args:
        graph: dependency graph with ``customized_pruners=CUSTOMIZED_PRUNERS``; without mixed sums, nothing is yielded.

    Raises:
        ValueError: the graph has a `ChannelScatter` but not its pruner.
        RuntimeError: the group was not pruned.
    """
    pruner = graph.CUSTOMIZED_PRUNERS.get(ChannelScatter)
    if pruner is None and any(isinstance(module, ChannelScatter) for module in graph.model.modules()):
        raise ValueError("graph does not know ChannelScatter: build it with customized_pruners=CUSTOMIZED_PRUNERS")
    scatters = [module for module in reversed(graph.module2node) if isinstance(module, ChannelScatter)]
    found = True
    while found:  # a channel removed from one sum can leave a channel of the next without an operand
        found = False
        for scatter in scatters:
            if dead := _dead_channels(graph, scatter):
                found, before = True, scatter.out_channels
                yield graph.get_pruning_group(scatter, pruner.prune_out_channels, dead)
                if scatter.out_channels == before:
                    raise RuntimeError("the group was not pruned: call group.prune() before asking for the next")


def remove_dead_channels(graph: DependencyGraph) -> None:
    """Prune all the `dead_channel_groups`."""
    for group in dead_channel_groups(graph):
        group.prune()


def _dead_channels(graph: DependencyGraph, scatter: ChannelScatter) -> list[int]:
    """Output channels of a scatter that none of the scatters of the same sum feeds."""
    channels, fed = range(scatter.out_channels), set()
    for item in graph.get_pruning_group(
        scatter, graph.get_pruner_of_module(scatter).prune_out_channels, channels
    ).items:
        module, handler = item.dep.target.module, item.dep.handler
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)) or getattr(module, "groups", 1) > 1:
            return []
        if graph.is_out_channel_pruning_fn(handler) and not graph.is_in_channel_pruning_fn(handler):  # writes the sum
            places = set(module.index.tolist() if isinstance(module, ChannelScatter) else item.idxs)
            fed |= {root for place, root in zip(item.idxs, item.root_idxs, strict=True) if place in places}
    return sorted(set(channels) - fed)


class _Tracer(fx.Tracer):
    """Enters a module only where it may find an addition, so that the others keep minding their training mode."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ChannelScatter) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        if not kwargs and len(args) == 1 and isinstance(args[0], fx.Proxy) and next(m.children(), None) is None:
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
        return super().call_module(m, forward, args, kwargs)


def _read_sums_made_in_place(graph: fx.Graph) -> None:
    """Let what is read after an addition in place be the addition's result: it is the same tensor."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    for add in (node for node in graph.nodes if node.target in IN_PLACE_ADDS):
        add.args[0].replace_all_uses_with(add, delete_user_cb=lambda user, add=add: order[user] > order[add])


def _note_shapes(traced: fx.GraphModule, inputs: Sequence, keywords: Mapping) -> None:
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
    writers, _ = _follow_channels(traced, modules, set())
    mixed = {node for node in traced.graph.nodes if _joins_layers(node, modules, writers)}
    while tied := _follow_channels(traced, modules, mixed)[1]:
        mixed -= tied
    return [node for node in traced.graph.nodes if node in mixed]


def _follow_channels(
    traced: fx.GraphModule, modules: dict[str, nn.Module], mixed: set[fx.Node]
) -> tuple[dict[fx.Node, set[fx.Node]], set[fx.Node]]:
    """What writes the channels (dimension 1) of each tensor, and which of the mixed sums are tied to something else.

    Writers are layers, mixed sums, inputs of the network and operations that lose track of the channels. The channels
    of a tied sum are also an output of the network, or another layer's: they cannot be chosen freely.
    """
    writers, tied = {}, set()
    for node in traced.graph.nodes:
        sources = set().union(*(writers[n] for n in node.all_input_nodes))
        inputs = [n for n in node.all_input_nodes if "shape" in n.meta]
        module = modules[node.target] if node.op == "call_module" else None
        if node in mixed or _is_layer(node, modules):
            writers[node] = {node}
            continue
        weights = module is not None and any(p.squeeze().ndim > 1 for p in module.parameters())  # depthwise, attention
        is_cat = node.target in (torch.cat, torch.concat) and _cat_dimension(node) in (1, 1 - len(node.meta["shape"]))
        joined = len(inputs) > 1 and not is_cat and set().union(*(writers[n] for n in inputs)) - mixed
        if weights or joined or node.op == "output":
            tied |= sources & mixed
        name = type(module).__name__.lower() if module is not None else getattr(node.target, "__name__", node.target)
        kept = is_cat or node.meta.get("shape", ())[1:2] in [n.meta["shape"][1:2] for n in inputs]
        is_opaque = weights and not isinstance(module, nn.modules.conv._ConvNd)
        is_lost = node.op != "get_attr" and (not kept or is_opaque or name in CHANNEL_MOVES)
        writers[node] = sources | {node} if is_lost else sources
    return writers, tied


def _joins_layers(node: fx.Node, modules: dict[str, nn.Module], writers: dict[fx.Node, set[fx.Node]]) -> bool:
    """Whether this adds two maps of one shape, both written by layers and not both scattered already."""
    if node.target not in ADDS or len(node.args) != 2 or not node.kwargs.keys() <= {"alpha"}:
        return False
    shapes = [n.meta.get("shape") if isinstance(n, fx.Node) else None for n in node.args]
    if None in shapes or shapes[0] != shapes[1] or len(shapes[0]) < 2 or shapes[0][1] < 2:
        return False
    if all(n.op == "call_module" and isinstance(modules[n.target], ChannelScatter) for n in node.args):
        return False
    return all(writers[n] and all(_is_layer(writer, modules) for writer in writers[n]) for n in node.args)


def _is_layer(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether this reads channels and writes others, in dimension 1."""
    module = modules[node.target] if node.op == "call_module" else None
    if isinstance(module, nn.Linear):
        return len(node.meta["shape"]) == 2
    if isinstance(module, nn.modules.conv._ConvNd):
        return not module.groups == module.out_channels > 1  # depthwise: the channels of its input
    return isinstance(module, ChannelScatter)


def _cat_dimension(node: fx.Node) -> int:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


def _mix(traced: fx.GraphModule, add: fx.Node) -> None:
    """Replace an addition by one out of place of scattered operands; the scatters live in the module that adds."""
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

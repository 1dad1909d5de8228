"""`ChannelGraph`: Torch-Pruning's dependency graph, made by following the channels themselves."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph
from torch_pruning.dependency.node import Node

from resolution_scaling.ground.calls import call_model, on_copies
from resolution_scaling.ground.meta import call_on_meta, with_values
from resolution_scaling.ground.put_back import restoring_attributes

from .attention import head_parts
from .forward_pass import ForwardPass
from .labels.classes import FROZEN
from .labels.trace import Traced
from .options import check_layers
from .private_names import record
from .removal import ChannelGroup, group_of
from .roots import Roots
from .side_table import SideTable
from .sides import PRODUCERS, PRUNERS, TensorAxis
from .stand_ins import StandIn
from .trials import leave_wrong_groups_alone


class ChannelGraph(DependencyGraph):
    """A dependency graph that follows the channels, element by element, through one forward pass.

    Torch-Pruning guesses from the autograd graph which channels belong together. Here each parameter has a label for
    each of its indices, and each operation of the forward pass moves and unites the labels of its tensors: see
    `graph.labels`. Channels whose labels are in one class must be removed together. What the code demands of the
    *numbers* of channels (halves of a chunk, heads, groups of a convolution, sizes in ``view``) is solved for all
    layers at once. What the code makes impossible is left whole, and named in `left_alone`.

    Its groups, dependencies and handlers are those of Torch-Pruning, so that importances and pruners work with it. Use
    it in a pruner of Torch-Pruning with `following_channels`. Compared with Torch-Pruning

    - channels that depend on each other by number have a root of their own, a `CoupledChannels`; the pruner treats
      them by ``channel_groups``, as it does the groups of a convolution;
    - ``unwrapped_parameters`` are not needed: all parameters are followed;
    - frozen parameters, in-place operations and ``no_grad`` make no difference;
    - after ``group.prune()`` the numbers that the network's modules hold (``head_dim``, ``num_features``) fit, and
      attention keeps its temperature.

    Attributes:
        left_alone: for each layer of which output channels cannot be removed, why.
        unknown: the operations of the network that have no rule.

    Example:
        >>> graph = ChannelGraph().build_dependency(model, example_inputs)
        >>> group = graph.get_pruning_group(model.conv1, tp.prune_conv_out_channels, idxs=[2, 6, 9])
        >>> group.prune()
    """

    @torch.inference_mode(False)
    def build_dependency(
        self,
        model: nn.Module,
        example_inputs: Any,
        forward_fn: Callable[..., Any] | None = None,
        output_transform: Callable[..., Any] | None = None,
        unwrapped_parameters: Any = None,
        customized_pruners: dict[Any, Any] | None = None,
        ignored_layers: list[nn.Module] | None = None,
        ignored_params: list[nn.Parameter] | None = None,
        verbose: bool = True,
        verify: bool = True,
    ) -> ChannelGraph:
        """Follow the channels of a model through one forward pass; the model stays as it is.

        Args:
            model: the model.
            example_inputs: as for Torch-Pruning. The batch and the size of the images do not matter, if the model can
                take them.
            forward_fn: ``(model, example_inputs)`` -> outputs, if the model is not called in Torch-Pruning's way.
            output_transform: not needed; it is applied to the outputs.
            unwrapped_parameters: not needed, and passed over.
            customized_pruners: as for Torch-Pruning. The operations inside such layers are not followed: their channels
                are the second dimension of their first argument and of their output.
            ignored_layers: layers of which no channel is removed.
            ignored_params: parameters of which nothing is removed.
            verbose: not used.
            verify: whether removals are tried: part of each group is removed, and the channels are followed again.
                Groups with which the model does not run, or which turn out to be wrong, are left alone.

        Raises:
            TypeError, ValueError: an argument is not usable, or the model returns no tensors.
            Whatever the model raises when it is run.
        """
        check_layers(model, ignored_layers, "ignored_layers")
        check_layers(model, ignored_params, "ignored_params")
        if any(tensor.is_meta and tensor.is_floating_point() for tensor in (*model.parameters(), *model.buffers())):
            forward = None if forward_fn is call_on_meta else forward_fn
            real, inputs, kinds, layers, params = with_values(
                model, example_inputs, customized_pruners, ignored_layers, ignored_params
            )
            graph = ChannelGraph().build_dependency(
                real, inputs, forward, output_transform, None, kinds, layers, params, verbose, verify
            )
            self.__dict__.update(vars(graph.on(model)))
            return self
        self.verbose, self.model = verbose, model
        for kind, pruner in (*PRUNERS.items(), *(customized_pruners or {}).items()):
            self.register_customized_layer(kind, pruner)
        self.IGNORED_LAYERS_IN_TRACING.extend(ignored_layers or ())
        self.ignored_params = list(ignored_params or [])
        ignored = {id(parameter) for parameter in self.ignored_params}
        frozen = {name: "it is one of ignored_params" for name, p in model.named_parameters() if id(p) in ignored}
        call, transform = on_copies(forward_fn or call_model), output_transform or _same
        self._pass = ForwardPass(model, lambda model: transform(call(model, example_inputs)), self.customized())
        self.channels, traced = self._pass.first(frozen)
        if traced.idle:
            warnings.warn(_of_idle(traced.idle), stacklevel=2)
        self.unknown, self.averages = sorted(traced.unknown), sorted(traced.averages)
        self._find_sides()
        if verify:
            whole = self.followed_again()
            self._pass.united_at_first = whole.classes.joined
            leave_wrong_groups_alone(self, whole.steps)
        return self

    def on(self, model: nn.Module) -> ChannelGraph:
        """The same graph for a copy of the model, such as one on the meta device, which need not run."""
        graph = ChannelGraph()
        graph.verbose, graph.model, graph.ignored_params = self.verbose, model, []
        graph.unknown, graph.averages = self.unknown, self.averages
        names = {module: name for name, module in self.model.named_modules()}
        for kind, pruner in self.CUSTOMIZED_PRUNERS.items():
            kind = model.get_submodule(names[kind]) if isinstance(kind, nn.Module) else kind
            graph.register_customized_layer(kind, pruner)
        graph._pass = self._pass.of(model, graph.customized())
        graph.channels = copy.deepcopy(self.channels)
        graph._find_sides()
        return graph

    def _find_sides(self) -> None:
        """Find the sides of the model's layers, and the roots of the groups."""
        self.sides = SideTable(self, self.channels)
        self.module2node = {side.layer: Node(side.layer, None, side.name) for side in self.sides}
        self.out_channel_groups: dict[nn.Module, int] = {}
        self.roots = Roots(self, self.channels, self.sides)

    def couple_heads(self, num_heads: Mapping[nn.Module, int]) -> None:
        """Let queries, keys and values lose the same positions, so that whole heads can be removed.

        Args:
            num_heads: as for Torch-Pruning's pruners: layers that make queries, keys and values.
        """
        groups = []
        for parts in head_parts(self.model, num_heads):
            labels = [self.sides.outputs[layer].labels.chunk(count)[i] for layer, i, count in parts]
            groups += [labels] if len({len(part) for part in labels}) == 1 else []
        self.channels.couple(groups)
        self.roots.find()

    # ---- what Torch-Pruning asks

    def get_pruning_group(self, module: nn.Module, pruning_fn: Callable[..., Any], idxs: Sequence[int]) -> ChannelGroup:
        """The group of some channels of a layer: everything that must be removed with them.

        Raises:
            ValueError: the layer has no channels that can be removed, or one of these cannot.
        """
        if module not in self.module2node:
            raise ValueError(f"module {module} has no channels in this graph; expected a layer with parameters")
        idxs = [int(i) for i in ([idxs] if isinstance(idxs, int) else idxs)]
        side = None if self.is_out_channel_pruning_fn(pruning_fn) else self.sides.inputs.get(module)
        side = side or self.roots.side(module)
        if (self.channels.classes.of(side.labels[torch.tensor(idxs, dtype=torch.long)]) == FROZEN).any():
            raise ValueError(f"channels of {side.name} cannot be removed: {self.channels.why(side.labels)}")
        return group_of(self, side, idxs)

    def get_all_groups(
        self,
        ignored_layers: Sequence[nn.Module] = (),
        root_module_types: Sequence[type] = (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR),
    ) -> Iterator[ChannelGroup]:
        """Yield the groups of all channels that can be removed; as Torch-Pruning does.

        Args:
            ignored_layers: groups that would change outputs of one of these are left out.
            root_module_types: groups without a producer of one of these types are left out.
        """
        ignored = set(ignored_layers) | set(self.IGNORED_LAYERS_IN_TRACING)
        for root in list(self.roots):
            side = self.roots.side(root)
            if len(side.labels) < 2:
                continue
            group = self.get_pruning_group(root, side.handler, range(len(side.labels)))
            makers = {dep.target.module for dep, _ in group if self.is_out_channel_pruning_fn(dep.handler)}
            makers &= self.module2node.keys()  # not the stand-ins
            tensors = [maker for maker in makers if isinstance(maker, TensorAxis)]
            owners = {module for tensor in tensors for module, _ in self.sides.owners.get(tensor.name, ())}
            if (makers | owners) & ignored:
                continue
            weights = {tensor for tensor in tensors if self.sides.makes_channels(self.sides.outputs[tensor])}
            if weights or any(isinstance(maker, tuple(root_module_types)) for maker in makers):
                yield group

    def get_out_channels(self, module_or_node: Any) -> Any:
        """The number of output channels of a layer; None if it has none."""
        return None if isinstance(module_or_node, StandIn) else super().get_out_channels(module_or_node)

    def check_pruning_group(self, group: Any) -> bool:
        """Whether every layer keeps a channel, and the code can have the numbers of channels that are left."""
        return super().check_pruning_group(group) and not self.channels.refusal(group.classes)

    def load_pruning_history(self, pruning_history: list[Any]) -> None:
        """Redo a pruning that was recorded by ``pruning_history()`` of a `ChannelGraph`."""
        modules = {name: module for module, name in self.roots.names.items()}
        for name, is_output, idxs in pruning_history:
            module = modules[name]
            pruner = self.get_pruner_of_module(module)
            self.get_pruning_group(
                module, pruner.prune_out_channels if is_output else pruner.prune_in_channels, idxs
            ).prune(record_history=False)
        record(self, list(pruning_history))

    # ---- what else one may ask

    @property
    def left_alone(self) -> dict[str, str]:
        """For each layer, or weight outside of known layers, of which output channels cannot be removed, why."""
        found = {}
        for side in self.sides:
            if self.sides.makes_channels(side) and (why := self.channels.why(side.labels)):
                found[side.name] = why
        return found

    def classes(self) -> list[set[tuple[str, int, int]]]:
        """The coordinates (parameter, dimension, index) of each class that can be removed, constraints left aside.

        The inputs of a convolution with groups are left out: at an index of its weights, each group has another.
        """
        sizes = {(name, dim): size for name, p in self.model.named_parameters() for dim, size in enumerate(p.shape)}
        of_parameters = (
            {place for place in members if len(self.channels.axes[place[:2]]) == sizes.get(place[:2])}
            for members in self.channels.coordinates()
        )
        return [members for members in of_parameters if members]

    def named_root(self, name: str) -> nn.Module:
        """The root of a group by its name: a layer, or `CoupledChannels`.

        Raises:
            ValueError: there is none.
        """
        return self.roots.named(name)

    def producers(self, reader: nn.Module) -> list[nn.Module]:
        """The layers that produce the channels that a layer reads."""
        side = self.sides.inputs.get(reader)
        if side is None:
            return []
        classes = self.channels.classes.of(side.labels)
        made = self.sides.having(classes[classes != FROZEN])
        return [s.layer for s in made if s.is_output and isinstance(s.layer, PRODUCERS)]

    def customized(self) -> dict[nn.Module, bool]:
        """The layers with pruners of the user; for each, whether its inputs and outputs are the same channels."""
        found = {}
        for module in self.model.modules():
            pruner = self.CUSTOMIZED_PRUNERS.get(module) or self.CUSTOMIZED_PRUNERS.get(type(module))
            if pruner is not None:
                found[module] = pruner.prune_in_channels == pruner.prune_out_channels
        return found

    # ---- removing, and trying it

    def verify(self) -> list[str]:
        """Follow the channels of the pruned model again, with the labels that are left.

        Returns:
            What is wrong: layers whose channels are now tied to others than before. Empty if nothing is.
        """
        return self.tied_otherwise(self.followed_again())

    def followed_again(self) -> Traced:
        """Follow the channels through the model as it is now, with the labels that are left."""
        return self._pass.again(self.channels)

    def followed_with_other_weights(self) -> Traced:
        """Follow the channels through the model with all parameters changed at random by a tenth."""
        return self._pass.with_other_weights(self.channels)

    def tied_otherwise(self, again: Traced) -> list[str]:
        """The layers whose channels are tied to others than before, when the channels have been followed again."""
        wrong, of = self._pass.united(self.channels, again), self.channels.classes.of
        return sorted({side.name for side in self.sides if wrong & set(of(side.labels).tolist())})

    @torch.inference_mode(False)
    def finish(self, classes: torch.Tensor) -> None:
        """After channels were cut: fit the numbers that modules hold, and the factors of tensors."""
        self.channels.remove(classes, self.model, self.sides.owners)
        self.sides.fit_numbers()
        self.roots.fit_sizes()

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """A context after which the model and the graph are as before."""
        history = list(self.pruning_history())
        with restoring_attributes(self.model):
            try:
                with self.channels.trying(), self.sides.trying():
                    self.roots.find()
                    yield
            finally:
                record(self, history)
                self.roots.find()


def _of_idle(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"layers did not run with these example_inputs: {', '.join(map(repr, names[:3]))}{more}. They stay as they "
        "are, and may no longer fit what is pruned around them: pass inputs, or a forward_fn, with which they run"
    )


def _same(outputs: Any) -> Any:
    return outputs

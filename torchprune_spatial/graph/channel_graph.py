"""`ChannelGraph`: Torch-Pruning's dependency graph, made by following the channels themselves."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import DependencyGraph
from torch_pruning.dependency.node import Node

from resolution_scaling.ground.calls import call_model
from resolution_scaling.ground.meta import call_on_meta, with_values
from resolution_scaling.ground.models import evaluating
from resolution_scaling.ground.put_back import restoring_attributes

from .attention import head_parts
from .channels import Channels, Coupled
from .factors import owners_of, settle_factors
from .labels.classes import FROZEN
from .labels.trace import Traced, trace
from .options import check_layers
from .private_names import group_item, name_modules, record
from .removal import ChannelDependency, ChannelGroup, shortened
from .sides import COUNTED, CoupledChannels, Key, Side, TensorAxis, fit_numbers, reads_one_channel, sides_of
from .stand_ins import StandIn, with_stand_ins
from .trials import leave_wrong_groups_alone

PRODUCERS = (tp.ops.TORCH_CONV, nn.Linear)
COUPLED = COUNTED.prune_out_channels
"""The handler of `CoupledChannels`."""


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
        name_modules(self)
        for kind, pruner in ((TensorAxis, COUNTED), (CoupledChannels, COUNTED), *(customized_pruners or {}).items()):
            self.register_customized_layer(kind, pruner)
        self.ignored_params = list(ignored_params or [])
        self.out_channel_groups: dict[nn.Module, int] = {}
        call = forward_fn or call_model
        self._forward = lambda: (output_transform or _same)(call(self.model, example_inputs))
        frozen = {}
        for name, parameter in model.named_parameters():
            if any(parameter is ignored for ignored in self.ignored_params):
                frozen[name] = "it is one of ignored_params"
        self.IGNORED_LAYERS_IN_TRACING.extend(ignored_layers or ())
        traced = self._traced(frozen)
        self.unknown, self.averages = sorted(traced.unknown), sorted(traced.averages)
        self.channels = Channels(traced)
        stuck = [labels for labels in traced.choices if bool((traced.classes.of(labels) == FROZEN).all())]
        held = set(torch.cat(stuck).tolist()) - {FROZEN} if stuck else set()
        if held:  # where single positions cannot be removed, whole blocks of them may, such as heads
            by_blocks = Channels(self._traced(frozen, held))
            if by_blocks.frozen() < self.channels.frozen():
                self.channels = by_blocks
        self.channels.depthwise = {name for name, module in model.named_modules() if reads_one_channel(module)}
        self._bind()
        self._tied_at_first: set[tuple[int, int]] = set()
        if verify:
            whole = self.followed_again()
            self._tied_at_first = whole.classes.joined
            leave_wrong_groups_alone(self, whole.steps)
        return self

    def on(self, model: nn.Module) -> ChannelGraph:
        """The same graph for a copy of the model, such as one on the meta device, which need not run."""
        graph = ChannelGraph()
        graph.verbose, graph.model, graph.ignored_params = self.verbose, model, []
        graph.out_channel_groups, graph._forward = {}, self._forward
        graph.unknown, graph.averages = self.unknown, self.averages
        graph._tied_at_first = self._tied_at_first
        name_modules(graph)
        names = {module: name for name, module in self.model.named_modules()}
        for kind, pruner in self.CUSTOMIZED_PRUNERS.items():
            kind = model.get_submodule(names[kind]) if isinstance(kind, nn.Module) else kind
            graph.register_customized_layer(kind, pruner)
        graph.channels = copy.deepcopy(self.channels)
        graph._bind()
        return graph

    def couple_heads(self, num_heads: Mapping[nn.Module, int]) -> None:
        """Let queries, keys and values lose the same positions, so that whole heads can be removed.

        Args:
            num_heads: as for Torch-Pruning's pruners: layers that make queries, keys and values.
        """
        groups = []
        for parts in head_parts(self.model, num_heads):
            labels = [self._out_sides[layer].labels.chunk(count)[i] for layer, i, count in parts]
            groups += [labels] if len({len(part) for part in labels}) == 1 else []
        self.channels.couple(groups)
        self._set_roots()

    # ---- what Torch-Pruning asks

    def get_pruning_group(self, module: nn.Module, pruning_fn: Callable[..., Any], idxs: Sequence[int]) -> ChannelGroup:
        """The group of some channels of a layer: everything that must be removed with them.

        Raises:
            ValueError: the layer has no channels that can be removed, or one of these cannot.
        """
        if module not in self.module2node:
            raise ValueError(f"module {module} has no channels in this graph; expected a layer with parameters")
        idxs = [int(i) for i in ([idxs] if isinstance(idxs, int) else idxs)]
        coupled = self._coupled.get(module)
        side = None if coupled is not None else self._side(module, pruning_fn)
        labels = coupled.classes if coupled is not None else side.labels  # type: ignore[union-attr]
        classes = self.channels.classes.of(labels[torch.tensor(idxs, dtype=torch.long)])
        if (classes == FROZEN).any():
            why = self.channels.why(labels)
            raise ValueError(f"channels of {self._names.get(module) or module} cannot be removed: {why}")
        root = self.module2node[module]
        handler = COUPLED if side is None else side.handler
        position = torch.full((len(self.channels.classes),), -1)
        position[classes.flip(0)] = torch.arange(len(classes)).flip(0)
        group = ChannelGroup(self, classes)
        first = ChannelDependency(self, side or self._side(module, handler), root, root, handler)
        first.trigger = handler
        roots = torch.tensor(idxs, dtype=torch.long)
        items = [group_item(first, idxs, idxs)]
        for other in self._sides_with(classes):
            places = position[self.channels.classes.of(other.labels)]
            found = (places >= 0).nonzero().flatten()
            if other is side:
                if len(found) != len(idxs):  # several channels of the root are one class
                    items[0] = group_item(first, found.tolist(), roots[places[found]].tolist())
                continue
            if len(found):
                node = self.module2node[other.layer]
                dep = ChannelDependency(self, other, root if not other.is_output else node, node, handler)
                items.append(group_item(dep, found.tolist(), roots[places[found]].tolist()))
        group.items.extend(with_stand_ins(items))
        return group

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
        for root in list(self._roots):
            coupled = self._coupled.get(root)
            if coupled is not None:
                handler, count = COUPLED, len(coupled.classes)
            else:
                side = self._out_sides[root]
                handler, count = side.handler, len(side.labels)
            if count < 2:
                continue
            group = self.get_pruning_group(root, handler, range(count))
            makers = {dep.target.module for dep, _ in group if self.is_out_channel_pruning_fn(dep.handler)}
            makers &= self.module2node.keys()  # not the stand-ins
            tensors = [maker.name for maker in makers if isinstance(maker, TensorAxis)]
            owners = {module for name in tensors for module, _ in self._owners.get(name, ())}
            if (makers | owners) & ignored:
                continue
            if makers & self._weights or any(isinstance(maker, tuple(root_module_types)) for maker in makers):
                yield group

    def get_out_channels(self, module_or_node: Any) -> Any:
        """The number of output channels of a layer; None if it has none."""
        return None if isinstance(module_or_node, StandIn) else super().get_out_channels(module_or_node)

    def check_pruning_group(self, group: Any) -> bool:
        """Whether every layer keeps a channel, and the code can have the numbers of channels that are left."""
        return super().check_pruning_group(group) and not self.channels.refusal(group.classes)

    def load_pruning_history(self, pruning_history: list[Any]) -> None:
        """Redo a pruning that was recorded by ``pruning_history()`` of a `ChannelGraph`."""
        modules = {name: module for module, name in self._names.items()}
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
            if side.is_output and (isinstance(side.layer, PRODUCERS) or self._is_made(side)):
                why = self.channels.why(side.labels)
                if why:
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
        for module, known in self._names.items():
            if known == name:
                return module
        raise ValueError(f"the network has no layer {name!r}")

    def producers(self, reader: nn.Module) -> list[nn.Module]:
        """The layers that produce the channels that a layer reads."""
        side = self._in_sides.get(reader)
        if side is None:
            return []
        classes = self.channels.classes.of(side.labels)
        made = self._sides_with(classes[classes != FROZEN])
        return [s.layer for s in made if s.is_output and isinstance(s.layer, PRODUCERS)]

    def verify(self) -> list[str]:
        """Follow the channels of the pruned model again, with the labels that are left.

        Returns:
            What is wrong: layers whose channels are now tied to others than before. Empty if nothing is.
        """
        return self.tied_otherwise(self.followed_again())

    def root_names(self) -> list[str]:
        """The names of the roots of all groups."""
        return [self._names[root] for root in self._roots]

    def blocks_of(self, name: str) -> torch.Tensor:
        """The classes of a root by its name, ``[blocks, size]``: each block must lose equally many."""
        root = self.named_root(name)
        if root in self._coupled:
            return self._coupled[root].blocks
        return self.channels.classes.of(self._out_sides[root].labels)[None]

    def part_of(self, name: str, positions: torch.Tensor) -> ChannelGroup:
        """The group of the channels of a root at the same positions of each block."""
        root, (count, size) = self.named_root(name), self.blocks_of(name).shape
        idxs = (positions + torch.arange(count)[:, None] * size).flatten().sort().values
        return self.get_pruning_group(root, self._side(root, COUPLED).handler, idxs.tolist())

    def leave_alone(self, reasons: Mapping[str, str]) -> None:
        """Freeze the channels of roots.

        Args:
            reasons: why, by the names of the roots.
        """
        for name, why in reasons.items():
            root = self.named_root(name)
            labels = self._coupled[root].classes if root in self._coupled else self._out_sides[root].labels
            self.channels.classes.freeze(labels, why)
        self.channels.forget_frozen()
        self._set_roots()

    def followed_again(self) -> Traced:
        """Follow the channels through the model as it is now, with the labels that are left."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trace(
                self.model,
                self._forward,
                known=self.channels.known(),
                customized=self.customized(),
            )

    def tied_otherwise(self, again: Traced) -> list[str]:
        """The layers whose channels are tied to others than before, when the channels have been followed again."""
        unseen = self.channels.singles()
        pairs = again.classes.joined - self._tied_at_first
        wrong = {label for pair in pairs if not unseen & set(pair) for label in pair} - {FROZEN}
        return sorted({side.name for side in self.sides if wrong & set(self.channels.classes.of(side.labels).tolist())})

    # ---- removing

    @torch.inference_mode(False)
    @torch.no_grad()
    def cut(self, side: Side, idxs: Sequence[int]) -> None:
        """Remove channels of a side from its tensors."""
        keep = torch.ones(len(side.labels), dtype=torch.bool)
        keep[torch.as_tensor(list(idxs), dtype=torch.long)] = False
        if isinstance(side.layer, (TensorAxis, CoupledChannels)):
            side.layer.size = int(keep.sum())
        if not side.keys and not isinstance(side.layer, CoupledChannels):  # a customized layer
            side.handler(side.layer, list(idxs))
            key = (f"{side.name}.{'out' if side.is_output else 'in'}", 0)
            side.labels = self.channels.axes[key] = side.labels[keep]
            return
        for key in side.keys:
            if self._owner[key] is not side or len(self.channels.axes[key]) != len(keep):
                continue
            if (
                side.is_depthwise and len(keep) != self._tensor(key[0]).shape[key[1]]
            ):  # whole groups go: with their input channels
                self.channels.axes[key] = self.channels.axes[key][keep]
                self._cut_keys.append(key)
                continue
            tensor = self._tensor(key[0])
            groups = len(keep) // tensor.shape[key[1]]
            new = shortened(tensor, key[1], keep, max(1, groups))
            for module, attribute in self._owners[key[0]]:
                store = module._parameters if attribute in module._parameters else module._buffers
                store[attribute] = new  # type: ignore[assignment]
            self.channels.axes[key] = self.channels.axes[key][keep]
            self._cut_keys.append(key)
        side.labels = side.labels[keep]

    def _tensor(self, name: str) -> Any:
        """A parameter or buffer as it is now."""
        return getattr(*self._owners[name][0])

    @torch.inference_mode(False)
    def finish(self, classes: torch.Tensor) -> None:
        """After channels were cut: fit the numbers that modules hold, and the factors of tensors."""
        self.channels.remove(classes, self.model, self._owners)
        for key in self._cut_keys:
            for side in self._sides_of[key]:
                side.labels = self.channels.axes[side.keys[0]]
                fit_numbers(side)
        self._cut_keys.clear()
        for root, coupled in self._coupled.items():
            if len(coupled.blocks) == 1:  # such a root may be no move: `Channels.remove` leaves it as it is
                coupled.blocks = coupled.blocks[:, ~self.channels.removed[coupled.classes]]
            root.size = len(coupled.classes)  # type: ignore[assignment]
            self.out_channel_groups[root] = max(1, len(coupled.blocks))

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """A context after which the model and the graph are as before."""
        channels, history = self.channels, list(self.pruning_history())
        labels = [side.labels for side in self.sides]
        with restoring_attributes(self.model):
            self.channels = copy.deepcopy(channels)
            self._set_roots()
            try:
                yield
            finally:
                self.channels = channels
                record(self, history)
                for side, before in zip(self.sides, labels, strict=True):
                    side.labels = before
                    if isinstance(side.layer, TensorAxis):
                        side.layer.size = len(before)
                self._set_roots()

    # ---- making

    def _traced(self, frozen: Mapping[str, str], held: Collection[int] = ()) -> Traced:
        """Follow the channels of the model for the first time, and find what makes up for factors."""
        traced = trace(self.model, self._forward, customized=self.customized(), frozen=frozen, held=held)
        settle_factors(traced, self.model, self._forward, owners_of(self.model)[0])
        return traced

    def _bind(self) -> None:
        """Find the sides of the model's layers, and the roots of the groups."""
        self._owners, same_name = owners_of(self.model)
        with evaluating(self.model):  # in training mode, reading a spectral norm's weight changes its vectors
            self.sides = sides_of(self, self.channels.axes, same_name, self._tensor, self.channels.depthwise)
        order = {name: i for i, name in enumerate(self.channels.order)}
        self.sides.sort(key=lambda side: order.get(side.name, order.get(side.name.rpartition(".")[0], len(order))))
        self._owner: dict[Key, Side] = {}
        self._sides_of: dict[Key, list[Side]] = {}
        for side in self.sides:
            for key in side.keys:
                self._owner.setdefault(key, side)
                self._sides_of.setdefault(key, []).append(side)
        self._cut_keys: list[Key] = []
        self._labels = torch.cat([side.labels for side in self.sides] or [torch.zeros(0, dtype=torch.long)])
        sizes = torch.tensor([len(side.labels) for side in self.sides], dtype=torch.long)
        self._order: tuple[int, torch.Tensor, torch.Tensor] | None = None  # the sides by the classes of their labels
        self._label_sides = torch.arange(len(self.sides)).repeat_interleave(sizes)
        self.module2node = {side.layer: Node(side.layer, None, side.name) for side in self.sides}
        self._out_sides = {side.layer: side for side in self.sides if side.is_output}
        self._in_sides = {side.layer: side for side in self.sides if not side.is_output}
        self._names: dict[nn.Module, str] = {
            side.layer: side.name for side in self.sides if not isinstance(side.layer, TensorAxis)
        }
        self._coupled: dict[nn.Module, Coupled] = {}
        self._set_roots()

    def _set_roots(self) -> None:
        """Find the roots of the groups: layers whose channels are all free of each other, and `CoupledChannels`."""
        by_name = {name: module for module, name in self._names.items()}
        self._roots: list[nn.Module] = []
        coupled: dict[nn.Module, Coupled] = {}
        sides = [side for side in reversed(self._out_sides.values()) if side.keys]
        sides = [side for side in sides if not side.is_tensor or self._is_made(side)]
        self._weights = {side.layer for side in sides if side.is_tensor}  # outside of known layers
        sides.sort(key=_rank)
        for name, found in self.channels.roots([(s.root_name, s.labels, not s.is_tensor) for s in sides]):
            root = by_name.get(name)
            if found is not None:
                if root is None:
                    root = CoupledChannels(len(found.classes))
                    self.module2node[root] = Node(root, None, name)
                    self._names[root] = name
                root.size = len(found.classes)  # type: ignore[assignment]
                coupled[root] = found
                self.out_channel_groups[root] = max(1, len(found.blocks))
            self._roots += [] if root is None else [root]
        self._coupled = coupled
        name_modules(self, {root: name for root, name in self._names.items() if isinstance(root, CoupledChannels)})

    def _is_made(self, side: Side) -> bool:
        """Whether a tensor outside of known layers is a weight, and these are its outputs."""
        if not side.is_tensor or ".parametrizations." in side.name:
            return False
        made = torch.isin(side.labels, self.channels.made).all()
        return bool(made) and isinstance(self._tensor(side.name), nn.Parameter)

    def _side(self, module: nn.Module, pruning_fn: Callable[..., Any]) -> Side:
        if isinstance(module, CoupledChannels):
            return Side(module, True, COUPLED, self._coupled[module].classes, [], self._names[module])
        sides = self._out_sides if self.is_out_channel_pruning_fn(pruning_fn) else self._in_sides
        side = sides.get(module) or self._out_sides.get(module)
        if side is None:
            raise ValueError(f"{self._names.get(module, module)} has no channels on this side that can be removed")
        return side

    def _sides_with(self, classes: torch.Tensor) -> list[Side]:
        """The sides that have channels of some classes."""
        if self._order is None or self._order[0] != self.channels.classes.unions:
            by_class, order = self.channels.classes.of(self._labels).sort(stable=True)
            self._order = self.channels.classes.unions, by_class, self._label_sides[order]
        _, by_class, side_of = self._order
        start, stop = torch.searchsorted(by_class, classes), torch.searchsorted(by_class, classes, right=True)
        places = torch.arange(int((stop - start).sum()))  # from each start to its stop, one after the other
        places += (start - (stop - start).cumsum(0) + (stop - start)).repeat_interleave(stop - start)
        return [self.sides[i] for i in side_of[places].unique().tolist()]

    def customized(self) -> dict[nn.Module, bool]:
        """The layers with pruners of the user; for each, whether its inputs and outputs are the same channels."""
        found = {}
        for module in self.model.modules():
            pruner = self.CUSTOMIZED_PRUNERS.get(module) or self.CUSTOMIZED_PRUNERS.get(type(module))
            if pruner is not None:
                found[module] = pruner.prune_in_channels == pruner.prune_out_channels
        return found


def _rank(side: Side) -> int:
    """Roots are looked for among layers first. A norm or a depthwise convolution may join what several layers make."""
    if isinstance(side.layer, PRODUCERS) and not side.is_depthwise:
        return 0
    return 1 if side.is_tensor else 2


def _same(outputs: Any) -> Any:
    return outputs

"""One forward pass in which the labels of parameters are followed to the outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from resolution_scaling.ground.models import evaluating
from resolution_scaling.ground.put_back import restoring_attributes

from . import moving_rules  # noqa: F401  (registers its rules)
from .classes import LabelClasses
from .counts import Numbers, labels_in
from .following import Following, tensors_in
from .rules import Call, rule_for
from .sizes import Factor, Relation, Sizes
from .steps import Step, base_name, steps_of
from .storages import storage_key

Axes = dict[tuple[str, int], torch.Tensor]
"""The labels of parameters and buffers: ``(name, dimension)`` -> ``[size]``."""

OUTPUT = "an output of the network"
"""The reason why channels of outputs are left alone."""

WHOLE = (nn.RNNBase, nn.RNNCellBase, nn.EmbeddingBag, nn.Bilinear)
"""Layers whose channels are all left alone."""


IN_PLACE_VIEWS = ("as_strided_", "squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "detach_")


@dataclass(frozen=True)
class Traced:
    """What a forward pass has shown.

    Attributes:
        classes: the classes of all labels.
        axes: the labels of parameters and buffers.
        equal_counts: tensors of labels ``[blocks, size]``: each block must lose equally many.
        relations: numbers of labels that follow from others, or from attributes.
        factors: powers of numbers of channels with which tensors are multiplied.
        numbers: which attributes must keep their values.
        averages: operations that averaged over labels.
        unknown: operations without a rule.
        steps: all operations.
        order: names of the layers, in the order in which they ran.
    """

    classes: LabelClasses
    axes: Axes
    equal_counts: list[torch.Tensor]
    relations: list[Relation]
    factors: list[Factor]
    numbers: Numbers
    averages: set[str]
    unknown: set[str]
    steps: list[Step]
    order: list[str]


class Dispatch(TorchDispatchMode):
    """Applies the rule of each operation that runs."""

    def __init__(self, following: Following):
        super().__init__()
        self.following = following

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        inputs, outputs = tensors_in((args, kwargs)), tensors_in(result)
        of_sum = any(_has_storage(tensor) and self.following.storages.of_sum(tensor) for tensor in inputs)
        self.following.steps += steps_of(function, args, kwargs or {}, of_sum)
        labelled = [tensor for tensor in inputs if _has_storage(tensor) and tensor in self.following.storages]
        if not labelled or not outputs or self._is_view(function, inputs[0], outputs):
            return result
        for tensor in labelled:
            positions = self.following.storages.positions(tensor)
            if positions is not None:
                self.following.freeze(positions, "the code computes with its position")
        rule = rule_for(function)
        if rule is not None:
            args = (*args, *_defaults(function._schema.arguments[len(args) :], kwargs or {}))
            name = function._schema.name.split("::")[1]
            call = Call(base_name(name), args, kwargs or {}, result, function)
            rule(self.following, call)
            self.labelled(call)
        else:
            self.following.unknown.add(function._schema.name)
            for tensor in labelled:
                for track in self.following.get(tensor):
                    self.following.freeze(track, f"{function._schema.name} is not known")
            self.following.set([tensor for tensor in outputs if tensor in self.following.storages], [])
        return result

    def labelled(self, call: Call) -> None:
        """Called after the result of an operation has got its labels; nothing is done here."""

    @staticmethod
    def _is_view(function: Any, source: torch.Tensor, outputs: list[torch.Tensor]) -> bool:
        name = function._schema.name.split("::")[1]
        in_place = name.endswith("_") and outputs[0] is source and name not in IN_PLACE_VIEWS
        return not in_place and all(storage_key(output) == storage_key(source) for output in outputs)


def _defaults(left: list[Any], given: Mapping[str, Any]) -> list[Any]:
    """The values of positional arguments that were left out."""
    return [
        argument.default_value if argument.has_default_value() else None
        for argument in left
        if not argument.kwarg_only and argument.name not in given
    ]


def trace(
    model: nn.Module,
    forward: Callable[[], Any],
    *,
    known: tuple[LabelClasses, Axes] | None = None,
    customized: Mapping[nn.Module, bool] | None = None,
    frozen: Mapping[str, str] | None = None,
    dispatch: Callable[[Following], Dispatch] = Dispatch,
) -> Traced:
    """Follow the labels of a model's parameters through one forward pass.

    Args:
        model: the model. Afterwards it is as it was.
        forward: runs the model on some inputs.
        known: labels that the parameters have already: their classes are watched for unions.
        customized: layers that are looked at from outside only, because the user describes how they are pruned; for
            each, whether its inputs and outputs are the same channels.
        frozen: names of parameters that must not be changed, with the reasons.
        dispatch: what runs and labels the operations.
    """
    known_classes, known_axes = known or (None, None)
    following = Following(LabelClasses() if known_classes is None else known_classes.watched())
    sizes = Sizes(following)
    customized = customized or {}
    with contextlib.ExitStack() as stack:
        for context in (evaluating(model), restoring_attributes(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH)):
            stack.enter_context(context)
        axes, order = _label_parameters(model, following, known_axes), []
        for (name, _), labels in axes.items():
            if reason := (frozen or {}).get(name):
                following.freeze(labels, reason)
        for name, module in model.named_modules():
            if module in customized:
                layer = _OpaqueLayer(following, axes, name, customized[module])
                stack.callback(module.register_forward_pre_hook(layer.before).remove)
                stack.callback(module.register_forward_hook(layer.after).remove)
            elif isinstance(module, WHOLE):
                whole = _WholeLayer(following, axes, name)
                stack.callback(module.register_forward_pre_hook(whole.before).remove)
                stack.callback(module.register_forward_hook(whole.after).remove)
            stack.callback(module.register_forward_hook(lambda *_, name=name: order.append(name)).remove)
        if known is None:
            stack.enter_context(sizes.counting_attributes(model))
            stack.enter_context(sizes)
        with dispatch(following):
            outputs = forward()
        for tensor in tensors_in(outputs):
            for track in following.get(tensor) if _has_storage(tensor) else ():
                following.classes.freeze(track, OUTPUT)
    sizes.find_candidates()
    for used in sizes.numbers.as_values:
        if not used.explained:
            sizes.numbers.fix(used.terms)
            for labels in labels_in(used.terms):
                following.classes.freeze(labels, "the code computes with its number")
    return Traced(
        following.classes,
        axes,
        following.equal_counts,
        sizes.relations + [Relation(torch.zeros(0, dtype=torch.long), terms) for terms in sizes.numbers.equal],
        sizes.factors,
        sizes.numbers,
        following.averages,
        following.unknown,
        following.steps,
        list(dict.fromkeys(order)),
    )


def _label_parameters(model: nn.Module, following: Following, known: Axes | None) -> Axes:
    """Give each parameter and buffer its labels: one for each index of each dimension, kernels left out."""
    axes: Axes = {}
    seen: set[int] = set()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if id(tensor) in seen or not _has_storage(tensor) or tensor.dim() == 0:
            continue
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        seen.add(id(tensor))
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        convolution = module if isinstance(module, nn.modules.conv._ConvNd) and attribute == "weight" else None
        tracks = []
        for dim, size in enumerate(tensor.shape):
            if known is not None:
                if (name, dim) not in known:
                    continue
                axes[name, dim] = known[name, dim]
            elif (size == 1 and not _is_grouped(convolution, dim)) or (convolution is not None and dim > 1):
                continue
            else:
                of_groups = convolution.groups if _is_grouped(convolution, dim) and convolution is not None else 1
                if size * of_groups == 1 or (of_groups > 1 and size == 1):
                    continue
                axes[name, dim] = following.classes.new(size * of_groups)
            tracks.append(track_of(axes[name, dim], tensor, dim))
        following.storages.set(tensor, tracks)
        following.storages.parameters.add(storage_key(tensor))
    return axes


def _is_grouped(convolution: nn.modules.conv._ConvNd | None, dim: int) -> bool:
    """Whether each group of a convolution has channels of its own along a dimension of its weight."""
    return convolution is not None and convolution.groups > 1 and dim == 1


def track_of(labels: torch.Tensor, tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """The labels of a dimension of a parameter as a track of it."""
    groups = len(labels) // max(1, tensor.shape[dim])
    if groups <= 1:
        return labels.reshape([-1 if d == dim else 1 for d in range(tensor.dim())])
    of_group = labels.reshape(groups, 1, tensor.shape[dim])
    rows = of_group.expand(groups, tensor.shape[0] // groups, tensor.shape[dim])
    return rows.reshape(tensor.shape[0], tensor.shape[dim], *[1] * (tensor.dim() - 2))


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and type(tensor) in (torch.Tensor, nn.Parameter)


class _OpaqueLayer:
    """A layer that the user describes: its operations are not followed.

    Its labels are axes of their own, ``"<name>.in"`` and ``"<name>.out"``.
    """

    def __init__(self, following: Following, axes: Axes, name: str, same: bool):
        self.following, self.axes, self.name, self.same = following, axes, name, same
        self._inputs: list[torch.Tensor] = []

    def before(self, module: nn.Module, args: Any) -> Any:
        """Take the labels of the input, and give the layer one without labels."""
        x = tensors_in(args)[0]
        self._inputs = self._of_channels(x, self.following.get(x), "in")
        with torch.utils._python_dispatch._disable_current_modes():
            bare = x.clone()
        return tuple(bare if value is x else value for value in args)

    def after(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """Label the output."""
        with torch.utils._python_dispatch._disable_current_modes():
            output = output.clone()
        if self.same:
            tracks = self._inputs
            if tracks:
                self.axes[f"{self.name}.out", 0] = self.axes[f"{self.name}.in", 0]
        else:
            labels = self.axes.get((f"{self.name}.out", 0))
            if labels is None:
                labels = self.following.classes.new(output.shape[1])
                self.axes[f"{self.name}.out", 0] = labels
            tracks = [labels.reshape([-1 if dim == 1 else 1 for dim in range(output.dim())])]
        self.following.set(output, tracks)
        return output

    def _of_channels(self, x: torch.Tensor, tracks: list[torch.Tensor], side: str) -> list[torch.Tensor]:
        key = (f"{self.name}.{side}", 0)
        if key not in self.axes:
            self.axes[key] = self.following.classes.new(x.shape[1])
        column = self.axes[key].reshape([-1 if dim == 1 else 1 for dim in range(x.dim())])
        if not tracks:
            self.following.freeze(column, "it meets channels that no layer makes")
        for track in tracks:
            self.following.classes.unite(track, column)
        return [self.following.classes.of(column)]


class _WholeLayer:
    """A layer whose channels are left alone: recurrent cells."""

    def __init__(self, following: Following, axes: Axes, name: str):
        self.following, self.axes, self.name = following, axes, name

    def before(self, module: nn.Module, args: Any) -> None:
        """Freeze its weights and what it reads."""
        why = f"{type(module).__name__} is left whole"
        for key, labels in self.axes.items():
            if key[0].startswith(f"{self.name}."):
                self.following.classes.freeze(labels, why)
        for tensor in tensors_in(args):
            for track in self.following.get(tensor) if _has_storage(tensor) else ():
                self.following.classes.freeze(track, why)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Its outputs have no labels."""
        for tensor in tensors_in(output):
            if _has_storage(tensor):
                self.following.set(tensor, [])

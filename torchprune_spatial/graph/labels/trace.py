"""One forward pass in which the labels of parameters are followed to the outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resolution_scaling.ground.models import evaluating
from resolution_scaling.ground.put_back import restoring_attributes

from . import convolution_rules, moving_rules, size_rules  # noqa: F401  (they register their rules)
from .attribute_counts import counting_attributes
from .classes import FROZEN, LabelClasses
from .following import Following, tensors_in
from .idle import asks_for_training, heads_in_training, idle_layers, settle_idle
from .notes import Factor, Numbers, Relation, labels_in
from .parameters import Axes, has_storage, label_parameters
from .rules import Call, rule_for
from .sizes import FILLING, WATCHED, Sizes
from .special_layers import WHOLE, AttentionLayer, OpaqueLayer, WholeLayer
from .steps import Step, base_name, steps_of
from .storages import storage_key

OUTPUT = "an output of the network"
"""The reason why channels of outputs are left alone."""

CACHES = "transformers.cache_utils"
"""The module of caches that decoders return beside their outputs."""

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
        made: labels of the outputs of convolutions and matrix products, ``[n]``.
        choices: labels that could be ``held``, ``[n]`` each.
        idle: names of layers that did not run, and whose channels stay.
        trained, filled: as in `Known`.
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
    made: torch.Tensor
    choices: list[torch.Tensor]
    idle: list[str]
    trained: bool
    filled: bool


@dataclass(frozen=True)
class Known:
    """Labels that parameters have already.

    Attributes:
        classes, axes, equal_counts: as in `Traced`.
        trained: whether heads that run in training only were followed, too.
        filled: whether the code makes new tensors of sizes that are counts.
    """

    classes: LabelClasses
    axes: Axes
    equal_counts: list[torch.Tensor]
    trained: bool = False
    filled: bool = False


class Dispatch(TorchDispatchMode):
    """Applies the rule of each operation that runs."""

    def __init__(self, following: Following):
        super().__init__()
        self.following = following

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if rule_for(function) is None and function._can_decompose():  # with tensors of inference mode
            with self:
                return function.decompose(*args, **(kwargs or {}))
        result = function(*args, **(kwargs or {}))
        inputs, outputs = tensors_in((args, kwargs)), tensors_in(result)
        of_sum = any(has_storage(tensor) and self.following.storages.of_sum(tensor) for tensor in inputs)
        self.following.steps += steps_of(function, args, kwargs or {}, of_sum)
        labelled = [tensor for tensor in inputs if has_storage(tensor) and tensor in self.following.storages]
        self.following.used.update(map(storage_key, labelled))
        if not labelled or not outputs or self._is_view(function, inputs[0], outputs):
            return result
        for tensor in labelled:
            positions = self.following.storages.positions(tensor)
            if positions is not None:
                self.following.freeze(positions, "the code computes with its position")
        rule = rule_for(function)
        if rule is not None:
            args = (*args, *defaults(function._schema.arguments[len(args) :], kwargs or {}))
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


class Plain(TorchFunctionMode):
    """Does nothing; where such a mode is active, PyTorch takes no short cuts through attention."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function."""
        return function(*args, **(kwargs or {}))


def defaults(left: list[Any], given: Mapping[str, Any]) -> list[Any]:
    """The values of positional arguments that were left out."""
    return [
        argument.default_value if argument.has_default_value() else None
        for argument in left
        if not argument.kwarg_only and argument.name not in given
    ]


def outputs_in(value: Any) -> list[torch.Tensor]:
    """The tensors among the outputs of a network, also those that objects hold as attributes.

    Caches of keys and values are left out: they are for the network itself, which makes them as wide as they must be.
    """
    found, seen, pending = list[torch.Tensor](), set[int](), tree_leaves(value)
    while pending:
        leaf = pending.pop(0)
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)) and id(leaf) not in seen:
            seen.add(id(leaf))
            if type(leaf).__module__ == CACHES:
                continue
            pending += tree_leaves(vars(leaf))
    return found


def _without_outputs(outputs: list[torch.Tensor]) -> str:
    """Why outputs say nothing about the channels that must stay."""
    if outputs:
        return (
            f"the network's outputs have no elements (shape {list(outputs[0].shape)}), so that nothing can be followed "
            "to them: give example_inputs with at least one image, of a size that the network can take; for a detector "
            "that finds nothing, a forward_fn that returns what it chooses from"
        )
    return (
        "the network returns no tensors, so that it cannot be seen which channels are its outputs: pass a forward_fn "
        "that returns them, as tensors or in tuples, lists, dicts or objects"
    )


def trace(
    model: nn.Module,
    forward: Callable[[], Any],
    *,
    known: Known | None = None,
    customized: Mapping[nn.Module, bool] | None = None,
    frozen: Mapping[str, str] | None = None,
    held: Collection[int] = (),
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
        held: labels that lose no positions in the innermost dimension of a view, but in the outermost: whole heads.
        dispatch: what runs and labels the operations.
    """
    following = Following(LabelClasses() if known is None else known.classes.watched())
    following.equal_counts += [] if known is None else known.equal_counts
    watched = WATCHED if known is None else FILLING
    sizes = Sizes(following, {module: name for name, module in model.named_modules()}, held, watched)
    customized = customized or {}
    with contextlib.ExitStack() as stack:
        for context in (evaluating(model), restoring_attributes(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH)):
            stack.enter_context(context)
        axes, order = label_parameters(model, following, None if known is None else known.axes), []
        for (name, _), labels in axes.items():
            if reason := (frozen or {}).get(name):
                following.freeze(labels, reason)
        for name, module in model.named_modules():
            if module in customized or isinstance(module, WHOLE):
                layer: Any = (
                    OpaqueLayer(following, axes, name, customized[module])
                    if module in customized
                    else WholeLayer(following, axes, name)
                )
                stack.callback(module.register_forward_pre_hook(layer.before).remove)
                stack.callback(module.register_forward_hook(layer.after).remove)
            elif isinstance(module, nn.MultiheadAttention) and known is None:
                attention = AttentionLayer(sizes, axes, name)
                stack.callback(module.register_forward_hook(attention.after).remove)
            stack.callback(module.register_forward_hook(lambda *_, name=name: order.append(name)).remove)
        counting = known is None or known.filled
        stack.enter_context(counting_attributes(model, axes, sizes.numbers) if counting else contextlib.nullcontext())
        stack.enter_context(sizes if counting else Plain())
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))

        def follow() -> None:
            with dispatch(following):
                outputs = outputs_in(forward())
            if known is None and not any(tensor.numel() for tensor in outputs):
                raise ValueError(_without_outputs(outputs))
            for tensor in outputs:
                for track in following.get(tensor) if has_storage(tensor) else ():
                    following.classes.freeze(track, OUTPUT)

        follow()
        idle, trained = list[str](), known is not None and known.trained
        if known is None:
            idle = idle_layers(model, following, axes, order)
            if idle or asks_for_training(model):
                with heads_in_training(model), contextlib.suppress(Exception):
                    follow()
                    idle, trained = idle_layers(model, following, axes, order), True
            idle = settle_idle(model, following, axes, idle)
        elif trained:
            with heads_in_training(model):
                follow()
    sizes.find_candidates()
    for used in sizes.numbers.as_values if known is None else ():
        if not used.explained:
            sizes.numbers.fix(used.terms)
            for labels in labels_in(used.terms):
                following.classes.freeze(labels, f"the code computes with its number ({used.line})")
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
        torch.cat([torch.tensor([FROZEN]), *(labels.flatten() for labels in following.made)]).unique(),
        sizes.choices,
        idle,
        trained,
        sizes.has_filled,
    )

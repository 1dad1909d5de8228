"""Factors that are powers of numbers of channels, as the temperature of attention: weights make up for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch.overrides import TorchFunctionMode

from resolution_scaling.ground.models import attribute_tensors, evaluating
from resolution_scaling.ground.put_back import restoring_attributes

from .labels.following import tensors_in
from .labels.notes import Factor, labels_in
from .labels.parameters import Axes
from .labels.sizes import BEFORE
from .labels.trace import Traced

Owners = dict[str, list[tuple[nn.Module, str]]]
"""The modules that hold each tensor, and their attributes."""

WHY = "a tensor is multiplied by a power of its number, and no weights can make up for that"


def settle_factors(traced: Traced, model: nn.Module, forward: Callable[[], Any], owners: Owners) -> None:
    """Find out which weights can make up for each factor. Where none can, the number of channels stays.

    To see whether weights can make up for a factor, they are doubled, and the factor is halved. Both are exact, so that
    the outputs must be the same, bit by bit. They are not if the weights are used without the factor, too.

    Args:
        traced: what a forward pass has shown. Its factors get their ``makers``, or are taken out.
        model, forward: the model, and what runs it.
        owners: of all parameters.
    """
    seen = [factor for factor in traced.factors if factor.places]  # the others are known for certain
    if not seen:
        return
    trials = _Trials(traced.axes, model, forward, owners)
    wrong = _settle(seen, trials)
    if wrong and not trials.repeatable():
        return  # outputs are random: nothing can be found out
    for factor in wrong:
        traced.factors.remove(factor)
        traced.numbers.fix(factor.terms)
        for labels in labels_in(factor.terms):
            traced.classes.freeze(labels, WHY)


def _settle(factors: Sequence[Factor], trials: _Trials) -> list[Factor]:
    """Give factors those of their candidates that are right; return those that have none."""
    for choice in range(max(len(factor.candidates) for factor in factors)):
        for factor in factors:
            factor.makers = factor.candidates[min(choice, len(factor.candidates) - 1)]
        if trials.right(factors):
            return []
    if len(factors) == 1:
        return list(factors)
    half = len(factors) // 2
    return _settle(factors[:half], trials) + _settle(factors[half:], trials)


class _Trials:
    """Runs of a model with factors halved, and the weights that make up for them doubled."""

    def __init__(self, axes: Axes, model: nn.Module, forward: Callable[[], Any], owners: Owners):
        self.axes, self.model, self.forward, self.owners = axes, model, forward, owners
        self.outputs = self._run([])

    def right(self, factors: Sequence[Factor]) -> bool:
        return _same(self.outputs, self._run(factors))

    def repeatable(self) -> bool:
        return _same(self.outputs, self._run([]))

    @torch.no_grad()
    def _run(self, factors: Sequence[Factor]) -> list[torch.Tensor]:
        with evaluating(self.model), restoring_attributes(self.model), torch.random.fork_rng():
            torch.manual_seed(0)
            for factor in factors:
                scale_weights(self.axes, factor.makers, 2.0, self.owners)
            with _Halving({place for factor in factors for place in factor.places}):
                return [tensor.detach().clone() for tensor in tensors_in(self.forward())]


class _Halving(TorchFunctionMode):
    """Halves the results of some of the products, and the queries of attention.

    Args:
        places: their positions among all calls of such functions.
    """

    def __init__(self, places: set[int]):
        super().__init__()
        self.places, self.place = places, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.place += function in BEFORE
        if function not in BEFORE or self.place not in self.places:
            return function(*args, **kwargs)
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, rest = (args[0], args[1:]) if args else (kwargs["query"], ())
            named = {name: value for name, value in kwargs.items() if name != "query"}
            return function(query / 2, *rest, **named)
        return function(*args, **kwargs).div_(2)


def _same(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(ones, others, strict=True))


@torch.no_grad()
def scale_weights(
    axes: Axes, makers: torch.Tensor, scale: float, owners: Mapping[str, list[tuple[nn.Module, str]]]
) -> None:
    """Multiply the weights with some labels, and the biases beside them: new tensors take their places."""
    least, most = int(makers.min()), int(makers.max())
    for (name, dim), labels in axes.items():
        if not len(labels) or int(labels[-1]) < least or int(labels[0]) > most:  # labels of an axis ascend
            continue
        rows = torch.isin(labels, makers)
        if not rows.any():
            continue
        for module, attribute in owners.get(name, ()):
            _scale_rows(module, attribute, dim, rows, scale)
        for module, attribute in owners.get(name, ())[:1]:
            bias = f"{attribute.removesuffix('weight')}bias" if attribute.endswith("weight") else ""
            own = axes.get((f"{name.removesuffix(attribute)}{bias}", 0)) if bias else None
            if own is not None and not torch.isin(own, makers).any():
                _scale_rows(module, bias, 0, rows, scale)


def _scale_rows(module: nn.Module, attribute: str, dim: int, rows: torch.Tensor, scale: float) -> None:
    tensor = module._parameters.get(attribute)
    if tensor is None:
        return
    factors = torch.ones(len(rows), dtype=tensor.dtype).masked_fill(rows, scale).to(tensor.device)
    shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
    scaled = nn.Parameter(tensor * factors.reshape(shape), tensor.requires_grad)
    scaled.grad = tensor.grad
    module._parameters[attribute] = scaled


def owners_of(model: nn.Module) -> tuple[Owners, dict[str, str]]:
    """The owners of all tensors that modules hold, and the first names of those that have several."""
    owners: Owners = {}
    same_name: dict[str, str] = {}
    first_name: dict[int, str] = {}
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
        *attribute_tensors(model).items(),
    ]:
        path, _, attribute = name.rpartition(".")
        known = first_name.setdefault(id(tensor), name)
        if known != name:
            same_name[name] = known
        owners.setdefault(known, []).append((model.get_submodule(path), attribute))
    return owners, same_name

"""Numbers that modules hold as attributes, as counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
import torch.nn as nn

from .counts import Count
from .notes import Attribute, Labels, Numbers
from .parameters import Axes

WITH_SIZE = ("normalized_shape",)
"""Attributes of PyTorch's own layers that are followed; those of other modules are all followed."""

LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.Embedding)
OF_WEIGHT = {
    **dict.fromkeys(("out_channels", "out_features", "num_features", "num_channels"), 0),
    **dict.fromkeys(("in_channels", "in_features", "embedding_dim"), 1),
}
"""Attributes of `LAYERS`, and the dimension of the weight that they count."""


@contextlib.contextmanager
def counting_attributes(model: nn.Module, axes: Axes, numbers: Numbers) -> Iterator[None]:
    """Inside, integers that are attributes of modules are counts; afterwards they are themselves again.

    Args:
        model: the model.
        axes: the labels of its parameters.
        numbers: where their uses are noted. Afterwards they are followed no more.
    """
    changed: list[tuple[dict[str, Any], str, Any, Any]] = []
    try:
        for name, module in model.named_modules():
            own = vars(module)
            for key, value in list(own.items()):
                counted = _of_weight(value, name, module, key, axes, numbers) or _counted(
                    value, name, module, key, numbers
                )
                if counted is not None:
                    own[key] = counted
                    changed.append((own, key, value, counted))
        yield
    finally:
        numbers.following = False
        for own, key, value, counted in changed:
            if own.get(key) is counted:
                own[key] = value


def _of_weight(value: Any, name: str, module: nn.Module, key: str, axes: Axes, numbers: Numbers) -> Count | None:
    if type(value) is not int or key not in OF_WEIGHT or not isinstance(module, LAYERS):
        return None
    dim = 1 - OF_WEIGHT[key] if getattr(module, "transposed", False) else OF_WEIGHT[key]
    labels = axes.get((f"{name}.weight" if name else "weight", dim))
    if labels is None or len(labels) != value:
        return None
    return Count(value, {(Labels(labels),): Fraction(1)}, numbers)


def _counted(value: Any, name: str, module: nn.Module, key: str, numbers: Numbers) -> Any:
    if isinstance(module, LAYERS) and key == "groups":  # fitted with the layer, also of a subclass
        return None
    builtin = type(module).__module__.startswith("torch.nn")
    by_channel = key == "num_groups" and isinstance(module, nn.GroupNorm) and value == module.num_channels
    if not by_channel and (key not in (*WITH_SIZE, *OF_WEIGHT) if builtin else key.startswith("_")):
        return None
    if type(value) is int and value > 1:
        return _attribute(value, Attribute(name, key), numbers)
    if type(value) in (tuple, list, torch.Size) and all(type(item) is int for item in value):
        items = [_attribute(v, Attribute(name, key, i), numbers) if v > 1 else v for i, v in enumerate(value)]
        return type(value)(items)
    return None


def _attribute(value: int, attribute: Attribute, numbers: Numbers) -> Count:
    numbers.values[attribute] = value
    return Count(value, {(attribute,): Fraction(1)}, numbers)

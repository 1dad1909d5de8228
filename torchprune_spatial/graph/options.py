"""Checks of what users pass to pruners and graphs: errors name the argument and the remedy."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch.nn as nn
import torch_pruning as tp

from resolution_scaling.ground.arguments import whole_number


def check_option_names(options: Iterable[str]) -> None:
    """Check that Torch-Pruning's pruner has options of these names.

    Raises:
        TypeError: it has not.
    """
    known = list(inspect.signature(tp.pruner.BasePruner.__init__).parameters)[1:]
    for name in options:
        if name not in known:
            alike = difflib.get_close_matches(name, known, 1)
            raise TypeError(
                f"{name} is no option; expected options of tp.pruner.BasePruner"
                + (f". Did you mean {alike[0]!r}?" if alike else f": {', '.join(known[3:])}")
            )


def check_layers(model: nn.Module, layers: Any, name: str, parameters: bool = True) -> None:
    """Check that layers are a collection of modules and, unless excluded, parameters of a model.

    Args:
        model: the model.
        layers: the argument; None is none.
        name: its name.
        parameters: whether it may hold parameters.

    Raises:
        TypeError, ValueError: it is something else, or one of them is not of the model.
    """
    kinds = (nn.Module, nn.Parameter) if parameters else nn.Module
    expected = f"expected a list of layers of the model{' or parameters' * parameters}, such as [model.fc]"
    if layers is None:
        return
    if isinstance(layers, (str, bytes, nn.Module)) or not isinstance(layers, Iterable):
        raise TypeError(f"{name} is {_short(layers)}; {expected}")
    own = {id(part) for part in (*model.modules(), *model.parameters())}
    for layer in layers:
        if not isinstance(layer, kinds):
            get = f"; use model.get_submodule({layer!r})" if isinstance(layer, str) else ""
            raise TypeError(f"{name} holds {_short(layer)}; {expected}{get}")
        if id(layer) not in own:
            raise ValueError(f"{name} holds {_short(layer)}, which is not in the model; {expected}")


def check_heads(model: nn.Module, num_heads: Any) -> None:
    """Check that ``num_heads`` maps layers of a model to whole numbers.

    Raises:
        TypeError, ValueError: it does not.
    """
    if num_heads is None:
        return
    if not isinstance(num_heads, Mapping):
        raise TypeError(
            f"num_heads is {_short(num_heads)}; expected a dict from the layers that make queries, keys and values to "
            "their numbers of heads, such as attention_heads(model)"
        )
    check_layers(model, list(num_heads), "num_heads", parameters=False)
    for layer, count in num_heads.items():
        whole_number(count, f"num_heads[{_short(layer)}]")


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]

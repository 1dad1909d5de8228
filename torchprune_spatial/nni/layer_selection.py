"""Which layers one dict of NNI's configuration list selects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from resolution_scaling.cnn.resized_conv import ResizedConv2d, role_and_plain

from ..graph.layers import CHANNEL_LAYERS

LAYERS = (*CHANNEL_LAYERS, nn.MultiheadAttention, nn.RNNBase)
"""Layers that a configuration can select: those that produce channels."""

SELECTION = ("op_types", "op_names", "op_names_re", "exclude_op_types", "exclude_op_names", "exclude_op_names_re")
PARTIAL = "op_partial_names"


def select_layers(model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Names of the modules that a configuration selects, by the rules of NNI.

    A module is selected if its name is in ``op_names`` or matches ``op_names_re``, its type is in ``op_types``, and it
    is not excluded; what is not given does not restrict. A type is the name of a module's class; ``'default'`` stands
    for all layers, as in NNI 2.x. A convolution that FCR has reduced has the type that it had before.

    Args:
        model: the network.
        config: one dict of a ``config_list``.
    """
    patterns = config.get("op_names_re", ())
    named = bool(config.get("op_names") or patterns)

    def selected(name: str, module: nn.Module) -> bool:
        kind = kind_of(module)
        types = config.get("op_types") or ()
        by_name = name in config.get("op_names", ()) or any(re.match(pattern, name) for pattern in patterns)
        by_type = kind.__name__ in types or ("default" in types and isinstance(module, LAYERS))
        excluded = (
            name in config.get("exclude_op_names", ())
            or kind.__name__ in config.get("exclude_op_types", ())
            or any(re.match(pattern, name) for pattern in config.get("exclude_op_names_re", ()))
        )
        return (by_name or not named) and (by_type or not types) and (named or bool(types)) and not excluded

    return [name for name, module in model.named_modules(remove_duplicate=False) if selected(name, module)]


def kind_of(module: nn.Module) -> type[nn.Module]:
    """The class of a module; for a convolution that FCR has reduced, the class that it had before."""
    return role_and_plain(type(module))[1] if isinstance(module, ResizedConv2d) else type(module)


def selection_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that select layers; ``op_partial_names`` of NNI 2.x become regular expressions."""
    selection = {key: config[key] for key in (*SELECTION, PARTIAL) if config.get(key)}
    for key, value in selection.items():
        if isinstance(value, str) or not all(isinstance(name, str) for name in value):
            raise TypeError(f"{key} is {value!r}; expected a list of names")
    if PARTIAL in selection:
        parts = [f".*{re.escape(name)}" for name in selection.pop(PARTIAL)]
        selection["op_names_re"] = [*selection.get("op_names_re", ()), *parts]
    return selection

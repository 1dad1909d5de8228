"""The configurations of a resolution step: their keys, and which networks inside of a model they select."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn as nn
from nni.compression.base.config import select_modules_by_config
from schema import And, Optional, Or, Schema, Use

from ...cnn.resized_conv import INTERPOLATIONS
from ...ground.arguments import whole_number
from ...scaling import METHODS

TARGETS = ("size", "grid", "patch_size")
SELECTION = ("op_names", "op_types", "op_names_re", "exclude_op_names", "exclude_op_types", "exclude_op_names_re")


def validated(config_list: Any) -> list[dict[str, Any]]:
    """The configurations after a check, with whole floats as whole numbers.

    Raises:
        TypeError: it is no list of dicts.
        schema.SchemaError: a key or a value is not usable.
    """
    if not isinstance(config_list, Sequence) or not config_list or not all(isinstance(c, dict) for c in config_list):
        raise TypeError(f"config_list is {config_list!r}; expected a list of dicts, as [{{'size': 160}}]")
    return [_SCHEMA.validate(dict(config)) for config in config_list]


def selected_networks(model: nn.Module, configs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The networks to scale, by their names in the model, each with its options of `scale_resolution`.

    Raises:
        ValueError: a configuration selects nothing, a layer, or a network inside of another that is selected.
    """
    selected: dict[str, dict[str, Any]] = {}
    for number, config in enumerate(configs):
        options = {key: value for key, value in config.items() if key not in SELECTION}
        keys = {key: value for key, value in config.items() if key in SELECTION}
        said = f"{', '.join(f'{key}={value}' for key, value in keys.items())} in config_list[{number}]"
        there = set(keys.get("op_names", ())) <= {name for name, _ in model.named_modules(remove_duplicate=False)}
        names = sorted(select_modules_by_config(model, keys)[0]) if keys and there else [] if keys else [""]
        if not names:
            raise ValueError(f"{said} selects nothing in {type(model).__name__}: leave it out to scale all of it")
        for name in names:
            module = model.get_submodule(name)
            if name and not any(True for _ in module.children()):
                raise ValueError(
                    f"{said} selects the layer {name!r} ({type(module).__name__}). Resolution is scaled in a whole "
                    "network: leave it out, or name a network inside of the model, such as 'backbone'"
                )
            for other in selected:
                if "" in (name, other) or f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                    raise ValueError(f"config_list selects {other!r} and {name!r}, of which one is in the other")
            selected[name] = options
    return selected


def count(value: Any) -> int:
    """A whole number; tuners give it as a float."""
    return whole_number(value, "it", whole_floats=True)


def pixels(value: Any) -> int | tuple[int, int]:
    """A whole number of pixels, or height and width."""
    if isinstance(value, (tuple, list)):
        height, width = value
        return count(height), count(width)
    return count(value)


def method(value: Any) -> str:
    """The name of a method of `scale_resolution`."""
    if value not in METHODS:
        hint = ": it changes the data, see resolution_scaling.adapting.transforms" if value == "rc" else ""
        raise ValueError(f"{value!r}{hint}; expected one of {', '.join(map(repr, METHODS))}")
    return value


def names_a_resolution(config: dict[str, Any]) -> bool:
    """Whether a configuration specifies a resolution."""
    if not any(key in config for key in TARGETS):
        raise ValueError(f"none of {', '.join(map(repr, TARGETS))} is in {config}")
    return True


_SCHEMA = Schema(
    And(
        {
            **{Optional(key): [str] for key in SELECTION},
            Optional("size"): Use(pixels),
            Optional("grid"): Use(count),
            Optional("patch_size"): Use(count),
            Optional("method"): Use(method),
            Optional("input_size"): Use(pixels),
            Optional("in_channels"): Use(count),
            Optional("interpolation"): Or(*INTERPOLATIONS),
            Optional("restore_outputs"): bool,
        },
        names_a_resolution,
    )
)

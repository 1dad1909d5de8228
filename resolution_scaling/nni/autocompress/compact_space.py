"""NNI's search space of AutoCompress: a choice of algorithms, each with its configuration in compact keys.

The keys are ``config_list::op_types::op_names::variable`` for pruners, the same with the quantized tensors before the
types for quantizers, and ``parameter::name``. Several types or names are joined by ``:``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from ..algorithms.generation import NNI_3
from ..algorithms.pruners import LOST, NAMES, parameters_of
from ..algorithms.registry import algorithm_names, find_algorithm
from ..algorithms.resolution import check_parameters

QUANTIZED = "quant_types"


class AutoCompressionSearchSpaceGenerator:
    """Makes the search space of an AutoCompress search, in the form and with the keys of NNI 2.10.1.

    Beside NNI's algorithms it takes ``'resolution'``, and every other that is registered. Unknown names and parameters
    raise, where NNI drops them silently. The configurations are not changed, where NNI empties them.

    Example:
        >>> generator = AutoCompressionSearchSpaceGenerator()
        >>> ratio = {"_type": "quniform", "_value": [0.2, 0.6, 0.1]}
        >>> generator.add_config("l1", [{"op_types": ["Conv2d"], "sparsity": ratio}])
        >>> generator.add_config("resolution", [], size={"_type": "choice", "_value": [128, 160, 192]})
        >>> search_space = generator.dumps()
    """

    def __init__(self) -> None:
        self.algorithm_choice_list: list[dict[str, Any]] = []

    def add_config(self, algorithm_name: str, config_list: list[dict[str, Any]], **algo_kwargs: Any) -> None:
        """Add an algorithm that trials can choose.

        Args:
            algorithm_name: one of NNI's, ``'resolution'``, or another that is registered.
            config_list: in NNI's form: the layers, and their ratios; values may be ``{"_type": ..., "_value": ...}``.
            algo_kwargs: parameters of the algorithm, in the same form.

        Raises:
            ValueError, TypeError: there is no such algorithm or parameter, or it does not accept this configuration.
        """
        _check(algorithm_name, config_list, algo_kwargs)
        choice: dict[str, Any] = {"_name": algorithm_name}
        for config in config_list:
            parts = [QUANTIZED] if QUANTIZED in config else []
            parts += ["op_types", "op_names"]
            key = "::".join(["config_list", *(":".join(config.get(part, [])) for part in parts)])
            choice |= {f"{key}::{name}": _choice(value) for name, value in config.items() if name not in parts}
        choice |= {f"parameter::{name}": _choice(value) for name, value in algo_kwargs.items()}
        if len(decode(choice)[0]) < len(config_list):
            raise ValueError(
                f"config_list of {algorithm_name!r} is {config_list!r}; expected entries that differ in op_types or "
                "op_names, each with a value, as 'sparsity': a search space can hold no others"
            )
        self.algorithm_choice_list.append(choice)

    def dumps(self) -> dict[str, Any]:
        """The search space, for ``experiment.config.search_space``."""
        return {"algorithm_name": {"_type": "choice", "_value": self.algorithm_choice_list}}

    @classmethod
    def loads(cls, search_space: dict[str, Any]) -> AutoCompressionSearchSpaceGenerator:
        """From a search space that `dumps` gave.

        Raises:
            ValueError, TypeError: it is not of that form, or names unknown algorithms or parameters.
        """
        generator = cls()
        generator.algorithm_choice_list = checked_choices(search_space)
        return generator


def checked_choices(search_space: Any) -> list[dict[str, Any]]:
    """The choices of a search space, after a check of each.

    Raises:
        ValueError, TypeError: see `AutoCompressionSearchSpaceGenerator.add_config`.
    """
    try:
        choices = search_space["algorithm_name"]["_value"]
    except (TypeError, KeyError):
        raise TypeError(
            f"search_space is {search_space!r}; expected that of AutoCompressionSearchSpaceGenerator.dumps()"
        ) from None
    if not choices:
        raise ValueError("search_space has no algorithm: add one with add_config")
    for choice in choices:
        _check(choice.get("_name"), *decode(choice))
    return choices


def decode(choice: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The ``config_list`` and the parameters in a tuner's choice, or in one choice of a space."""
    configs: dict[tuple[str, ...], dict[str, Any]] = {}
    parameters = {}
    for key, value in choice.items():
        kind, _, rest = key.partition("::")
        if kind == "parameter":
            parameters[rest] = value
        elif kind == "config_list":
            *places, variable = rest.split("::")
            configs.setdefault(tuple(places), {})[variable] = value
    config_list = []
    for place_names, config in configs.items():
        names = ("op_types", "op_names") if len(place_names) == 2 else (QUANTIZED, "op_types", "op_names")
        config_list.append(
            {name: place.split(":") for name, place in zip(names, place_names, strict=True) if place} | config
        )
    return config_list, parameters


def values_of(space: Any) -> list[Any] | None:
    """The values that one variable of a space can have; None for a range."""
    if not isinstance(space, Mapping) or "_type" not in space:
        return [space]
    return list(space["_value"]) if space["_type"] == "choice" else None


def _check(name: Any, config_list: Any, parameters: Mapping[str, Any]) -> None:
    if not isinstance(name, str):
        raise TypeError(f"algorithm_name is {name!r}; expected a name, as 'l1'")
    if name in LOST and name not in algorithm_names():
        raise ValueError(f"{name!r} is not in the NNI that is installed: {LOST[name]}")
    algorithm = find_algorithm(name)
    if not isinstance(config_list, (list, tuple)) or not all(isinstance(config, Mapping) for config in config_list):
        raise TypeError(f"config_list of {name!r} is {config_list!r}; expected a list of dicts")
    if algorithm.needs_config_list and not config_list:
        raise ValueError(f"config_list of {name!r} is empty; expected NNI's, as [{{'op_types': ['Conv2d'], ...}}]")
    if name == "resolution":
        _check_resolution(config_list, parameters)
    for config in config_list:
        if not config.get("op_types") and not config.get("op_names"):
            raise ValueError(f"config_list of {name!r} has {dict(config)!r}, which names no op_types and no op_names")
        for part in ("op_types", "op_names"):
            if isinstance(names := config.get(part, []), str):
                raise TypeError(f"{part} of {name!r} is {names!r}; expected a list, as [{names!r}]")
    if name in NAMES:
        known = parameters_of(name)
        for parameter in parameters:
            if parameter not in known:
                generation = "NNI 3.0" if NNI_3 else "NNI 2.10.1"
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise TypeError(f"{name!r} of {generation} has no parameter {parameter!r}; {has}")


def _check_resolution(config_list: Any, parameters: Mapping[str, Any]) -> None:
    """Check each value by itself. Before the experiment starts, the network is tried with all of them together."""
    known = {name: values_of(space) for name, space in parameters.items()}
    first = {name: 1.0 if values is None else values[0] for name, values in known.items() if values != []}
    check_parameters(config_list, **first)
    for name, values in known.items():
        bounds = parameters[name]["_value"][:2] if values is None else values
        for value in bounds:
            check_parameters([], **{**first, name: round(value) if values is None else value})


def _choice(value: Any) -> dict[str, Any]:
    """A variable of a search space: as the user wrote it, or a choice of the one value that the user wrote.

    A dict of variables, as the bits of several tensors, becomes a choice of dicts, which NNI's tuners accept.
    """
    if not isinstance(value, Mapping):
        return {"_type": "choice", "_value": [value]}
    if "_type" in value:
        return dict(value)
    inner = [values for space in value.values() if (values := values_of(space)) is not None]
    if len(inner) < len(value):
        raise ValueError(f"{dict(value)!r} has a range inside; expected values, or {{'_type': 'choice', ...}}")
    return {"_type": "choice", "_value": [dict(zip(value, each, strict=True)) for each in itertools.product(*inner)]}

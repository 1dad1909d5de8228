"""Reading NNI's configuration lists, of both generations: which layers are pruned, and how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn as nn

from .layer_selection import LAYERS, PARTIAL, SELECTION, kind_of, select_layers, selection_of

RATIOS = ("sparse_ratio", "sparsity", "sparsity_per_layer", "total_sparsity")
"""Keys for the share of the channels to remove: NNI 3.0's, then NNI 2.x's. The last is for all layers together."""
LARGEST = ("max_sparse_ratio", "max_sparsity_per_layer")
TARGETS = ("compression", "speedup", "keep_fraction")
"""What may be given instead of a ratio, in a dict of the list or as a parameter."""
PARAMETERS = (*TARGETS, "tolerance", "global_pruning", "max_pruning_ratio", "round_to", "allocation", "fold")

Select = Callable[[nn.Module, Mapping[str, Any]], Iterable[str]]


@dataclass
class PruningConfig:
    """Which layers are pruned, and how much.

    Attributes:
        layers: names of the layers that may be pruned.
        ratios: by name of a layer, the share of its channels that it loses. Layers whose share follows from
            ``targets`` are missing.
        targets: ``compression``, ``speedup`` or ``keep_fraction``, by name.
        global_pruning: whether the channels of all the layers are ranked together.
        options: ``max_pruning_ratio``, ``round_to``, ``tolerance``, ``allocation``, ``fold``, as Torch-Pruning and
            `prune_to` take them.
    """

    layers: list[str]
    ratios: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    global_pruning: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def read_config(
    model: nn.Module, config_list: Any, parameters: Mapping[str, Any] | None = None, select: Select = select_layers
) -> PruningConfig:
    """Read a ``config_list`` and the parameters that are given with it.

    Args:
        model: the network.
        config_list: dicts with the keys of NNI 3.0 (``sparse_ratio``, ``max_sparse_ratio``, ``exclude_op_names``, ...)
            or 2.x (``sparsity``, ``sparsity_per_layer``, ``total_sparsity``, ``max_sparsity_per_layer``, ``exclude``,
            ``op_partial_names``). One of `TARGETS` may take the place of a ratio. A dict that selects no layers is for
            all of them; so is an empty list, if one of `TARGETS` is among the parameters.
        parameters: `PARAMETERS` by name. ``round_to`` may be a whole float, as tuners give.
        select: ``(model, config)`` -> names of modules.

    Raises:
        TypeError, ValueError: a key or a value is not usable; the text names it.
    """
    if not isinstance(config_list, Sequence) or not all(isinstance(config, Mapping) for config in config_list):
        raise TypeError(
            f"config_list is {config_list!r}; expected a list of dicts, as [{{'op_types': ['Conv2d'], ...}}]"
        )
    parameters = dict(parameters or {})
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    there = {name for name, _ in model.named_modules(remove_duplicate=False)}
    excluded = {name for config in config_list if config.get("exclude") for name in select(model, selection_of(config))}
    read = PruningConfig([])
    chosen: dict[str, float | None] = {}  # by layer: its ratio, or None if it follows from the target
    entries = [config for config in config_list if not config.get("exclude")] or [{}]
    for number, config in enumerate(entries):
        where = f"config_list[{number}]"
        _check_keys(config, where)
        selection = selection_of(config)
        if unknown := sorted({*selection.get("op_names", ())} - there):
            raise ValueError(f"{where} names {unknown[0]!r}, but {type(model).__name__} has no module of this name")
        if not any(key.startswith("op_") for key in selection):
            selection["op_types"] = sorted({kind.__name__ for m in layers.values() for kind in (type(m), kind_of(m))})
        names = [name for name in select(model, selection) if name in layers and name not in excluded]
        if not names:
            kinds = sorted({type(module).__name__ for module in layers.values()})
            raise ValueError(f"{where} selects no layer of {type(model).__name__}, which has {', '.join(kinds)}")
        for key in TARGETS:
            if key in config and parameters.setdefault(key, config[key]) != config[key]:
                raise ValueError(
                    f"{key} is given twice, as {parameters[key]!r} and as {config[key]!r}; it is for the whole network"
                )
        for key in LARGEST:
            if key in config:
                parameters.setdefault("max_pruning_ratio", config[key])
        ratio = next((_number(key, config[key], 0, 1) for key in RATIOS if key in config), None)
        read.global_pruning |= "total_sparsity" in config or "global_group_id" in config
        for name in names:
            if ratio is not None and chosen.get(name) not in (None, ratio):
                raise ValueError(f"layer {name!r} has ratios {chosen[name]} and {ratio} in config_list; give it one")
            chosen[name] = ratio if ratio is not None else chosen.get(name)
    read.layers = list(chosen)
    read.ratios = {name: ratio for name, ratio in chosen.items() if ratio is not None}
    _read_parameters(read, parameters)
    return read


def _read_parameters(read: PruningConfig, parameters: dict[str, Any]) -> None:
    for key in parameters.keys() & {"compression", "speedup"}:
        read.targets[key] = _number(key, parameters[key], 1, math.inf)
    for key in parameters.keys() & {"keep_fraction"}:
        read.targets[key] = _number(key, parameters[key], 0, 1)
    if "keep_fraction" in read.targets and len(read.targets) > 1:
        raise ValueError(
            f"keep_fraction cannot be combined with {', '.join(sorted(read.targets.keys() - {'keep_fraction'}))}"
        )
    for key in parameters.keys() & {"max_pruning_ratio", "tolerance"}:
        read.options[key] = _number(key, parameters[key], 0, 1)
    if parameters.get("round_to") is not None:
        round_to = _number("round_to", parameters["round_to"], 1, math.inf)
        if round_to != int(round_to):
            raise ValueError(f"round_to is {round_to}; expected a whole number")
        read.options["round_to"] = int(round_to)
    read.global_pruning |= bool(parameters.get("global_pruning", False))
    read.options["fold"] = bool(parameters.get("fold", True))
    if parameters.get("allocation") is not None:
        if not read.targets.keys() & {"compression", "speedup"}:
            raise ValueError("allocation spreads a budget: it needs compression or speedup")
        read.options["allocation"] = parameters["allocation"]
    free = [name for name in read.layers if name not in read.ratios]
    if free and not read.targets:
        raise ValueError(
            f"config_list does not say how much of {', '.join(map(repr, free[:3]))} is removed: give sparse_ratio "
            "(sparsity in NNI 2.x), or compression, speedup or keep_fraction"
        )
    if read.targets and not free:
        raise ValueError(
            f"config_list has a ratio for every layer, which leaves no layer for {', '.join(read.targets)}"
        )
    largest = read.options.get("max_pruning_ratio", 1)
    if read.global_pruning and not read.targets and largest < max(read.ratios.values()):
        raise ValueError(
            f"no layer may lose more than {largest}, so that all together cannot lose {max(read.ratios.values())}"
        )
    if "keep_fraction" in read.targets and (read.ratios or read.global_pruning):
        raise ValueError("keep_fraction is for each layer: it cannot be combined with ratios or global pruning")
    if read.global_pruning and not read.targets and len(set(read.ratios.values())) > 1:
        raise ValueError(f"global pruning has one ratio, but config_list gives {sorted(set(read.ratios.values()))}")


def _check_keys(config: Mapping[str, Any], where: str) -> None:
    known = {*SELECTION, PARTIAL, *RATIOS, *LARGEST, *TARGETS, "exclude", "global_group_id"}
    for key in config.keys() - known:
        raise ValueError(f"{where} has the key {key!r}; known are {', '.join(map(repr, sorted(known)))}")
    for keys in (RATIOS, LARGEST):
        if len(config.keys() & set(keys)) > 1:
            raise ValueError(f"{where} has {' and '.join(sorted(config.keys() & set(keys)))}; give one of them")


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected a number from {low} to {high}")
    return float(value)

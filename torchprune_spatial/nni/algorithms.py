"""Our criteria in NNI: algorithm names for searches of both generations, and a pruning step for NNI 3.0.

Importing this registers ``'spatial_mask'``, ``'thinet'`` and ``'weight_sum'`` with `resolution_scaling.nni`, and
``'apoz'`` and ``'mean_activation'`` where NNI has none of its own (NNI 3.0 lost them). It does not need NNI;
`SpatialMaskPruner` does.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch.utils._pytree import tree_map_only
from torch_pruning.dependency import DependencyGraph, Group

from resolution_scaling.ground.meta import call_model, call_on_meta
from resolution_scaling.ground.models import device_of, evaluating
from resolution_scaling.ground.originals import recording
from resolution_scaling.nni.algorithms.registry import Algorithm, algorithm_names, register_algorithm

from ..budget.pruning import prune_to
from ..criteria.base import ChannelImportance
from ..criteria.spatial_mask import APoZImportance, MeanActivationImportance, SpatialMaskImportance, WeightSumImportance
from ..criteria.thinet import ThiNetImportance
from ..graph.attention import attention_heads
from ..graph.groups import producers_in
from ..graph.outputs import output_layers_in
from ..graph.private_names import own_containers
from ..record.pruning_record import PruningRecord
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS
from .config import LAYERS, PARAMETERS, PruningConfig, read_config

CRITERIA: dict[str, type[ChannelImportance]] = {
    "spatial_mask": SpatialMaskImportance,
    "thinet": ThiNetImportance,
    "weight_sum": WeightSumImportance,
    "apoz": APoZImportance,
    "mean_activation": MeanActivationImportance,
}
"""By the names that configurations use."""


def prune(model: nn.Module, config: PruningConfig, importance: ChannelImportance, example_inputs: Any) -> PruningRecord:
    """Prune a network as a configuration says, in place. Channels are removed: no speed-up is needed afterwards.

    Layers that must lose the same channels, as those of a residual addition, lose them only where all of them are
    selected, and then the smallest of their shares.

    Args:
        model: the network, on any device.
        config: as `read_config` gives it.
        importance: ranks the channels.
        example_inputs: as for Torch-Pruning; moved to the network's device.

    Returns:
        The record of what was removed.

    Raises:
        TypeError, ValueError: what is asked for cannot be done, or no channel can be removed. The network is as it was.
    """
    device = device_of(model)
    example_inputs = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), example_inputs)
    modules = dict(model.named_modules())
    ratios = {modules[name]: ratio for name, ratio in config.ratios.items()}
    selected = {modules[name] for name in config.layers}
    options: dict[str, Any] = dict(config.options) | {
        "ignored_layers": [m for m in modules.values() if isinstance(m, LAYERS) and m not in selected],
        "forward_fn": call_on_meta if device.type == "meta" else call_model,
    }
    with recording(model), evaluating(model), torch.enable_grad():
        if config.targets.keys() & {"compression", "speedup"}:
            options |= {"global_pruning": config.global_pruning, "pruning_ratio_dict": ratios}
            record = prune_to(model, example_inputs, importance, **(options | config.targets))
        else:
            options.pop("tolerance", None)
            record = _prune_by_ratios(model, config, importance, example_inputs, ratios, options)
        if record.compression == 1 and (config.targets or any(config.ratios.values())):
            raise ValueError(
                f"nothing can be pruned in {type(model).__name__} by this config_list: the layers that it selects "
                "write outputs of the network, or must lose the same channels as layers that it does not select"
            )
    return record


def _prune_by_ratios(
    model: nn.Module,
    config: PruningConfig,
    importance: ChannelImportance,
    example_inputs: Any,
    ratios: dict[nn.Module, float],
    options: dict[str, Any],
) -> PruningRecord:
    shape = {"num_heads": attention_heads(model), "customized_pruners": CUSTOMIZED_PRUNERS}
    record = PruningRecord(model, example_inputs, options["forward_fn"])
    if "keep_fraction" in config.targets:
        ignored, forward = options["ignored_layers"], options["forward_fn"]
        ratios = importance.pruning_ratio_dict(
            model, example_inputs, config.targets["keep_fraction"], ignored, forward_fn=forward, **own_containers(shape)
        )
    scores: Callable[[Group], torch.Tensor | None] = importance
    if config.global_pruning:
        options |= {"global_pruning": True, "pruning_ratio": max(ratios.values())}
        scores = _sparing(importance, options.pop("max_pruning_ratio", 1.0))
    else:
        options |= {"pruning_ratio": 0.0, "pruning_ratio_dict": ratios}
    pruner = tp.pruner.BasePruner(model, example_inputs, scores, **options, **own_containers(shape))
    if not config.global_pruning and "keep_fraction" not in config.targets:
        for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
            layers = producers_in(group) & ratios.keys()
            smallest = min(ratios[layer] for layer in layers)
            steps = pruner.iterative_pruning_ratio_scheduler(smallest, pruner.iterative_steps)
            pruner.pruning_ratio_dict |= dict.fromkeys(layers, steps)
    record.step(pruner)
    return record


def _sparing(importance: ChannelImportance, largest: float) -> Callable[[Group], torch.Tensor | None]:
    """The same scores, with those of a group's best channels out of reach.

    In the host ``max_pruning_ratio`` does not hold under global pruning: it is looked at before a step.

    Args:
        importance: ranks the channels.
        largest: share of its channels that a group may lose, to within one channel.
    """

    def spare(group: Group) -> torch.Tensor | None:
        scores = importance(group)
        if scores is not None and largest < 1:
            best = scores.topk(math.floor((1 - largest) * len(scores) + 1e-9)).indices
            scores[best] += 1e6  # far above what a normalized score can be
        return scores

    return spare


def criterion_options(criterion: str, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters apart: those of the criterion's class, and the `PARAMETERS` of pruning.

    Whole floats, which tuners give, become whole numbers where the class has whole numbers.

    Raises:
        ValueError: there is no such criterion, or it cannot keep a fraction.
        TypeError: there is no such parameter.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; expected one of {', '.join(map(repr, CRITERIA))}")
    known = {name: p for name, p in inspect.signature(CRITERIA[criterion]).parameters.items() if name != "loader"}
    own, pruning = {}, {}
    for name, value in parameters.items():
        if name in PARAMETERS:
            pruning[name] = value
        elif name not in known:
            raise TypeError(
                f"{criterion!r} has no parameter {name!r}; known are {', '.join(map(repr, (*known, *PARAMETERS)))}"
            )
        else:
            whole = type(known[name].default) is int and isinstance(value, float) and value.is_integer()
            own[name] = int(value) if whole else value
    return own, pruning


def make_importance(criterion: str, loader: Any, options: Mapping[str, Any]) -> ChannelImportance:
    """The importance of Torch-Pruning that a criterion's name stands for; ``loader`` is for those that look at data."""
    kind = CRITERIA[criterion]
    return kind(loader, **options) if needs_data(criterion) else kind(**options)


def needs_data(criterion: str) -> bool:
    """Whether it judges channels by batches of images."""
    return "loader" in inspect.signature(CRITERIA[criterion]).parameters


def check_keeps_fraction(criterion: str, config: PruningConfig) -> None:
    """Only Algorithm 1 keeps a union of top sets.

    Raises:
        ValueError: another criterion is to.
    """
    if "keep_fraction" in config.targets and not hasattr(CRITERIA[criterion], "pruning_ratio_dict"):
        raise ValueError(f"keep_fraction is for 'spatial_mask', not {criterion!r}: give a ratio instead")


class _AnyChannels(ChannelImportance):
    """Ranks channels at random, without their weights, and spares the same layers as the criteria do."""

    def _output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        return output_layers_in(graph)

    def _score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.arange(1, len(group[0].idxs) + 1, dtype=torch.float64)
        return scores, scores


def _ask(module: Any, name: str, what: str, line: str) -> Any:
    """What a classmethod of the user's class gives.

    Raises:
        TypeError: the class does not have it.
    """
    if not callable(getattr(module, name, None)):
        raise TypeError(
            f"{getattr(module, '__name__', module)} has no {name}(), which gives {what}. Add to it:\n"
            f"    @classmethod\n    def {name}(cls):\n        {line}"
        )
    return getattr(module, name)()


def _dummy_input(module: Any) -> Any:
    return _ask(module, "dummy_input", "example inputs of the network", "return torch.rand(1, 3, 224, 224)")


def algorithm(criterion: str) -> Algorithm:
    """The criterion as an algorithm that searches can name.

    ``compress`` takes the ``config_list`` of either generation of NNI (see `read_config`), the user's class, which
    gives ``dummy_input()`` and, for criteria that look at data, ``calibration_loader()``, and as parameters those of
    pruning (``compression``, ``speedup``, ``keep_fraction``, ``global_pruning``, ...) and of the criterion's class
    (``threshold``, ...). It prunes in place. ``outline`` gives None where the shapes depend on the scores: under global
    pruning and for ``keep_fraction``.
    """

    def compress(model: nn.Module, config_list: list[Any], module: Any, **parameters: Any) -> nn.Module:
        options, pruning = criterion_options(criterion, parameters)
        config = read_config(model, config_list, pruning)
        check_keeps_fraction(criterion, config)
        loader = None
        if needs_data(criterion):
            line = "return DataLoader(...)  # batches (input, target) or (input, target, mask)"
            loader = _ask(module, "calibration_loader", f"the images by which {criterion!r} judges", line)
        prune(model, config, make_importance(criterion, loader, options), _dummy_input(module))
        return model

    def outline(model: nn.Module, config_list: list[Any], module: Any, **parameters: Any) -> nn.Module | None:
        _, pruning = criterion_options(criterion, parameters)
        config = read_config(model, config_list, pruning)
        check_keeps_fraction(criterion, config)
        if config.global_pruning or "keep_fraction" in config.targets:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compress will say it
            prune(model, config, _AnyChannels(), _dummy_input(module))
        return model

    return Algorithm(criterion, compress, outline, needs_config_list=False)


def register_criteria() -> None:
    """Make the criteria known to searches by their names.

    NNI's own algorithms come first, where it is installed: names that they have already stay theirs.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("resolution_scaling.nni.algorithms.pruners")
    for name in CRITERIA:
        if name not in ("apoz", "mean_activation") or name not in algorithm_names():
            register_algorithm(algorithm(name))

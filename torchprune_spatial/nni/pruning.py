"""Pruning a network as NNI's configuration specifies: by ratios, to a budget, or by the paper's selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch.utils._pytree import tree_map_only
from torch_pruning.dependency import Group

from resolution_scaling.ground.calls import call_model
from resolution_scaling.ground.meta import call_on_meta
from resolution_scaling.ground.models import device_of, evaluating
from resolution_scaling.ground.originals import recording

from ..budget.pruning import prune_to
from ..criteria.base import ChannelImportance
from ..graph.channel_graph import ChannelGraph
from ..graph.groups import producers_in
from ..graph.pruners import following_channels
from ..record.pruning_record import PruningRecord
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS
from .config import PruningConfig
from .layer_selection import LAYERS


def prune(model: nn.Module, config: PruningConfig, importance: ChannelImportance, example_inputs: Any) -> PruningRecord:
    """Prune a network in place, as a configuration specifies. Channels are removed: no speed-up is needed afterwards.

    Layers that must lose the same channels, such as those of a residual addition, are pruned only if all of them are
    selected. They then lose the smallest of their ratios.

    Args:
        model: the network, on any device.
        config: what `read_config` returns.
        importance: ranks the channels.
        example_inputs: as for Torch-Pruning. They are moved to the network's device.

    Returns:
        The record of what was removed.

    Raises:
        TypeError, ValueError: the configuration cannot be carried out, or no channel can be removed. The network is as
            it was.
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
            fold = getattr(importance, "fold", None) if options.pop("fold", True) else None
            record = _prune_by_ratios(model, config, importance, example_inputs, ratios, options, fold)
        if record.compression == 1 and (config.targets or any(config.ratios.values())):
            raise ValueError(
                f"nothing can be pruned in {type(model).__name__} by this config_list: the layers that it selects "
                "produce outputs of the network, or must lose the same channels as layers that it does not select"
            )
    return record


def _prune_by_ratios(
    model: nn.Module,
    config: PruningConfig,
    importance: ChannelImportance,
    example_inputs: Any,
    ratios: dict[nn.Module, float],
    options: dict[str, Any],
    fold: Callable[[Group], None] | None,
) -> PruningRecord:
    shape = {"customized_pruners": CUSTOMIZED_PRUNERS}
    record = PruningRecord(model, example_inputs, options["forward_fn"])
    graph = ChannelGraph().build_dependency(
        model, example_inputs, options["forward_fn"], customized_pruners=CUSTOMIZED_PRUNERS
    )
    with following_channels(graph):
        pruner = _pruner(model, config, importance, example_inputs, ratios, options | shape)
    record.step(pruner, fold)
    if wrong := [] if device_of(model).type == "meta" else graph.verify():
        raise ValueError(
            f"after pruning, other channels of {wrong[:4]} belong together than before: exclude these layers"
        )
    return record


def _pruner(
    model: nn.Module,
    config: PruningConfig,
    importance: ChannelImportance,
    example_inputs: Any,
    ratios: dict[nn.Module, float],
    options: dict[str, Any],
) -> tp.pruner.BasePruner:
    """The pruner that a configuration describes."""
    if "keep_fraction" in config.targets:
        ignored, forward = options["ignored_layers"], options["forward_fn"]
        ratios = importance.pruning_ratio_dict(
            model,
            example_inputs,
            config.targets["keep_fraction"],
            ignored,
            forward_fn=forward,
            customized_pruners=options["customized_pruners"],
        )
    scores: Callable[[Group], torch.Tensor | None] = importance
    if config.global_pruning:
        options |= {"global_pruning": True, "pruning_ratio": max(ratios.values())}
        scores = _limited(importance, options.pop("max_pruning_ratio", 1.0))
    else:
        options |= {"pruning_ratio": 0.0, "pruning_ratio_dict": ratios}
    pruner = tp.pruner.BasePruner(model, example_inputs, scores, **options)
    if not config.global_pruning and "keep_fraction" not in config.targets:
        for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
            layers = producers_in(group) & ratios.keys()
            smallest = min(ratios[layer] for layer in layers)
            steps = pruner.iterative_pruning_ratio_scheduler(smallest, pruner.iterative_steps)
            pruner.pruning_ratio_dict |= dict.fromkeys(layers, steps)
    return pruner


def _limited(importance: ChannelImportance, largest: float) -> Callable[[Group], torch.Tensor | None]:
    """An importance under which global pruning removes no more than a given share of any group.

    It raises the scores of each group's best channels above all others. Torch-Pruning's ``max_pruning_ratio`` does not
    limit a step of global pruning: it is only compared with what was removed before the step.

    Args:
        importance: ranks the channels.
        largest: the share of its channels that a group may lose, to within one channel.
    """

    def limited(group: Group) -> torch.Tensor | None:
        scores = importance(group)
        if scores is not None and largest < 1:
            best = scores.topk(math.floor((1 - largest) * len(scores) + 1e-9)).indices
            scores[best] += 1e6  # far above what a normalized score can be
        return scores

    return limited

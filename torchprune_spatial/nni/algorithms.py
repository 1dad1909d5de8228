"""The criteria as algorithms that searches of either generation of NNI can name.

This needs no NNI. A criterion that a user registers becomes an algorithm too, once `register_criteria` is called again.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from resolution_scaling.nni.algorithms.module_class import ModuleClass, dummy_input_of, name_of
from resolution_scaling.nni.algorithms.registry import (
    Algorithm,
    algorithm_names,
    find_algorithm,
    register_algorithm,
    unregister_algorithm,
)

from ..criteria.base import ChannelImportance
from ..criteria.registry import CRITERIA, follow_criteria
from ..graph.outputs import output_layers_in
from .config import read_config
from .criterion_options import check_keeps_fraction, criterion_options, make_importance, needs_data
from .pruning import prune

NEEDS_EXAMPLE = "returns example inputs of the network"
IN_NNI_2 = ("apoz", "mean_activation")
"""Criteria that NNI 2.10.1 has under the same names, and NNI 3.0 lost."""


_registered: dict[str, Algorithm] = {}


def register_criteria() -> None:
    """Let searches name the criteria; the package calls this once, when it is imported.

    Criteria that are registered later join by themselves, and leave when they are unregistered. Register a criterion of
    your own in a file of its own: the processes of trials import that file.

    Where NNI is installed, its own algorithms are registered first: NNI 2.10.1 keeps its ``'apoz'`` and
    ``'mean_activation'``. Otherwise, a criterion whose name belongs to another algorithm is refused.

    Example:
        >>> torchprune_spatial.register_criterion(MedianImportance)  # with name = "median"
        >>> search(Module, criteria=["median"])
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("resolution_scaling.nni.algorithms.pruners")
    follow_criteria(_add, _remove)


def _add(criterion: str) -> None:
    if criterion in IN_NNI_2 and criterion in algorithm_names():
        return
    register_algorithm(algorithm(criterion))
    _registered[criterion] = find_algorithm(criterion)


def _remove(criterion: str) -> None:
    ours = _registered.pop(criterion, None)
    if criterion in algorithm_names() and find_algorithm(criterion) is ours:
        unregister_algorithm(criterion)


def algorithm(criterion: str) -> Algorithm:
    """A criterion as an algorithm of searches.

    Its ``compress`` prunes in place. It takes the ``config_list`` of either generation of NNI (see `read_config`) and
    the user's AutoCompress class, which must have ``dummy_input()`` and, if the criterion needs data,
    ``calibration_loader()``. Its parameters are those of pruning (``compression``, ``speedup``, ``keep_fraction``,
    ``global_pruning``, ...) and those of the criterion's class (``threshold``, ...).

    Its ``outline`` returns None where the shapes depend on the scores: under global pruning, with ``keep_fraction``,
    and with an allocation other than ``"uniform"``.

    Args:
        criterion: name of the criterion.
    """

    def compress(model: nn.Module, config_list: list[Any], module_class: ModuleClass, **parameters: Any) -> nn.Module:
        options, pruning = criterion_options(criterion, parameters)
        config = read_config(model, config_list, pruning)
        check_keeps_fraction(criterion, config)
        loader = _calibration_loader(module_class, criterion) if needs_data(criterion) else None
        prune(model, config, make_importance(criterion, loader, options), dummy_input_of(module_class, NEEDS_EXAMPLE))
        return model

    def outline(
        model: nn.Module, config_list: list[Any], module_class: ModuleClass, **parameters: Any
    ) -> nn.Module | None:
        _, pruning = criterion_options(criterion, parameters)
        config = read_config(model, config_list, pruning)
        check_keeps_fraction(criterion, config)
        allocation = config.options.get("allocation", CRITERIA[criterion].recommended_allocation)
        to_budget = config.targets.keys() & {"compression", "speedup"}
        if config.global_pruning or "keep_fraction" in config.targets or (to_budget and allocation != "uniform"):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compress gives the same warnings
            config.options["fold"] = False
            prune(model, config, _AnyChannels(), dummy_input_of(module_class, NEEDS_EXAMPLE))
        return model

    home = CRITERIA[criterion].__module__
    if home.partition(".")[0] != __name__.partition(".")[0]:
        compress.__module__ = home  # the file of the user's own criterion, which trials import
    return Algorithm(criterion, compress, outline, needs_config_list=False)


class _AnyChannels(ChannelImportance):
    """Ranks channels by their position, and leaves the same layers alone as the criteria do: for shapes alone."""

    def output_layers(self, graph: DependencyGraph) -> set[nn.Module]:
        return output_layers_in(graph)

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.arange(1, len(group[0].idxs) + 1, dtype=torch.float64)
        return scores, scores


def _calibration_loader(module_class: ModuleClass, criterion: str) -> Any:
    """The calibration data of the user's class.

    Raises:
        TypeError: the class does not have them.
    """
    loader = getattr(module_class, "calibration_loader", None)
    if not callable(loader):
        raise TypeError(
            f"{name_of(module_class)} has no calibration_loader(), which returns the data that {criterion!r} looks at. "
            "Add to it:\n"
            "    @classmethod\n"
            "    def calibration_loader(cls):\n"
            "        return DataLoader(...)  # batches (input, target) or (input, target, mask)"
        )
    return loader()

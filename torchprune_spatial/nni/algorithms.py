"""The criteria as algorithms that searches of either generation of NNI can name.

This needs no NNI. A criterion that a user registers becomes an algorithm too, once `register_criteria` is called again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from typing import Any

import torch
import torch.nn as nn
from torch_pruning.dependency import DependencyGraph, Group

from resolution_scaling.nni.algorithms.registry import (
    Algorithm,
    algorithm_names,
    find_algorithm,
    register_algorithm,
)

from ..criteria.base import ChannelImportance
from ..criteria.registry import CRITERIA
from ..graph.outputs import output_layers_in
from .config import read_config
from .criterion_options import check_keeps_fraction, criterion_options, make_importance, needs_data
from .pruning import prune

IN_NNI_2 = ("apoz", "mean_activation")
"""Criteria that NNI 2.10.1 has under the same names, and NNI 3.0 lost."""


def register_criteria() -> None:
    """Let searches name the criteria. `resolution_scaling.nni.unregister_algorithm` is the way back.

    The package calls this when it is imported. Call it again after registering a criterion of your own, in the same
    file: the processes of trials import that file. Criteria that are registered already are left alone.

    Where NNI is installed, its own algorithms are registered first: NNI 2.10.1 keeps its ``'apoz'`` and
    ``'mean_activation'``.

    Raises:
        ValueError: the name of another criterion belongs to an algorithm already.

    Example:
        >>> torchprune_spatial.register_criterion(MedianImportance)  # with name = "median"
        >>> torchprune_spatial.nni.register_criteria()
        >>> search(Module, criteria=["median"])
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("resolution_scaling.nni.algorithms.pruners")
    for name in CRITERIA:
        is_taken = name in algorithm_names()
        if is_taken and (name in IN_NNI_2 or find_algorithm(name) is algorithm(name)):
            continue
        register_algorithm(algorithm(name))


@functools.cache
def algorithm(criterion: str) -> Algorithm:
    """A criterion as an algorithm of searches.

    Its ``compress`` prunes in place. It takes the ``config_list`` of either generation of NNI (see `read_config`) and
    the user's AutoCompress class, which must have ``dummy_input()`` and, if the criterion needs data,
    ``calibration_loader()``. Its parameters are those of pruning (``compression``, ``speedup``, ``keep_fraction``,
    ``global_pruning``, ...) and those of the criterion's class (``threshold``, ...).

    Its ``outline`` returns None where the shapes depend on the scores: under global pruning, and with
    ``keep_fraction``.

    Args:
        criterion: name of the criterion.
    """

    def compress(model: nn.Module, config_list: list[Any], module_class: Any, **parameters: Any) -> nn.Module:
        options, pruning = criterion_options(criterion, parameters)
        config = read_config(model, config_list, pruning)
        check_keeps_fraction(criterion, config)
        loader = None
        if needs_data(criterion):
            line = "return DataLoader(...)  # batches (input, target) or (input, target, mask)"
            loader = _call(module_class, "calibration_loader", f"returns the data that {criterion!r} looks at", line)
        prune(model, config, make_importance(criterion, loader, options), _dummy_input(module_class))
        return model

    def outline(model: nn.Module, config_list: list[Any], module_class: Any, **parameters: Any) -> nn.Module | None:
        _, pruning = criterion_options(criterion, parameters)
        config = read_config(model, config_list, pruning)
        check_keeps_fraction(criterion, config)
        if config.global_pruning or "keep_fraction" in config.targets:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compress gives the same warnings
            prune(model, config, _AnyChannels(), _dummy_input(module_class))
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


def _call(module_class: Any, name: str, purpose: str, line: str) -> Any:
    """Call a class method of the user's class.

    Args:
        module_class: the class.
        name: name of the method.
        purpose: what it does, for the message.
        line: an example of its body, for the message.

    Raises:
        TypeError: the class does not have the method.
    """
    if not callable(getattr(module_class, name, None)):
        raise TypeError(
            f"{getattr(module_class, '__name__', module_class)} has no {name}(), which {purpose}. Add to it:\n"
            f"    @classmethod\n    def {name}(cls):\n        {line}"
        )
    return getattr(module_class, name)()


def _dummy_input(module_class: Any) -> Any:
    return _call(
        module_class, "dummy_input", "returns example inputs of the network", "return torch.rand(1, 3, 224, 224)"
    )

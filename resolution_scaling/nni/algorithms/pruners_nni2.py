"""The pruners and quantizers of NNI 2.10.1's AutoCompress, as algorithms of searches; pruned layers really shrink."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import nni
import torch.nn as nn
from nni.algorithms.compression.pytorch.auto_compress.constants import PRUNER_DICT, QUANTIZER_DICT
from nni.compression.pytorch.speedup import ModelSpeedup

from .masks import check_masks, fix_masks
from .module import example_input, training_needs
from .registry import Algorithm, Compress, algorithm_names, register_algorithm

UNTRAINED = ("level", "l1", "l2", "fpgm")
FINE_TUNED = frozenset(QUANTIZER_DICT)
"""Algorithms that fine-tune by themselves: quantizers learn through an optimizer that NNI changed."""

LOST: dict[str, str] = {}
"""Algorithms of the other generation, and the way round."""

NAMES = frozenset({*PRUNER_DICT, *QUANTIZER_DICT})
SPEEDS_UP = frozenset(PRUNER_DICT) - {"level"}
"""Algorithms that need a ``dummy_input``."""


def parameters_of(name: str) -> list[str]:
    """What an algorithm of NNI can be told beside its ``config_list``."""
    ours = {"self", "model", "config_list", "optimizer", "trainer", "criterion", "dummy_input"}
    compressor = {**PRUNER_DICT, **QUANTIZER_DICT}[name]
    return [parameter for parameter in inspect.signature(compressor.__init__).parameters if parameter not in ours]


def _pruner(name: str) -> Compress:
    def prune(model: nn.Module, config_list: list[Any], module: Any, **parameters: Any) -> nn.Module:
        """Prune a copy of the network, and take the pruned channels out.

        Unlike NNI's own AutoCompress, which leaves pruned weights in their layers, as zeros. ``'level'`` prunes single
        weights, and is left so.
        """
        network = copy.deepcopy(model)
        example = example_input(module, f"{name!r} needs to speed the network up") if name in SPEEDS_UP else None
        if parameters.get("dependency_aware"):
            parameters["dummy_input"] = example
        training: tuple[Any, ...] = ()
        if name not in UNTRAINED:
            factory, criterion, trainer = training_needs(module, name)
            training = (factory(network.parameters()), trainer, criterion)
        pruner = PRUNER_DICT[name](network, config_list, *training, **parameters)
        pruner.compress()
        pruner._unwrap_model()
        masks = {w.name: {"weight": w.weight_mask, "bias": w.bias_mask} for w in pruner.get_modules_wrapper()}
        check_masks(masks, config_list)
        if name == "level":
            fix_masks(network, masks)
            return network
        for wrapper in pruner.get_modules_wrapper():
            wrapper.module.weight.data.mul_(wrapper.weight_mask)
            if wrapper.bias_mask is not None:
                wrapper.module.bias.data.mul_(wrapper.bias_mask)
        try:
            ModelSpeedup(network, example, masks).speedup_model()
        except Exception as error:
            what = f"NNI {nni.__version__} pruned {type(model).__name__} by {name!r}, but could not speed it up"
            raise RuntimeError(f"{what}: {error} ({type(error).__name__})") from error
        return network

    return prune


def _quantizer(name: str) -> Compress:
    def quantize(model: nn.Module, config_list: list[Any], module: Any, **parameters: Any) -> nn.Module:
        """Quantize a copy of the network, and fine-tune it through the quantizer's optimizer."""
        network = copy.deepcopy(model)
        factory = module.optimizer_factory()
        optimizer = None if factory is None else factory(network.parameters())
        quantizer_class = QUANTIZER_DICT[name]
        if "dummy_input" in inspect.signature(quantizer_class.__init__).parameters:
            parameters["dummy_input"] = example_input(module, f"{name!r} needs to find batch norms behind layers")
        network = quantizer_class(network, config_list, optimizer, **parameters).compress()
        trainer = module.post_compress_finetuning_trainer(name)
        if trainer is not None:
            for epoch in range(module.post_compress_finetuning_epochs(name)):
                trainer(network, optimizer, module.criterion(), epoch)
        return network

    return quantize


for _name, _make in [*((name, _pruner) for name in PRUNER_DICT), *((name, _quantizer) for name in QUANTIZER_DICT)]:
    if _name not in algorithm_names():
        register_algorithm(Algorithm(_name, _make(_name)))

"""The pruners and quantizers of NNI 2.10.1's AutoCompress, as algorithms that really remove pruned channels."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import nni
import torch.nn as nn
from nni.algorithms.compression.pytorch.auto_compress.constants import PRUNER_DICT, QUANTIZER_DICT
from nni.compression.pytorch.speedup import ModelSpeedup

from ..module_class import ModuleClass, dummy_input_of, training_needs
from ..registry import Algorithm, Compress
from .masks import check_masks, fix_masks

UNTRAINED = ("level", "l1", "l2", "fpgm")
FINE_TUNED = frozenset(QUANTIZER_DICT)
"""Algorithms that fine-tune by themselves: quantizers train with an optimizer that NNI has changed."""

LOST: dict[str, str] = {}
"""Algorithms of NNI 3.0 that this one lacks, with what to use in their place."""

NAMES = frozenset({*PRUNER_DICT, *QUANTIZER_DICT})
SPEEDS_UP = frozenset(PRUNER_DICT) - {"level"}
"""Algorithms that need a ``dummy_input``."""


def parameters_of(name: str) -> list[str]:
    """The parameters that an algorithm of NNI takes beside its ``config_list``."""
    ours = {"self", "model", "config_list", "optimizer", "trainer", "criterion", "dummy_input"}
    compressor = {**PRUNER_DICT, **QUANTIZER_DICT}[name]
    return [parameter for parameter in inspect.signature(compressor.__init__).parameters if parameter not in ours]


def _pruner(name: str) -> Compress:
    def prune(model: nn.Module, config_list: list[Any], module_class: ModuleClass, **parameters: Any) -> nn.Module:
        """Prune a copy of the network, and remove the pruned channels.

        NNI's own AutoCompress leaves pruned weights in their layers, as zeros. ``'level'`` prunes single weights, and
        keeps them as zeros here too.
        """
        network = copy.deepcopy(model)
        example = dummy_input_of(module_class, f"{name!r} needs to speed the network up") if name in SPEEDS_UP else None
        if parameters.get("dependency_aware"):
            parameters["dummy_input"] = example
        training: tuple[Any, ...] = ()
        if name not in UNTRAINED:
            factory, criterion, trainer = training_needs(module_class, name)
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
    def quantize(model: nn.Module, config_list: list[Any], module_class: ModuleClass, **parameters: Any) -> nn.Module:
        """Quantize a copy of the network, and fine-tune it through the quantizer's optimizer."""
        network = copy.deepcopy(model)
        factory = module_class.optimizer_factory()
        optimizer = None if factory is None else factory(network.parameters())
        quantizer_class = QUANTIZER_DICT[name]
        if "dummy_input" in inspect.signature(quantizer_class.__init__).parameters:
            parameters["dummy_input"] = dummy_input_of(
                module_class, f"{name!r} needs to find batch norms behind layers"
            )
        network = quantizer_class(network, config_list, optimizer, **parameters).compress()
        trainer = module_class.post_compress_finetuning_trainer(name)
        if trainer is not None:
            for epoch in range(module_class.post_compress_finetuning_epochs(name)):
                trainer(network, optimizer, module_class.criterion(), epoch)
        return network

    return quantize


ALGORITHMS = [
    *(Algorithm(name, _pruner(name)) for name in PRUNER_DICT),
    *(Algorithm(name, _quantizer(name)) for name in QUANTIZER_DICT),
]
"""All of them, to be registered."""

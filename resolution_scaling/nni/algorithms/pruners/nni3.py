"""The pruners and quantizers of NNI 3.0, as algorithms that really remove pruned channels."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import nni
import torch.fx
import torch.nn as nn
from nni.compression import pruning, quantization
from nni.compression.base.config import trans_legacy_config_list
from nni.compression.speedup import ModelSpeedup

from ..module_class import ModuleClass, dummy_input_of, name_of, training_needs
from ..registry import Algorithm, Compress
from .evaluator_nni3 import torch_evaluator
from .masks import check_masks, fix_masks, masks_of_convolutions

PRUNERS = {
    "level": pruning.LevelPruner,
    "l1": pruning.L1NormPruner,
    "l2": pruning.L2NormPruner,
    "fpgm": pruning.FPGMPruner,
    "slim": pruning.SlimPruner,
    "taylorfo": pruning.TaylorPruner,
    "movement": pruning.MovementPruner,
}
QUANTIZERS = {
    "qat": quantization.QATQuantizer,
    "dorefa": quantization.DoReFaQuantizer,
    "bnn": quantization.BNNQuantizer,
    "ptq": quantization.PtqQuantizer,
    "lsq": quantization.LsqQuantizer,
    "lsqplus": quantization.LsqPlusQuantizer,
}
UNTRAINED = ("level", "l1", "l2", "fpgm")
FINE_TUNED = frozenset(QUANTIZERS)
"""Algorithms that fine-tune by themselves: quantizers train with an optimizer that NNI has changed."""

_ELSE = "run the search on NNI 2.10.1 (extra nni2)"
_OURS = "`import torchprune_spatial.nni` in the file of your class, which registers ours"
LOST = {
    "apoz": f"{_OURS}, prune by 'taylorfo', which also looks at data, or {_ELSE}",
    "mean_activation": f"{_OURS}, prune by 'taylorfo', which also looks at data, or {_ELSE}",
    "naive": f"quantize by 'ptq', or {_ELSE}",
}
"""Algorithms of NNI 2.10.1 that 3.0 dropped, with what to use where no other is registered under the name."""

NAMES = frozenset({*PRUNERS, *QUANTIZERS})
SPEEDS_UP = frozenset(PRUNERS) - {"level"}
"""Algorithms that need a ``dummy_input``."""

_LEGACY = {"slim": ["sparsifying_training_epochs"], "taylorfo": ["sparsifying_training_batches"]}
"""Parameters of NNI 2.10.1 that are accepted too."""


def parameters_of(name: str) -> list[str]:
    """The parameters that an algorithm of NNI takes beside its ``config_list``."""
    ours = {"self", "model", "config_list", "evaluator", "existed_wrappers"}
    names = inspect.signature({**PRUNERS, **QUANTIZERS}[name].__init__).parameters
    return [*(parameter for parameter in names if parameter not in ours), *_LEGACY.get(name, [])]


def _pruner(name: str) -> Compress:
    def prune(model: nn.Module, config_list: list[Any], module_class: ModuleClass, **parameters: Any) -> nn.Module:
        """Prune a copy of the network, and remove the pruned channels.

        NNI 3.0's own tracer fails with current versions of PyTorch, so it gets the graph of ``torch.fx``. ``'level'``
        prunes single weights, and keeps them as zeros.
        """
        network = copy.deepcopy(model)
        example = dummy_input_of(module_class, f"{name!r} needs to speed the network up") if name in SPEEDS_UP else None
        masks = _train_and_mask(name, network, config_list, module_class, parameters)
        check_masks(masks, config_list)
        if name == "level":
            fix_masks(network, masks)
            return network
        training = network.training
        try:
            graph = torch.fx.symbolic_trace(network.eval())
            ModelSpeedup(network, example, masks, graph_module=graph).speedup_model()
        except Exception as error:
            what = f"NNI {nni.__version__} pruned {type(model).__name__} by {name!r}, but could not speed it up"
            raise RuntimeError(f"{what}: {error} ({type(error).__name__})") from error
        return network.train(training)

    return prune


def _train_and_mask(
    name: str, network: nn.Module, config_list: list[Any], module_class: ModuleClass, parameters: dict[str, Any]
) -> dict[str, Any]:
    """The masks that a pruner finds. The network keeps what its training changed, and has no wrappers."""
    config_list = trans_legacy_config_list(copy.deepcopy(config_list))
    if name in UNTRAINED:
        pruner = PRUNERS[name](network, config_list, **parameters)
        pruner.compress()
    else:
        evaluator = torch_evaluator(module_class, network, *training_needs(module_class, name))
        if name == "taylorfo":
            parameters.setdefault("training_steps", parameters.pop("sparsifying_training_batches", 1))
        epochs = parameters.pop("sparsifying_training_epochs", 10 if name == "slim" else None)
        by_epochs = name == "slim" and "training_steps" not in parameters
        if by_epochs:
            parameters["training_steps"] = 2**31
        pruner = PRUNERS[name](network, config_list, evaluator, **parameters)
        if by_epochs:  # as in NNI 2.10.1, which makes the masks after the epochs
            pruner._fusion_compress(None, epochs)
            pruner.update_masks(pruner.generate_masks())
        elif name == "movement":
            pruner.compress(parameters["cooldown_begin_step"], None)
        else:
            pruner.compress()
    masks = pruner.get_masks()
    pruner.unwrap_model()
    return masks_of_convolutions(network, masks) if name == "slim" else masks


def _quantizer(name: str) -> Compress:
    def quantize(model: nn.Module, config_list: list[Any], module_class: ModuleClass, **parameters: Any) -> nn.Module:
        """Quantize a copy of the network, and fine-tune it through the quantizer's optimizer."""
        network = copy.deepcopy(model)
        factory, criterion = module_class.optimizer_factory(), module_class.criterion()
        if factory is None or criterion is None:
            raise TypeError(f"{name_of(module_class)} gives no optimizer or no criterion, but {name!r} trains")
        trainer = module_class.post_compress_finetuning_trainer(name)
        epochs = module_class.post_compress_finetuning_epochs(name) if trainer is not None and name != "ptq" else 0
        if not epochs and name != "ptq":
            raise ValueError(
                f"{name!r} of NNI 3.0 quantizes while it is fine-tuned, and {name_of(module_class)} gives no epochs"
            )
        evaluator = torch_evaluator(module_class, network, factory, criterion, trainer)
        config_list = trans_legacy_config_list(copy.deepcopy(config_list))
        for config in config_list:  # NNI's own translation of configurations of 2.10.1 leaves these out
            for setting in config.get("target_settings", {}).values():
                config.setdefault("quant_dtype", setting.get("quant_dtype"))
            if name == "dorefa":
                config.setdefault("quant_scheme", "affine")
        quantizer = QUANTIZERS[name](network, config_list, evaluator, **parameters)
        quantizer.compress(None, epochs)
        return network

    return quantize


ALGORITHMS = [
    *(Algorithm(name, _pruner(name)) for name in PRUNERS),
    *(Algorithm(name, _quantizer(name)) for name in QUANTIZERS),
]
"""All of them, to be registered."""

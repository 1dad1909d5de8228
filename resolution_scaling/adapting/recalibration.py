"""Adapting a network to its new resolution from a few batches, without training it again."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ground.arguments import positive_number, whole_number
from ..ground.models import device_of, evaluating
from ..ground.sizes import Size, as_size
from .descent import Loss, descend
from .norm_statistics import adapt_statistics
from .resized_batches import ResizedBatches


def recalibrate(
    model: nn.Module,
    loader: Iterable[Any],
    reference: nn.Module | None = None,
    *,
    size: int | Size | None = None,
    statistics: bool = True,
    parameters: Sequence[str] = (),
    epochs: int = 5,
    lr: float = 3e-3,
    loss: Loss | None = None,
) -> nn.Module:
    """Adapt batch norms, and on request other parameters, to the resolution at which a network now works.

    At another resolution objects look larger or smaller to a network, and its activations have another distribution.
    Adapting batch norms and the classifier recovers a part of the accuracy that is lost (Touvron et al. 2019, "Fixing
    the train-test resolution discrepancy", section 4.2). There are two steps, each optional:

    **Statistics.** With a reference, the running mean and variance of each batch norm move as the statistics of the
    calibration images move with the resolution: the mean by the shift in units of the reference's standard deviation,
    the variance by the ratio of the variances. This is ours. Without a reference, the statistics of the calibration
    images replace them, as in FixRes; this needs very many images of the training data.

    The table shows EfficientNet-Lite0 with its real weights, adapted on 54 crops of 9 photographs and compared with the
    full network on 8 other photographs: divergence of its predictions, and share of images with the same first class.
    The last line is measured on all photographs. (The slow tests measure these numbers.)

    ==============  ==========  ==========  ================  ==========
    160 px for 224  as it is    moved       moved, then norm  replaced
    ==============  ==========  ==========  ================  ==========
    FCR             1.30, 21 %  0.87, 33 %  0.85              1.97, 8 %
    RC              0.97, 29 %  0.83, 40 %  0.80              1.88, 17 %
    224 px          0, 100 %                                  1.32, 28 %
    ==============  ==========  ==========  ================  ==========

    **Parameters**, by stochastic gradient descent with momentum 0.9, in evaluation mode: towards the outputs of the
    reference, without labels (distillation, ours), or towards the labels (as in FixRes).

    Nothing here is random: the same batches give the same network.

    Args:
        model: the network at its new resolution, with the weights that it had before; it is changed in place.
        loader: yields images ``[batch, channels, height, width]``, or tuples that begin with images and labels. It is
            iterated several times. Larger batches give better statistics.
        reference: the network at its original resolution, which reads the images of the loader as they are. For FCR, a
            copy that was made before the reduction; for RC, ``model`` itself (it is copied).
        size: the size that the model reads, px; the images of the loader are resized to it (RC). None: as they are.
        statistics: whether to do the first step.
        parameters: the parameters of the second step: ``"norm"`` (scale and bias of batch, group and layer norms),
            ``"classifier"`` (the last linear layer), names of submodules.
        epochs: passes over the loader in the second step.
        lr: learning rate of the second step.
        loss: ``(output, target)`` -> scalar, where target is the output of the reference, or the labels. Default: for
            logits ``[batch, classes, ...]``, Kullback-Leibler divergence from the reference, or cross-entropy.

    Returns:
        ``model``. After an error or an interruption it is as it was.

    Raises:
        TypeError, ValueError: an argument is not usable, or the loss became infinite or NaN.
    """
    if isinstance(loader, Iterator):
        raise TypeError(
            f"loader is a {type(loader).__name__}, which can be read only once: pass the DataLoader itself, or list(it)"
        )
    epochs, lr = whole_number(epochs, "epochs"), positive_number(lr, "lr")
    size = None if size is None else as_size(size, "size")
    norms = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    norms = norms if statistics else {}
    trained = _chosen_parameters(model, parameters)
    if not norms and not trained:
        raise ValueError(
            f"nothing to adapt: statistics is {statistics}, {type(model).__name__} has {len(norms)} batch norms with "
            "running statistics to which it applies, and parameters is empty: pass 'norm' or 'classifier'"
        )
    adapted = {f"{n}.{key}": getattr(m, key) for n, m in norms.items() for key in ("running_mean", "running_var")}
    adapted |= trained
    reference = _reference(reference, adapted, norms)
    before = {name: tensor.detach().clone() for name, tensor in adapted.items()}
    batches = ResizedBatches(loader, device_of(model), size)
    try:
        with evaluating(model), evaluating(model if reference is None else reference), torch.no_grad():
            if norms:
                adapt_statistics(norms, model, reference, batches)
            if trained:
                descend(model, trained, reference, batches, epochs=epochs, lr=lr, loss=loss)
    except BaseException:
        with torch.no_grad():
            for name, tensor in adapted.items():
                tensor.copy_(before[name])
        raise
    return model


def _reference(
    reference: nn.Module | None, adapted: Mapping[str, torch.Tensor], norms: Mapping[str, nn.Module]
) -> nn.Module | None:
    """The reference, copied if it shares tensors with what is adapted.

    Raises:
        ValueError: it lacks a batch norm of the model.
    """
    if reference is None:
        return None
    if {*map(id, adapted.values())} & {*map(id, reference.state_dict(keep_vars=True).values())}:
        reference = copy.deepcopy(reference)
    if missing := norms.keys() - dict(reference.named_modules()).keys():
        raise ValueError(
            f"reference has no layer {min(missing)!r}, which is a batch norm of model: pass the original of model"
        )
    return reference


def _chosen_parameters(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Parameter]:
    if isinstance(names, str):
        names = [names]
    chosen: list[nn.Module] = []
    for name in names:
        found: list[nn.Module]
        if name == "norm":
            found = [m for m in model.modules() if isinstance(m, (_BatchNorm, nn.GroupNorm, nn.LayerNorm))]
        elif name == "classifier":
            found = [*[m for m in model.modules() if isinstance(m, nn.Linear)][-1:]]
        else:
            found = [m for n, m in model.named_modules() if n == name]
        if not any(True for module in found for _ in module.parameters()):
            raise ValueError(
                f"parameters has {name!r}, but {type(model).__name__} has no parameters of this name; expected 'norm', "
                "'classifier' or names of submodules"
            )
        chosen += found
    wanted = {id(parameter) for module in chosen for parameter in module.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in wanted}

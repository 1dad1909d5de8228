"""The device of a network, and a context in which it is in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn as nn
from torch.utils._pytree import tree_map


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter; the CPU for a network that has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which a network is in evaluation mode; afterwards, each module has its previous mode.

    What ``torch.compile`` has compiled runs as it is written, so that hooks and modes see it.
    """
    modes = [(module, module.training) for module in model.modules()]
    compiled = any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in model.modules())
    try:
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            _evaluate(model)
            yield
    finally:
        for module, training in modes:
            module.training = training


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of what ``torch.compile`` and PyTorch's data parallelism wrap around it."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _evaluate(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:  # what `torch.export` makes has one mode, and refuses to be asked
        for module in model.modules():
            module.training = False


def attribute_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that modules hold as plain attributes, by name: tables of positions that are no buffers, for instance.

    Left out are those of PyTorch's own layers, and results that autograd knows.
    """
    return {
        f"{path}.{key}".removeprefix("."): value
        for path, module in model.named_modules()
        if not type(module).__module__.startswith("torch.nn")
        for key, value in vars(module).items()
        if type(value) is torch.Tensor and value.is_leaf and not value.requires_grad
    }


def of_autograd(model: nn.Module, inputs: Any) -> Any:
    """Inputs with which autograd can record a forward pass: copies of tensors that were made in inference mode.

    Call it outside of inference mode.

    Raises:
        ValueError: parameters or buffers of the model were made in inference mode.
    """
    made = [n for n, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_inference()]
    if made:
        raise ValueError(
            f"model has tensors that were made in torch.inference_mode ({made[0]!r}), which autograd cannot use: pass "
            "a copy that is made outside of it, with copy.deepcopy(model)"
        )
    return tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) and x.is_inference() else x, inputs)

"""Layers that do not run: heads that run in training only, and experts that were not chosen for these inputs."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Collection, Iterator

import torch
import torch.nn as nn

from resolution_scaling.ground.models import evaluating
from resolution_scaling.ground.put_back import restoring_values

from .following import Following
from .parameters import Axes, has_storage, layer_of
from .storages import storage_key

WHY = "it did not run with these example_inputs"


def idle_layers(model: nn.Module, following: Following, axes: Axes, ran: Collection[str]) -> list[str]:
    """The names of modules with parameters that neither ran nor were used.

    Args:
        model: the model.
        following: the labels, after the forward pass.
        axes: the labels of the parameters.
        ran: names of the modules whose forward was called.
    """
    labelled, found = {layer_of(name) for name, _ in axes}, []
    for name, module in model.named_modules():
        own = [tensor for tensor in module._parameters.values() if tensor is not None and has_storage(tensor)]
        used = any(storage_key(tensor) in following.used for tensor in own)
        if name in labelled and own and not used and name not in ran:
            found.append(name)
    return found


def asks_for_training(model: nn.Module) -> bool:
    """Whether the model's own forward asks whether it is in training mode: it may return more then."""
    code = getattr(inspect.unwrap(type(model).forward), "__code__", None)
    return code is not None and "training" in code.co_names


@contextlib.contextmanager
def heads_in_training(model: nn.Module) -> Iterator[None]:
    """Inside, modules that hold others are in training mode: they may run heads that they do not run otherwise.

    Norms and dropouts of PyTorch stay in evaluation mode. What is drawn at random is always the same. Neither that nor
    what is learned, such as a code book, leaves a trace.
    """
    state, tensors = random.getstate(), (*model.parameters(), *model.buffers())
    with evaluating(model), restoring_values(tensors), torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(0)
        random.seed(0)
        for module in model.modules():
            if next(module.children(), None) is not None and not type(module).__module__.startswith("torch.nn"):
                module.training = True
        try:
            yield
        finally:
            random.setstate(state)


def settle_idle(model: nn.Module, following: Following, axes: Axes, idle: Collection[str]) -> list[str]:
    """Tie the channels of layers that did not run to those of layers in whose place they run, or freeze them.

    In whose place a layer runs is known in lists of modules, as of the experts of a mixture, where one of the same kind
    ran. Dimensions of equal size of the same parameter are tied to each other.

    Returns:
        The names of layers without a tie.
    """
    left = {key for key in axes if layer_of(key[0]) in idle}
    for path, container in model.named_modules():
        if not left or not isinstance(container, (nn.ModuleList, nn.ModuleDict)):
            continue
        of_child = [_axes_below(f"{path}.{name}".removeprefix("."), axes) for name, _ in container.named_children()]
        running = [own for own in of_child if set(own.values()) - left]
        for own in of_child:
            twin = next((other for other in running if other.keys() == own.keys()), {})
            for place, key in own.items() if own not in running else ():
                if twin and len(axes[key]) == len(axes[twin[place]]):
                    following.classes.unite(axes[key], axes[twin[place]])
                    left.discard(key)
    for key in left:
        following.classes.freeze(axes[key], WHY)
    tied = {layer_of(key[0]) for key in axes.keys() - left}
    return [name for name in idle if name not in tied]


def _axes_below(path: str, axes: Axes) -> dict[tuple[str, int], tuple[str, int]]:
    """The axes of the parameters of a module and of those in it, by their names and dimensions in it."""
    return {(name.removeprefix(f"{path}."), dim): (name, dim) for name, dim in axes if name.startswith(f"{path}.")}

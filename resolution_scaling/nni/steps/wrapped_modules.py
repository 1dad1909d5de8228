"""NNI 3.0's wrappers around the modules of a network, while the network is scaled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn as nn
from nni.compression.base.target_space import TargetType
from nni.compression.base.wrapper import ModuleWrapper

from ...ground.originals import recording

SLOT = "_nni_wrapper"
"""The attribute of a module in which NNI keeps its wrapper."""


@contextmanager
def changing(model: nn.Module) -> Iterator[None]:
    """Change the modules of a network that NNI's pruners may have wrapped. After an exception it is as it was.

    The wrappers are removed meanwhile. They replace ``forward`` of a module by a bound method, and leave a bound method
    when they are removed: with it, a change of the module's class, as by FCR, would have no effect.

    Raises:
        ValueError: a wrapped parameter was changed.
    """
    wrappers = wrappers_of(model)
    for wrapper in wrappers:
        wrapper.unwrap()
    for module in model.modules():
        own = getattr(vars(module).get("forward"), "__func__", None)
        if own is not None and own in [vars(kind).get("forward") for kind in type(module).__mro__]:
            del module.forward
    try:
        with _as_before_on_error(model):
            held = [
                (wrapper, name, getattr(wrapper.module, name)) for wrapper in wrappers for name in _wrapped(wrapper)
            ]
            yield
            for wrapper, name, parameter in held:
                if getattr(model.get_submodule(wrapper.name), name) is not parameter:
                    raise ValueError(
                        f"{wrapper.name}.{name} is to be resampled, but a pruner of NNI has wrapped it, with a mask of "
                        "its present shape: speed the model up first (or pruner.unwrap_model()), then scale it"
                    )
    finally:
        for wrapper in wrappers:
            wrapper.module_forward = wrapper.module.forward
            wrapper.wrap()


def wrappers_of(model: nn.Module) -> list[ModuleWrapper]:
    """The wrappers of NNI's compressors around the modules of a network."""
    return [getattr(module, SLOT) for module in model.modules() if hasattr(module, SLOT)]


def _wrapped(wrapper: ModuleWrapper) -> list[str]:
    """The names of the parameters that a wrapper holds."""
    spaces = wrapper.pruning_target_spaces | wrapper.quantization_target_spaces
    return [
        name
        for name, space in spaces.items()
        if space.type is TargetType.PARAMETER and isinstance(space.target, nn.Parameter)
    ]


@contextmanager
def _as_before_on_error(model: nn.Module) -> Iterator[None]:
    """After an exception, put back the classes and forward hooks of the modules, and what `recording` puts back."""
    classes = [(module, type(module)) for module in model.modules()]
    hooks: list[tuple[Any, Any]] = [
        (kept, kept.copy()) for m, _ in classes for kept in (m._forward_hooks, m._forward_hooks_with_kwargs)
    ]
    with recording(model):
        try:
            yield
        except BaseException:
            for module, kind in classes:
                module.__class__ = kind
            for kept, contents in hooks:
                kept.clear()
                kept.update(contents)
            raise

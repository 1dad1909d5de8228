"""NNI 3.0 and the modules of a scaled network: its wrappers, its layer types, its speed-up."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch.nn as nn
from nni.compression.base.target_space import TargetType
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.speedup.replacement import replace_module

from ...cnn.resized_conv import ResizedConv2d, resize_output, role_and_plain
from ...ground.originals import recording

SLOT = "_nni_wrapper"
"""The attribute of a module by which NNI holds its wrapper."""


@contextmanager
def changing(model: nn.Module) -> Iterator[None]:
    """Change the modules of a network that pruners of NNI may have wrapped; after an exception it is as it was.

    The wrappers are off meanwhile. They replace ``forward`` of a module by a bound method, and leave one there when
    they go, so that without this a change of the module's class, as by FCR, would have no effect.

    Raises:
        ValueError: what was changed is a parameter that is wrapped.
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
    """The wrappers of NNI's compressors that are on now."""
    return [getattr(module, SLOT) for module in model.modules() if hasattr(module, SLOT)]


def _wrapped(wrapper: ModuleWrapper) -> list[str]:
    """Names of the parameters that a wrapper holds."""
    spaces = wrapper.pruning_target_spaces | wrapper.quantization_target_spaces
    return [
        name
        for name, space in spaces.items()
        if space.type is TargetType.PARAMETER and isinstance(space.target, nn.Parameter)
    ]


@contextmanager
def _as_before_on_error(model: nn.Module) -> Iterator[None]:
    """What `recording` puts back after an exception, and the classes and forward hooks of the modules."""
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


def show_resized(model: nn.Module) -> None:
    """Let NNI and `torch.fx` see the convolutions that FCR changed as convolutions.

    NNI tells layers by the name of their class: without this, ``op_types: ['Conv2d']`` passes over the first
    convolution. And `torch.fx.symbolic_trace`, which NNI's speed-up needs, would look inside it, so that the speed-up
    would prune the layers after it and not itself. The speed-up is told to keep the reduction in the convolution that
    it puts in place of a pruned one.
    """
    for module in model.modules():
        if isinstance(module, ResizedConv2d):
            module.__class__ = _shown(*role_and_plain(type(module)))  # type: ignore[arg-type]  # classes are hashable
    if not isinstance(replace_module["Conv2d"], _KeepReduction):
        replace_module["Conv2d"] = _KeepReduction(replace_module["Conv2d"])


class _KeepReduction:
    """NNI's replacement of a pruned convolution, which forgets that the convolution was reduced."""

    def __init__(self, replace: Any):
        self.replace = replace

    def __call__(self, module: nn.Conv2d, masks: tuple[Any, ...]) -> nn.Conv2d:
        pruned = self.replace(module, masks)
        if isinstance(module, ResizedConv2d):
            role, _ = role_and_plain(type(module))
            resize_output(pruned, role, module.own_size, module.resized, module.interpolation)
            show_resized(pruned)
        return pruned


@functools.cache
def _shown(role: type[ResizedConv2d], plain: type[nn.Conv2d]) -> type[ResizedConv2d]:
    """The class of a resized convolution with the name and the module (which `torch.fx` goes by) of a plain one."""

    def __reduce_ex__(self: ResizedConv2d, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _blank, (role, plain), self.__dict__.copy()

    return type(plain.__name__, (role, plain), {"__module__": nn.Conv2d.__module__, "__reduce_ex__": __reduce_ex__})


def _blank(role: type[ResizedConv2d], plain: type[nn.Conv2d]) -> ResizedConv2d:
    shown = _shown(role, plain)  # type: ignore[arg-type]  # classes are hashable
    return shown.__new__(shown)

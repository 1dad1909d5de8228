"""Convolutions that FCR reduced, shown to NNI 3.0 as convolutions, and kept reduced when NNI prunes them.

NNI identifies layers by the name of their class: without this, ``op_types: ['Conv2d']`` would not select the first
convolution. `torch.fx.symbolic_trace`, which NNI's speed-up needs, would trace the inside of the first convolution, and
the speed-up would prune the layers after it but not the convolution itself.

NNI's replacement of a pruned ``Conv2d`` builds a plain one, and its speed-up takes no other without an argument that a
user could forget; the network would then silently work at full resolution. So NNI's replacement is wrapped as long as a
reduced convolution exists, and put back when the last one is undone or deleted.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, SupportsIndex

import torch.nn as nn
from nni.compression.speedup.replacement import replace_module

from ...cnn.resized_conv import ResizedConv2d, resize_output, role_and_plain

_kept: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""The convolutions whose reduction NNI must keep."""


def keep_reductions(model: nn.Module) -> None:
    """Let NNI and `torch.fx` see the reduced convolutions of a network as convolutions, and keep their reduction."""
    for module in model.modules():
        if isinstance(module, ResizedConv2d):
            module.__class__ = _shown(*role_and_plain(type(module)))  # type: ignore[arg-type]  # classes are hashable
            _keep(module)


def release_nni() -> None:
    """Put back NNI's replacement of ``Conv2d``, if no reduced convolution is left."""
    replace = replace_module["Conv2d"]
    if isinstance(replace, _KeepReduction) and not any(isinstance(module, ResizedConv2d) for module in _kept):
        replace_module["Conv2d"] = replace.replace


def _keep(convolution: nn.Module) -> None:
    _kept.add(convolution)
    weakref.finalize(convolution, release_nni).atexit = False
    if not isinstance(replace_module["Conv2d"], _KeepReduction):
        replace_module["Conv2d"] = _KeepReduction(replace_module["Conv2d"])


class _KeepReduction:
    """NNI's replacement of a pruned convolution, which then reduces the new convolution as the old one was."""

    def __init__(self, replace: Any):
        self.replace = replace

    def __call__(self, module: nn.Conv2d, masks: tuple[Any, ...]) -> nn.Conv2d:
        pruned = self.replace(module, masks)
        if isinstance(module, ResizedConv2d):
            role, _ = role_and_plain(type(module))
            resize_output(pruned, role, module.own_size, module.resized, module.interpolation)
            keep_reductions(pruned)
        return pruned


@functools.cache
def _shown(role: type[ResizedConv2d], plain: type[nn.Conv2d]) -> type[ResizedConv2d]:
    """The class of a reduced convolution with the name of a plain one, and its module, which `torch.fx` looks at."""

    def __reduce_ex__(self: ResizedConv2d, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _blank, (role, plain), self.__dict__.copy()

    return type(plain.__name__, (role, plain), {"__module__": nn.Conv2d.__module__, "__reduce_ex__": __reduce_ex__})


def _blank(role: type[ResizedConv2d], plain: type[nn.Conv2d]) -> ResizedConv2d:
    """An empty reduced convolution, for copies and pickles."""
    shown = _shown(role, plain)  # type: ignore[arg-type]  # classes are hashable
    convolution = shown.__new__(shown)
    _keep(convolution)
    return convolution

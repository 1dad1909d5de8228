"""Contexts in which a network may be changed. Afterwards, even after an exception, the network is restored.

`models.evaluating` does this for training modes, and `originals.recording` for changes that are kept unless they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn


@contextmanager
def restoring_attributes(model: nn.Module) -> Iterator[None]:
    """Restore the parameters, buffers and attributes of each module afterwards: the same objects.

    This undoes changes that assign new tensors or numbers, as pruning does. Values that are written into existing
    tensors are not restored (see `restoring_values`), nor are replaced submodules.
    """
    put_back = _attributes_of(model)
    try:
        yield
    finally:
        put_back()


@contextmanager
def restoring_values(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Restore the values of tensors afterwards, from copies.

    Args:
        tensors: such as ``model.parameters()`` and ``model.buffers()``.
    """
    put_back = _values_of(tensors)
    try:
        yield
    finally:
        put_back()


@contextmanager
def restoring_hooks(model: nn.Module) -> Iterator[None]:
    """Remove afterwards the forward hooks that were added to the modules meanwhile.

    This is for callees that do not remove their hooks when a forward pass fails.
    """
    before = {module: set(module._forward_hooks) for module in model.modules()}
    try:
        yield
    finally:
        for module, hooks in before.items():
            for new in module._forward_hooks.keys() - hooks:
                del module._forward_hooks[new]


@contextmanager
def requiring_gradients(parameters: Iterable[torch.Tensor]) -> Iterator[None]:
    """A context in which frozen floating-point parameters require gradients too; afterwards they are frozen again."""
    frozen = [p for p in parameters if not p.requires_grad and p.is_floating_point()]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def undoing_failures(model: nn.Module) -> Iterator[None]:
    """After an exception each module has the parameters, buffers and attributes that it had, with their values.

    For changes that are kept unless they fail. A copy of all values is kept meanwhile.
    """
    put_attributes_back, put_values_back = _attributes_of(model), _values_of((*model.parameters(), *model.buffers()))
    try:
        yield
    except BaseException:
        put_attributes_back()
        put_values_back()
        raise


def _attributes_of(model: nn.Module) -> Callable[[], None]:
    """Remember the parameters, buffers and attributes of each module; the function that is returned puts them back.

    Raises:
        TypeError: a module is scripted, so that its parameters cannot be replaced.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{repr(name) if name else 'model'} was made by torch.jit.script or torch.jit.trace, and cannot be "
                "changed: put the module from which it was made in its place, and script it afterwards"
            )
    parts = [part for m in model.modules() for part in (vars(m), m._parameters, m._buffers)]
    before = [dict(part) for part in parts]

    def put_back() -> None:
        for part, contents in zip(parts, before, strict=True):
            part.clear()
            part.update(contents)

    return put_back


def _values_of(tensors: Iterable[torch.Tensor]) -> Callable[[], None]:
    """Remember the values of tensors; the function that is returned puts them back."""
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def put_back() -> None:
        with torch.no_grad():
            for tensor, values in before:
                tensor.copy_(values)

    return put_back

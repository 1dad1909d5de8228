"""Undoing a change of a network: replaced objects are kept, and put back after an error or on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn

SLOTS = ("_parameters", "_buffers", "_modules")
"""The dicts that hold a module's parameters, buffers and submodules. Its other attributes, in ``__dict__``, are
the slot ``""``."""

Contents = dict[tuple[str, str], Any]
"""The objects that one module holds, by slot and name."""


class Absent:
    """Marks an attribute that did not exist. It is a class, because copies and pickles of a class are the class."""


@dataclass
class Originals:
    """The objects that a change replaced in a model, and copies of the parameters that replaced them.

    Modules are referred to by their path in the model, so the model itself can hold this object: `copy.deepcopy` and
    pickling copy it with the model. It is not in the `state_dict`, whose keys remain those of the model's library.
    """

    replaced: list[tuple[str, str, str, Any]] = field(default_factory=list)
    """Path of the module, slot, name, and the replaced object."""
    made: dict[str, torch.Tensor] = field(default_factory=dict)
    """Copies of the parameters that the change created, by name in the model."""

    def untouched(self, model: nn.Module) -> bool:
        """Whether the parameters that the change created have the same values still: not trained, not loaded."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        return all(name in parameters and _equal(copy, parameters[name]) for name, copy in self.made.items())

    def put_back(self, model: nn.Module) -> None:
        """Undo the change.

        If the model has since been moved, cast, frozen or set to another mode, so are the restored objects.
        """
        for path, slot, name, original in self.replaced:
            module = model.get_submodule(path)
            _put(module, slot, name, _as_now(original, _contents(module).get((slot, name), Absent)))


@contextmanager
def recording(model: nn.Module) -> Iterator[Callable[[], Originals]]:
    """A context that records changes of a model, and undoes them after an exception.

    Yields:
        A function that returns the `Originals` of everything that has been replaced so far. Only replaced objects are
        found: a change must assign new tensors, and must not write into existing ones.
    """
    before = {path: (module, _contents(module)) for path, module in model.named_modules()}

    def originals() -> Originals:
        found = Originals()
        now = dict(model.named_modules())
        for path, (module, contents) in before.items():
            if path not in now or now[path] is not module:
                continue  # the module itself was replaced: its parent records that
            after = _contents(module)
            for slot, name in contents | after:
                original, value = contents.get((slot, name), Absent), after.get((slot, name), Absent)
                if original is not value:
                    found.replaced.append((path, slot, name, original))
                    found.made |= _parameters(value, f"{path}.{name}" if path else name)
        return found

    try:
        yield originals
    except BaseException:
        for module, contents in before.values():
            for slot, name in contents | _contents(module):
                _put(module, slot, name, contents.get((slot, name), Absent))
        raise


def _contents(module: nn.Module) -> Contents:
    registered = {(slot, name): value for slot in SLOTS for name, value in getattr(module, slot).items()}
    return registered | {("", name): value for name, value in vars(module).items() if name not in SLOTS}


def _put(module: nn.Module, slot: str, name: str, value: Any) -> None:
    """Put a value into a slot without ``__setattr__``, which would look for the name in the other slots."""
    held = getattr(module, slot) if slot else vars(module)
    if value is Absent:
        held.pop(name, None)
    else:
        held[name] = value


def _parameters(value: Any, name: str) -> dict[str, torch.Tensor]:
    """Copies of a parameter, or of the parameters of a module, by name."""
    if isinstance(value, nn.Module):
        return {f"{name}.{inner}": parameter.detach().clone() for inner, parameter in value.named_parameters()}
    return {name: value.detach().clone()} if isinstance(value, nn.Parameter) else {}


def _equal(copy: torch.Tensor, parameter: torch.Tensor) -> bool:
    if copy.shape != parameter.shape or parameter.is_meta:
        return copy.shape == parameter.shape
    return torch.equal(copy.to(parameter), parameter)


def _as_now(original: Any, now: Any) -> Any:
    """The original with the device, dtype, mode and ``requires_grad`` of the present object; a copy only if needed."""
    if isinstance(original, nn.Module) and isinstance(now, nn.Module):
        original.train(now.training)
        counterparts = {path: _contents(module) for path, module in now.named_modules()}
        for path, module in original.named_modules():
            for (slot, name), tensor in _contents(module).items():
                if slot in ("_parameters", "_buffers"):
                    _put(module, slot, name, _as_now(tensor, counterparts.get(path, {}).get((slot, name))))
    elif isinstance(original, torch.Tensor) and isinstance(now, torch.Tensor):
        moved = original.detach().to(now.device, now.dtype if now.is_floating_point() else None)
        if (moved.device, moved.dtype) != (original.device, original.dtype):
            original = nn.Parameter(moved) if isinstance(original, nn.Parameter) else moved
        if isinstance(original, nn.Parameter):
            original.requires_grad_(now.requires_grad)
    return original

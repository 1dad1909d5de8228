"""What a change replaces in a network, kept so that it can be put back: after an error, or on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn

SLOTS = ("_parameters", "_buffers", "_modules")
"""Where a module keeps what is registered on it; everything else is in its ``__dict__``, here the slot ``""``."""

Contents = dict[tuple[str, str], Any]
"""What one module holds, by slot and name."""


class Absent:
    """Stands for an attribute that was not there. The class itself: copies and pickles keep it what it is."""


@dataclass
class Originals:
    """The objects that a change replaced in a model, and copies of the parameters that it put in their place.

    It holds paths and no modules of the model, so it can be kept on the model: it follows through `copy.deepcopy` and
    pickling, and stays out of `state_dict`, whose keys remain those of the model's own library.
    """

    replaced: list[tuple[str, str, str, Any]] = field(default_factory=list)
    """Path of the module, slot, name, and what was there."""
    made: dict[str, torch.Tensor] = field(default_factory=dict)
    """What the change made of the parameters, by name in the model."""

    def untouched(self, model: nn.Module) -> bool:
        """Whether the parameters that the change made are as it made them: not trained, nor loaded, since."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        return all(name in parameters and _equal(copy, parameters[name]) for name, copy in self.made.items())

    def put_back(self, model: nn.Module) -> None:
        """Undo the change. What was moved, cast, frozen or set to another mode since is, also in what comes back."""
        for path, slot, name, original in self.replaced:
            module = model.get_submodule(path)
            _put(module, slot, name, _as_now(original, _contents(module).get((slot, name), Absent)))


@contextmanager
def recording(model: nn.Module) -> Iterator[Callable[[], Originals]]:
    """Change a model inside: it is as it was after an exception, and the value tells what was replaced so far."""
    before = {path: (module, _contents(module)) for path, module in model.named_modules()}

    def originals() -> Originals:
        found = Originals()
        now = dict(model.named_modules())
        for path, (module, contents) in before.items():
            if path not in now or now[path] is not module:
                continue  # it went, or came, as a whole: its parent says so
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
    """Past ``__setattr__``, which would look for the name in the other slots."""
    held = getattr(module, slot) if slot else vars(module)
    if value is Absent:
        held.pop(name, None)
    else:
        held[name] = value


def _parameters(value: Any, name: str) -> dict[str, torch.Tensor]:
    """Copies of a parameter, or of those of a module."""
    if isinstance(value, nn.Module):
        return {f"{name}.{inner}": parameter.detach().clone() for inner, parameter in value.named_parameters()}
    return {name: value.detach().clone()} if isinstance(value, nn.Parameter) else {}


def _equal(copy: torch.Tensor, parameter: torch.Tensor) -> bool:
    if copy.shape != parameter.shape or parameter.is_meta:
        return copy.shape == parameter.shape
    return torch.equal(copy.to(parameter), parameter)


def _as_now(original: Any, now: Any) -> Any:
    """What was there, on the device, in the dtype and mode of what is there now; the same object where possible."""
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

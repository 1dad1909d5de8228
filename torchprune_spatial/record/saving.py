"""Files of pruned networks, without code: the tensors, and the sizes of the layers."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
import torch.nn as nn

from resolution_scaling.ground.files import replacing
from resolution_scaling.ground.meta import meta_copy
from resolution_scaling.ground.models import attribute_tensors, unwrapped

FORMAT = 1
Structure = dict[str, dict[str, Any]]
Tensors = dict[str, torch.Tensor]


def save_pruned(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Save a pruned network in a file for `load_pruned`; ``torch.load(path, weights_only=True)`` reads it too.

    The file holds a dict: ``"format"``, a number; ``"state_dict"``; ``"other_tensors"``, those that modules hold
    outside of it (buffers that are not persistent, and plain attributes); and ``"structure"``, by the name of each
    module its public attributes that are numbers, or tuples and lists of numbers, such as ``out_channels`` and
    ``num_heads``. The file is written as a whole or not at all. Of a compiled or data-parallel network, the network
    inside is saved.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> save_pruned(model, "pruned.pt")
        >>> model = load_pruned(ResUNet(width=32), "pruned.pt")  # built as before pruning
    """
    model = unwrapped(model)
    state = model.state_dict()
    others = {name: tensor for name, tensor in _others(model).items() if name not in state}
    save_tensors({"format": FORMAT, "state_dict": state, "other_tensors": others, "structure": _structure(model)}, path)


def load_pruned(model: nn.Module, path: str | os.PathLike[str], map_location: Any = "cpu") -> nn.Module:
    """Give a network that is built as before pruning the sizes and tensors of the pruned one.

    Parameters that several layers share stay shared if the saved ones are equal; frozen ones stay frozen. As with
    ``load_state_dict``, the model keeps its device, dtype and training modes. Parameters whose shape changes are
    replaced: build optimizers afterwards.

    Args:
        model: a network of the same class with the same layers; their sizes do not matter.
        path: a file of `save_pruned`.
        map_location: where ``torch.load`` puts the tensors before they are copied to the model.

    Returns:
        ``model``.

    Raises:
        ValueError: the file is damaged, is not one of `save_pruned`, or is of a network with other layers. The model
            is then exactly as it was.
        OSError: the file cannot be read.
    """
    structure, state, others = _read(path, map_location)
    network = unwrapped(model)
    (rehearsal,) = meta_copy(network)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*meta parameter.*no-op")
            _fill(rehearsal, structure, state, others)
    except Exception as error:
        raise ValueError(f"{path} does not fit this {type(network).__name__}: {error}") from error
    _fill(network, structure, state, others)
    return model


def save_tensors(content: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save``, as a whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as partial:
        torch.save(content, partial)


def _others(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model that may be missing in its ``state_dict``."""
    return dict(model.named_buffers()) | attribute_tensors(model)


def _structure(model: nn.Module) -> Structure:
    return {
        name: {
            key: list(value) if isinstance(value, list) else tuple(value) if isinstance(value, tuple) else value
            for key, value in vars(module).items()
            if not key.startswith("_") and key != "training" and _is_number_like(value)
        }
        for name, module in model.named_modules()
    }


def _is_number_like(value: Any) -> bool:
    """Whether this is a number or a sequence of them. Floats are: an attention's scale can depend on its size."""
    if isinstance(value, (tuple, list)):
        return all(_is_number_like(item) for item in value) and type(value) in (tuple, list, torch.Size)
    return type(value) in (int, float, bool)


def _read(path: str | os.PathLike[str], map_location: Any) -> tuple[Structure, Tensors, Tensors]:
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # its type depends on where the file is damaged
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is damaged, or not a file of save_pruned: {reason}") from error
    parts = {"format": int, "structure": dict, "state_dict": dict}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in parts.items()):
        raise ValueError(f"{path} is not a file of save_pruned; a plain state_dict goes into model.load_state_dict")
    if content["format"] != FORMAT:
        raise ValueError(f"{path} has format {content['format']!r}, but this version reads format {FORMAT}: update it")
    return content["structure"], content["state_dict"], content.get("other_tensors", {})


def _fill(model: nn.Module, structure: Structure, state: Tensors, others: Tensors) -> None:
    modules = dict(model.named_modules())
    if different := sorted(modules.keys() ^ structure.keys()):
        where = ", ".join(f"{name!r} is only in the {'model' if name in modules else 'file'}" for name in different[:3])
        raise ValueError(f"layer {where}{' ...' * (len(different) > 3)}")
    for name, module in modules.items():
        for key, value in structure[name].items():
            if vars(module).get(key) != value:
                setattr(module, key, value)
    for path, old in _others(model).items():
        if path in others and others[path].shape != old.shape:  # else it is what the model has made it
            owner, _, key = path.rpartition(".")
            setattr(model.get_submodule(owner), key, others[path].to(old))
    resized: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # old, new, saved
    for path, old in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        saved = state.get(path)
        if saved is None:  # not persistent; or missing, which load_state_dict reports
            continue
        owner, _, key = path.rpartition(".")
        twin = next((n for o, n, s in resized if o is old and s.shape == saved.shape and torch.equal(s, saved)), None)
        if twin is None:
            twin = old
            if old.shape != saved.shape or any(old is o for o, _, _ in resized):
                twin = _like(old, saved.shape)
        resized.append((old, twin, saved))
        if twin is not old:
            setattr(model.get_submodule(owner), key, twin)
    model.load_state_dict(state, strict=True)


def _like(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    empty = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty

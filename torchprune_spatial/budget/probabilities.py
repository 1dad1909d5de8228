"""Deciding whether the outputs of a network are logits, which are compared as probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves, tree_leaves_with_path

from ..calibration.regions import VOID_LABEL

READINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "values": lambda output: output,
    "sigmoid": torch.sigmoid,
    "softmax": lambda output: output.softmax(1),
    "softmax over the last dimension": lambda output: output.softmax(-1).movedim(-1, 1),
}
"""The ways to read an output ``[batch, channels, ...]`` (the last: ``[batch, ..., channels]``), and the functions that
convert it accordingly, to ``[batch, channels, ...]``."""

MILD = 3.0
"""Where no target decides, outputs up to this magnitude are read as values. They are then images, possibly normalized,
or logits so small that the sigmoid makes little difference."""

CLEAR = 0.5
"""A reading is decided where its squared error is at most this share of that of the next best reading."""


def reading_of(outputs: Sequence[torch.Tensor], targets: Sequence[Any]) -> str | None:
    """Find the key of `READINGS` under which the outputs are nearest to their targets.

    Outputs in 0..1 are values. Other outputs are compared with the targets of the calibration data by squared error:
    unchanged, after a sigmoid, and after a softmax over the channels. Outputs with integer labels of several classes as
    targets are never values. If a target holds several tensors, the one is used to which the outputs come nearest, for
    its variance. The network must be trained for this to work.

    Args:
        outputs: one output of the network for each batch, ``[batch, channels, *grid]`` or ``[batch, channels]``, or
            with the channels last.
        targets: the target of each batch, in any nesting; see `target_planes`.

    Returns:
        The key; None if the outputs exceed `MILD` and the targets do not decide.
    """
    if not all(x.numel() for x in outputs):
        return "values"
    low, high = min(float(x.min()) for x in outputs), max(float(x.max()) for x in outputs)
    if low >= -1e-3 and high <= 1 + 1e-3:
        return "values"
    tensors = [[leaf for leaf in tree_leaves(target) if isinstance(leaf, torch.Tensor)] for target in targets]
    alike = len({len(found) for found in tensors}) == 1
    compared = [_nearest(outputs, candidates) for candidates in zip(*tensors, strict=True)] if alike else []
    if fitting := [found for found in compared if found]:
        _, reading = min(fitting, key=lambda found: found[0])
        if reading:
            return reading
    elif all(map(_are_log_probabilities, outputs)):
        return "softmax"  # the softmax of log-probabilities is the probabilities
    return "values" if max(-low, high) <= MILD else None


def _nearest(outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> tuple[float, str | None] | None:
    """Compare outputs with one of the tensors of their targets.

    Returns:
        The smallest squared error over the variance of the target, and the reading that has it (None where that is not
        clear); None if the target does not fit.
    """
    names: tuple[str, ...]
    if (last := labels_last(outputs, targets)) is not None:
        pairs, names = last, ("sigmoid", "softmax")
        outputs = [x.movedim(-1, 1) for x in outputs]
    else:
        mask_255 = _is_mask_of_255(targets)
        planes = [target_planes(output, target, mask_255) for output, target in zip(outputs, targets, strict=True)]
        fitting = [found for found in planes if found is not None]
        if len(fitting) < len(outputs):
            return None
        pairs = [(ideal, where) for ideal, where, _ in fitting]
        several = outputs[0].ndim > 1 and outputs[0].shape[1] > 1
        if several and all(are_labels for _, _, are_labels in fitting):
            names = ("softmax", "sigmoid")
        else:
            names = ("values", "sigmoid", "softmax") if several else ("values", "sigmoid")
    known = torch.cat([ideal[where] for ideal, where in pairs])
    if not len(known):
        return None
    errors = _errors(outputs, pairs, names)
    if last is None and mask_255 and "values" in names:  # the outputs may be trained towards 255 itself
        of_255 = [(VOID_LABEL * ideal, where) for ideal, where in pairs]
        errors["values"] = min(errors["values"], _errors(outputs, of_255, ["values"])["values"] / VOID_LABEL**2)
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    relative = errors[best] / max(float((known - known.mean()).square().sum()), 1e-12)
    if "values" in (best, second) and errors[best] > CLEAR * errors[second]:
        return relative, None
    return relative, "softmax over the last dimension" if last is not None and best == "softmax" else best


def target_of(paths: Sequence[Any], number: int, target: Any) -> Any:
    """Find the part of a target that belongs to one of several outputs.

    Args:
        paths: where each output stands among the outputs of the network (PyTorch's key paths).
        number: the output.
        target: the target, in any nesting.

    Returns:
        The tensor under the same key, if the target is a mapping with the keys of all outputs; else all of the target.
    """
    if isinstance(target, Mapping):
        by_path = {path: leaf for path, leaf in tree_leaves_with_path(target) if isinstance(leaf, torch.Tensor)}
        if all(path in by_path for path in paths):
            return by_path[paths[number]]
    return target


def _errors(
    outputs: Sequence[torch.Tensor], targets: Sequence[tuple[torch.Tensor, torch.Tensor]], names: Sequence[str]
) -> dict[str, float]:
    """Compute the squared error of the outputs under each of the readings, where the targets are known."""
    pairs = list(zip(outputs, targets, strict=True))
    return {
        name: sum(float((READINGS[name](x.float()) - ideal)[where].square().sum()) for x, (ideal, where) in pairs)
        for name in names
    }


def _are_log_probabilities(output: torch.Tensor) -> bool:
    several = output.ndim > 1 and output.shape[1] > 1
    return several and torch.allclose(output.exp().sum(1), output.new_ones(()), atol=1e-3)


def labels_last(
    outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """Find integer labels ``[batch, *grid]`` for outputs whose channels are last, ``[batch, *grid, channels]``.

    Returns:
        For each batch the one-hot labels, with the channels second, and a mask of where they are known. None unless the
        labels fit the outputs with the channels last, and do not fit them with the channels second.
    """
    found = []
    for output, target in zip(outputs, targets, strict=True):
        shape = tuple(output.shape)
        fits = _is_integer(target) and tuple(target.shape) == shape[:-1] and tuple(target.shape[1:]) != shape[2:]
        if output.ndim < 3 or not fits:
            return None
        planes = _planes(target.to(output.device), output.movedim(-1, 1), False)
        if planes is None:
            return None
        found.append((planes[0], (planes[1] > 0).expand_as(planes[0])))
    return found


def target_planes(
    output: torch.Tensor, target: torch.Tensor, mask_255: bool = False
) -> tuple[torch.Tensor, torch.Tensor, bool] | None:
    """Convert a target, in any of the usual forms, to the output that it asks for.

    Args:
        output: ``[batch, channels, *grid]``, ``[batch, channels]`` or ``[batch]``.
        target: fits if it has shape ``[batch, channels, *size]``, where the dimension of a single channel may be
            missing, or if it holds integer labels, ``[batch, *size]`` or ``[batch, 1, *size]``, of no more classes than
            there are channels. Negative labels and 255 are void. Another size than that of the output is resampled.
        mask_255: whether an integer target for one channel is a mask of 0 and 255, so that 255 is not void.

    Returns:
        The ideal output, and a mask (bool) of where it is known, both in the shape of the output; and whether the
        target holds labels of classes. None if it does not fit.
    """
    shaped = output if output.ndim > 1 else output.unsqueeze(1)
    if not target.ndim or target.is_complex() or len(target) != len(output):
        return None
    planes = _planes(target.to(output.device), shaped, mask_255)
    if planes is None or planes[0].ndim != shaped.ndim:
        return None
    ideal, known = (_resized(plane, shaped.shape[2:]) for plane in planes)
    if ideal.shape != shaped.shape:
        return None
    where = (known > 1 - 1e-6).expand_as(shaped).reshape(output.shape)
    are_labels = _is_integer(target) and shaped.shape[1] > 1 and target.shape[1:2] != shaped.shape[1:2]
    return ideal.view(output.shape), where, are_labels


def _planes(target: torch.Tensor, output: torch.Tensor, mask_255: bool) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Make ideal values ``[batch, channels, *size]`` and weights ``[batch, 1 or channels, *size]``, 0 where unknown."""
    channels = output.shape[1]
    has_channels = target.ndim == output.ndim and target.shape[1] in (1, channels)
    if not has_channels and target.ndim != output.ndim - 1:
        return None
    planes = target if has_channels else target.unsqueeze(1)
    if not _is_integer(target):
        return (planes.float().nan_to_num(), planes.isfinite().float()) if planes.shape[1] == channels else None
    if planes.shape[1] == channels > 1:
        return planes.float(), torch.ones_like(planes, dtype=torch.float32)
    if channels == 1 and mask_255:
        return (planes == VOID_LABEL).float(), torch.ones_like(planes, dtype=torch.float32)
    known = (planes >= 0) & (planes != VOID_LABEL)
    labels = planes.long().masked_fill(~known, 0)
    if channels == 1:
        return labels.float(), known.float()
    if int(labels.max()) >= channels:
        return None
    return F.one_hot(labels.squeeze(1), channels).movedim(-1, 1).float(), known.float()


def _is_mask_of_255(targets: Sequence[torch.Tensor]) -> bool:
    """Whether the integer targets of all batches together hold 0 and 255 alone, as a mask in an image file does."""
    values = set[int]().union(*(target.unique().tolist() for target in targets if _is_integer(target)))
    return VOID_LABEL in values and values <= {0, VOID_LABEL}


def _is_integer(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def _resized(planes: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(planes, tuple(size), mode="area") if size and planes.shape[2:] != size else planes

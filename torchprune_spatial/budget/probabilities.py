"""Deciding whether the outputs of a network are logits, which are compared as probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    targets are never values. The network must be trained for this to work.

    Args:
        outputs: one output of the network for each batch, ``[batch, channels, *grid]`` or ``[batch, channels]``, or
            with the channels last.
        targets: the target of each batch: a tensor, or nested tensors of which one alone may fit.

    Returns:
        The key; None if the outputs exceed `MILD` and the targets do not decide.
    """
    if not all(x.numel() for x in outputs):
        return "values"
    low, high = min(float(x.min()) for x in outputs), max(float(x.max()) for x in outputs)
    if low >= -1e-3 and high <= 1 + 1e-3:
        return "values"
    if (labels := labels_last(outputs, targets)) is not None:
        errors = _errors([x.movedim(-1, 1) for x in outputs], labels, ("sigmoid", "softmax"))
        best = min(errors, key=errors.__getitem__)
        return "sigmoid" if best == "sigmoid" else "softmax over the last dimension"
    mask_255 = _is_mask_of_255(targets)
    planes = [target_planes(output, target, mask_255) for output, target in zip(outputs, targets, strict=True)]
    known = [found for found in planes if found is not None]
    if len(known) == len(outputs) and any(where.any() for _, where, _ in known):
        several = outputs[0].ndim > 1 and outputs[0].shape[1] > 1
        if several and all(are_labels for _, _, are_labels in known):
            names: tuple[str, ...] = ("softmax", "sigmoid")
        else:
            names = ("values", "sigmoid", "softmax") if several else ("values", "sigmoid")
        errors = _errors(outputs, [(ideal, where) for ideal, where, _ in known], names)
        best, second = sorted(errors, key=errors.__getitem__)[:2]
        if "values" not in names or "values" not in (best, second) or errors[best] <= CLEAR * errors[second]:
            return best
    elif all(map(_are_log_probabilities, outputs)):
        return "softmax"  # the softmax of log-probabilities is the probabilities
    return "values" if max(-low, high) <= MILD else None


def target_of(paths: Sequence[Any], number: int, target: Any) -> Any:
    """Find the part of a target that belongs to one of several outputs.

    Args:
        paths: where each output stands among the outputs of the network (PyTorch's key paths).
        number: the output.
        target: the target, in any nesting.

    Returns:
        The only tensor of the target; or the tensor at the place of the output; or, if there are as many tensors as
        outputs, the one of this number; or else all of the target.
    """
    tensors = [(path, leaf) for path, leaf in tree_leaves_with_path(target) if isinstance(leaf, torch.Tensor)]
    if len(tensors) == 1:
        return tensors[0][1]
    by_path = dict(tensors)
    if all(path in by_path for path in paths):
        return by_path[paths[number]]
    return tensors[number][1] if len(tensors) == len(paths) else target


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
    outputs: Sequence[torch.Tensor], targets: Sequence[Any]
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """Find integer labels ``[batch, *grid]`` for outputs whose channels are last, ``[batch, *grid, channels]``.

    Returns:
        For each batch the one-hot labels, with the channels second, and a mask of where they are known. None unless the
        labels fit the outputs with the channels last, and do not fit them with the channels second.
    """
    found = []
    for output, target in zip(outputs, targets, strict=True):
        shape = tuple(output.shape)
        fits = [
            leaf
            for leaf in tree_leaves(target)
            if isinstance(leaf, torch.Tensor) and _is_integer(leaf) and tuple(leaf.shape) == shape[:-1]
        ]
        if output.ndim < 3 or len(fits) != 1 or tuple(fits[0].shape[1:]) == shape[2:]:
            return None
        planes = _planes(fits[0].to(output.device), output.movedim(-1, 1), False)
        if planes is None:
            return None
        found.append((planes[0], (planes[1] > 0).expand_as(planes[0])))
    return found


def target_planes(
    output: torch.Tensor, target: Any, mask_255: bool = False
) -> tuple[torch.Tensor, torch.Tensor, bool] | None:
    """Convert a target, in any of the usual forms, to the output that it asks for.

    Args:
        output: ``[batch, channels, *grid]``, ``[batch, channels]`` or ``[batch]``.
        target: a tensor, or nested tensors of which exactly one fits. A target fits if it has shape ``[batch, channels,
            *size]``, where the dimension of a single channel may be missing, or if it holds integer labels, ``[batch,
            *size]`` or ``[batch, 1, *size]``, of no more classes than there are channels. Negative labels and 255 are
            void. A target of another size than the output is resampled.
        mask_255: whether an integer target for one channel is a mask of 0 and 255, so that 255 is not void.

    Returns:
        The ideal output, and a mask (bool) of where it is known, both in the shape of the output; and whether the
        target holds labels of classes. None if nothing fits, or if several tensors do.
    """
    shaped = output if output.ndim > 1 else output.unsqueeze(1)
    found = []
    for leaf in tree_leaves(target):
        if isinstance(leaf, torch.Tensor) and leaf.ndim and not leaf.is_complex() and len(leaf) == len(output):
            planes = _planes(leaf.to(output.device), shaped, mask_255)
            if planes is not None and planes[0].ndim == shaped.ndim:
                ideal, known = (_resized(plane, shaped.shape[2:]) for plane in planes)
                if ideal.shape == shaped.shape:
                    where = (known > 1 - 1e-6).expand_as(shaped).reshape(output.shape)
                    are_labels = _is_integer(leaf) and shaped.shape[1] > 1 and leaf.shape[1:2] != shaped.shape[1:2]
                    found.append((ideal.view(output.shape), where, are_labels))
    return found[0] if len(found) == 1 else None


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


def _is_mask_of_255(targets: Sequence[Any]) -> bool:
    """Whether the integer targets of all batches together hold 0 and 255 alone, as a mask in an image file does."""
    tensors = [leaf for leaf in tree_leaves(list(targets)) if isinstance(leaf, torch.Tensor) and _is_integer(leaf)]
    values = set().union(*(tensor.unique().tolist() for tensor in tensors if tensor.ndim > 1))
    return VOID_LABEL in values and values <= {0, VOID_LABEL}


def _is_integer(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def _resized(planes: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(planes, tuple(size), mode="area") if size and planes.shape[2:] != size else planes

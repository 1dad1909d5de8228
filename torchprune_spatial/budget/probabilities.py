"""Deciding whether the outputs of a network are logits, which are compared as probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves

from ..calibration.regions import VOID_LABEL

READINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "values": lambda output: output,
    "sigmoid": torch.sigmoid,
    "softmax": lambda output: output.softmax(1),
}
"""The ways to read an output ``[batch, channels, ...]``, and the functions that convert it accordingly."""

MILD = 3.0
"""Without a usable target, outputs up to this magnitude are read as values. They are then images, possibly normalized,
or logits so small that the sigmoid makes little difference."""


def reading_of(outputs: Sequence[torch.Tensor], targets: Sequence[Any]) -> str | None:
    """Find the key of `READINGS` under which the outputs are nearest to their targets.

    Outputs in 0..1 are values. Other outputs are compared with the targets of the calibration data by squared error:
    unchanged, after a sigmoid, and after a softmax over the channels. The network must be trained for this to work.

    Args:
        outputs: one output of the network for each batch, ``[batch, channels, *grid]`` or ``[batch, channels]``.
        targets: the target of each batch, as the loader yields it.

    Returns:
        The key; None if the outputs exceed `MILD` and no target can be compared with them.
    """
    if not all(x.numel() for x in outputs):
        return "values"
    low, high = min(float(x.min()) for x in outputs), max(float(x.max()) for x in outputs)
    if low >= -1e-3 and high <= 1 + 1e-3:
        return "values"
    compared = [target_planes(output, target) for output, target in zip(outputs, targets, strict=True)]
    pairs = [(output, *planes) for output, planes in zip(outputs, compared, strict=True) if planes is not None]
    if len(pairs) == len(outputs) and any(known.any() for _, _, known in pairs):
        several = outputs[0].ndim > 1 and outputs[0].shape[1] > 1
        errors = {
            name: sum(float((read(x.float()) - planes)[known].square().sum()) for x, planes, known in pairs)
            for name, read in READINGS.items()
            if several or name != "softmax"
        }
        return min(errors, key=errors.__getitem__)
    if all(map(_are_log_probabilities, outputs)):
        return "softmax"  # the softmax of log-probabilities is the probabilities
    return "values" if max(-low, high) <= MILD else None


def _are_log_probabilities(output: torch.Tensor) -> bool:
    several = output.ndim > 1 and output.shape[1] > 1
    return several and torch.allclose(output.exp().sum(1), output.new_ones(()), atol=1e-3)


def target_planes(output: torch.Tensor, target: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Convert a target, in any of the usual forms, to the output that it asks for.

    Args:
        output: ``[batch, channels, *grid]``, ``[batch, channels]`` or ``[batch]``.
        target: a tensor, or nested tensors, the first of which that fits is used. A target fits if it has shape
            ``[batch, channels, *size]``, where the dimension of a single channel may be missing, or if it holds integer
            labels, ``[batch, *size]`` or ``[batch, 1, *size]``, of no more classes than there are channels. Negative
            labels and 255 are void. A target of another size than the output is resampled.

    Returns:
        The ideal output, and a mask (bool) of where it is known, both in the shape of the output; None if nothing fits.
    """
    for leaf in tree_leaves(target):
        if isinstance(leaf, torch.Tensor) and leaf.ndim and not leaf.is_complex() and len(leaf) == len(output):
            shaped = output if output.ndim > 1 else output.unsqueeze(1)
            planes = _planes(leaf.to(output.device), shaped)
            if planes is not None and (planes[0].ndim == shaped.ndim):
                ideal, known = (_resized(plane, shaped.shape[2:]) for plane in planes)
                if ideal.shape == shaped.shape:
                    return ideal.view(output.shape), (known > 1 - 1e-6).expand_as(shaped).reshape(output.shape)
    return None


def _planes(target: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Make ideal values ``[batch, channels, *size]`` and weights ``[batch, 1 or channels, *size]``, 0 where unknown."""
    channels = output.shape[1]
    has_channels = target.ndim == output.ndim and target.shape[1] in (1, channels)
    if not has_channels and target.ndim != output.ndim - 1:
        return None
    planes = target if has_channels else target.unsqueeze(1)
    if target.is_floating_point() or target.dtype == torch.bool:
        return (planes.float().nan_to_num(), planes.isfinite().float()) if planes.shape[1] == channels else None
    if planes.shape[1] == channels > 1:
        return planes.float(), torch.ones_like(planes, dtype=torch.float32)
    known = (planes >= 0) & (planes != VOID_LABEL)
    labels, top = planes.long().masked_fill(~known, 0), int(planes.masked_fill(~known, 0).max())
    if channels > 1:
        if top >= channels:
            return None
        return F.one_hot(labels.squeeze(1), channels).movedim(-1, 1).float(), known.float()
    if top == 0:  # a mask of 0 and 255
        return (planes == VOID_LABEL).float(), torch.ones_like(planes, dtype=torch.float32)
    return planes.float(), known.float()


def _resized(planes: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(planes, tuple(size), mode="area") if size and planes.shape[2:] != size else planes

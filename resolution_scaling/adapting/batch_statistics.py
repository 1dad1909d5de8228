"""Mean and variance of what batch norms read, measured over batches, and moved from one resolution to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

Moments = dict[str, torch.Tensor]
"""``count``, and by channel ``mean`` and ``squares`` (the sum of squared deviations from the mean), in float64."""

Statistics = tuple[torch.Tensor, torch.Tensor]
"""Mean and variance by channel."""


def moments_of(maps: torch.Tensor) -> Moments:
    """Of each channel of ``[batch, channels, ...]``."""
    values = maps.detach().double().transpose(0, 1).flatten(1)
    mean = values.mean(1)
    squares = (values - mean[:, None]).square().sum(1)
    return {"count": mean.new_tensor(values.shape[1]), "mean": mean, "squares": squares}


def together(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of maps, exactly as if they had been one (Chan, Golub, LeVeque 1983)."""
    count, delta = a["count"] + b["count"], b["mean"] - a["mean"]
    return {
        "count": count,
        "mean": a["mean"] + delta * (b["count"] / count),
        "squares": a["squares"] + b["squares"] + delta.square() * (a["count"] * b["count"] / count),
    }


def replaced(now: Moments) -> Statistics:
    """Mean and variance of the calibration images themselves; unbiased, as the running variance of PyTorch."""
    return now["mean"], now["squares"] / (now["count"] - 1).clamp_min(1)


def shifted(old: Statistics, now: Moments, before: Moments, eps: float) -> Statistics:
    """The old statistics, moved as those of the calibration images move from the old resolution to the new.

    The mean by its shift in units of the standard deviation, the variance by its ratio: what is particular to the
    few images cancels, because both are measured on the same.
    """
    (mean_now, variance_now), (mean_before, variance_before) = replaced(now), replaced(before)
    mean, variance = old[0].double(), old[1].double()
    unit = ((variance + eps) / (variance_before + eps)).sqrt()
    return mean + (mean_now - mean_before) * unit, variance * (variance_now + eps) / (variance_before + eps)


@contextmanager
def measuring(
    norms: Mapping[str, _BatchNorm], adapted: Callable[[str, Moments], Statistics] | None = None
) -> Iterator[dict[str, Moments]]:
    """Give the moments of what each norm, in evaluation mode, reads in the passes that follow.

    Args:
        norms: by name; afterwards they are as they were.
        adapted: ``(name, moments of this batch)`` -> statistics to normalize this batch by, so that the layers behind
            read what they will read once the norms before them are adapted. None: the norm's own.
    """
    moments: dict[str, Moments] = {}
    own = {name: copied(statistics_of(norm)) for name, norm in norms.items()}
    handles = []
    try:
        for name, norm in norms.items():

            def measure(norm: _BatchNorm, args: Any, name: str = name) -> None:
                batch = moments_of(args[0])
                moments[name] = together(moments[name], batch) if name in moments else batch
                if adapted is not None:
                    set_statistics(norm, adapted(name, batch))

            handles.append(norm.register_forward_pre_hook(measure))
        yield moments
    finally:
        for handle in handles:
            handle.remove()
        for name, norm in norms.items():
            set_statistics(norm, own[name])


def statistics_of(norm: _BatchNorm) -> Statistics:
    """The norm's own buffers.

    Raises:
        ValueError: it keeps none.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{norm} keeps no running statistics (track_running_stats=False): there is nothing to adapt")
    return norm.running_mean, norm.running_var


def copied(statistics: Statistics) -> Statistics:
    """A copy of both."""
    return statistics[0].clone(), statistics[1].clone()


def set_statistics(norm: _BatchNorm, statistics: Statistics) -> None:
    """Copy mean and variance into the norm's buffers."""
    with torch.no_grad():
        for held, value in zip(statistics_of(norm), statistics, strict=True):
            held.copy_(value)

"""Mean and variance of the inputs of batch norms, measured over batches and moved from one resolution to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn as nn
from torch.nn.modules.batchnorm import _BatchNorm

from .resized_batches import ResizedBatch


class Moments(NamedTuple):
    """Sums over all positions of maps, by channel, in float64."""

    positions: torch.Tensor
    """How many there are, a scalar."""
    mean: torch.Tensor
    """``[channels]``"""
    squares: torch.Tensor
    """Sum of squared deviations from the mean, ``[channels]``."""


class NormStatistics(NamedTuple):
    """The statistics of a batch norm, each ``[channels]``."""

    mean: torch.Tensor
    variance: torch.Tensor


def adapt_statistics(
    norms: Mapping[str, _BatchNorm], model: nn.Module, reference: nn.Module | None, batches: Iterable[ResizedBatch]
) -> None:
    """Give batch norms, in place, the statistics that belong to the new resolution; see `recalibrate`.

    Args:
        norms: the norms of the model that are adapted, by name.
        model: the network, in evaluation mode; it reads the resized images.
        reference: the network at its original resolution, in evaluation mode, which reads the full images; None
            replaces the statistics with those of the images.
        batches: the calibration images.
    """
    old = {name: copied(statistics_of(norm)) for name, norm in norms.items()}
    now: dict[str, Moments] = {}
    before: dict[str, Moments] = {}
    for batch in batches:
        now_of_batch, before_of_batch = _measure(norms, old, model, reference, batch)
        now, before = _added(now, now_of_batch), _added(before, before_of_batch)
    for name, moments in now.items():
        norm = norms[name]
        if reference is None:
            set_statistics(norm, replaced(moments))
        else:
            set_statistics(norm, shifted(old[name], moments, before[name], norm.eps))


def moments_of(maps: torch.Tensor) -> Moments:
    """Compute the moments of each channel of ``[batch, channels, ...]``."""
    values = maps.detach().double().transpose(0, 1).flatten(1)
    mean = values.mean(1)
    squares = (values - mean[:, None]).square().sum(1)
    return Moments(mean.new_tensor(values.shape[1]), mean, squares)


def together(a: Moments, b: Moments) -> Moments:
    """Combine the moments of two sets of maps: exactly those of all maps (Chan, Golub, LeVeque 1983)."""
    positions, delta = a.positions + b.positions, b.mean - a.mean
    return Moments(
        positions,
        mean=a.mean + delta * (b.positions / positions),
        squares=a.squares + b.squares + delta.square() * (a.positions * b.positions / positions),
    )


def replaced(now: Moments) -> NormStatistics:
    """Mean and variance of the calibration images; the variance is unbiased, as PyTorch's running variance."""
    return NormStatistics(now.mean, now.squares / (now.positions - 1).clamp_min(1))


def shifted(old: NormStatistics, now: Moments, before: Moments, eps: float) -> NormStatistics:
    """Move statistics as those of the calibration images move from the old resolution to the new one.

    The mean moves by the shift in units of the standard deviation, the variance by the ratio. What is particular to
    the few calibration images cancels, because both resolutions are measured on the same images.
    """
    mean_now, variance_now = replaced(now)
    mean_before, variance_before = replaced(before)
    mean, variance = old.mean.double(), old.variance.double()
    unit = ((variance + eps) / (variance_before + eps)).sqrt()
    return NormStatistics(
        mean + (mean_now - mean_before) * unit, variance * (variance_now + eps) / (variance_before + eps)
    )


@contextmanager
def measuring(
    norms: Mapping[str, _BatchNorm], adapted: Callable[[str, Moments], NormStatistics] | None = None
) -> Iterator[dict[str, Moments]]:
    """Measure what each norm, in evaluation mode, reads in the passes that follow.

    Args:
        norms: the norms by name; afterwards they are as they were.
        adapted: ``(name, moments of this batch)`` -> the statistics by which the norm normalizes this batch, so that
            later layers read what they will read once the norms before them are adapted. None: the norm's own.

    Yields:
        The moments by name, of all passes up to now.
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


def statistics_of(norm: _BatchNorm) -> NormStatistics:
    """The buffers of a norm themselves.

    Raises:
        ValueError: it keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{norm} keeps no running statistics (track_running_stats=False): there is nothing to adapt")
    return NormStatistics(norm.running_mean, norm.running_var)


def copied(statistics: NormStatistics) -> NormStatistics:
    """A copy of both tensors."""
    return NormStatistics(statistics.mean.clone(), statistics.variance.clone())


def set_statistics(norm: _BatchNorm, statistics: NormStatistics) -> None:
    """Copy mean and variance into the buffers of a norm."""
    with torch.no_grad():
        for held, value in zip(statistics_of(norm), statistics, strict=True):
            held.copy_(value)


def _measure(
    norms: Mapping[str, _BatchNorm],
    old: dict[str, NormStatistics],
    model: nn.Module,
    reference: nn.Module | None,
    batch: ResizedBatch,
) -> tuple[dict[str, Moments], dict[str, Moments]]:
    """Moments of the inputs of the norms on one batch: in the model, as it will normalize, and in the reference."""
    before: dict[str, Moments] = {}
    if reference is not None:
        originals = dict(reference.named_modules())
        with measuring({name: cast(_BatchNorm, originals[name]) for name in norms}) as before:
            reference(batch.full)

    def adapted(name: str, moments: Moments) -> NormStatistics:
        return replaced(moments) if reference is None else shifted(old[name], moments, before[name], norms[name].eps)

    with measuring(norms, adapted) as now:
        model(batch.resized)
    return now, before


def _added(moments: dict[str, Moments], batch: dict[str, Moments]) -> dict[str, Moments]:
    return moments | {name: together(moments[name], new) if name in moments else new for name, new in batch.items()}

"""Searching the size at which a trained network is evaluated best, ``K_eval``."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn as nn

from ..ground.models import device_of, evaluating
from ..ground.shapes import UnfitSizeError, image_of, run_shapes, shape_copy
from ..ground.sizes import as_size

Loader = TypeVar("Loader")
"""What ``make_loader`` returns and ``measure`` reads: batches ``(images, labels)``, unless both are the user's own."""


class SizeScore(NamedTuple):
    """The score of a network at one evaluation size."""

    K_eval: int
    """px"""
    score: float


@dataclass(frozen=True)
class SizeSearch:
    """The scores of a network by evaluation size (Morlier et al., GRETSI 2025, Figure 3, one line).

    Attributes:
        scores: the scores, in ascending order of size.
    """

    scores: tuple[SizeScore, ...]

    @property
    def best(self) -> SizeScore:
        """The size with the highest score; if several have it, the smallest, which costs least."""
        return max(self.scores, key=lambda entry: (entry.score, -entry.K_eval))

    def smallest_within(self, loss: float) -> SizeScore:
        """The smallest size whose score is at most ``loss`` below the best score."""
        return next(entry for entry in self.scores if entry.score >= self.best.score - loss)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line for each size."""
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([SizeScore._fields, *self.scores])

    def __str__(self) -> str:
        return "\n".join(
            f"{entry.K_eval:5d} px  {entry.score:.4f}{'  best' if entry == self.best else ''}" for entry in self.scores
        )


def search_evaluation_size(
    model: nn.Module,
    make_loader: Callable[[int], Loader],
    sizes: Iterable[int] = range(112, 353, 16),
    measure: Callable[[nn.Module, Loader], float] | None = None,
) -> SizeSearch:
    """Evaluate a trained network at each size, and find the best size.

    A network that was trained on random crops of ``K_train`` px is best evaluated above that size (Touvron et al. 2019;
    Morlier et al., GRETSI 2025, sections 3.3 and 4.1). Choose the size on other images than those whose score you
    report, because the best of many scores is biased upwards.

    Args:
        model: the network. It is evaluated on its device, in evaluation mode, and left as it was.
        make_loader: ``K_eval`` -> batches ``(images, labels)``; see the example.
        sizes: the sizes to try, px. Default: those of the authors' own evaluation.
        measure: ``(model, loader)`` -> score, more is better; called without gradients. Default: `top1_accuracy`.

    Raises:
        TypeError, ValueError: a size is not a number of pixels, there is no size, the loader has no batches, or the
            network cannot run at a size (the text names the layer).

    Example:
        >>> def make_loader(K_eval):
        ...     transform = evaluation_transform(K_eval)  # K follows in proportion; or pass K
        ...     return DataLoader(ImageFolder("val", transform), batch_size=256, num_workers=8)
        >>> print(search_evaluation_size(model, make_loader).best)
        SizeScore(K_eval=224, score=0.8086)
    """
    sizes = sorted({as_size(size, "a size of sizes")[0] for size in sizes})
    if not sizes:
        raise ValueError("sizes is empty; expected at least one K_eval in px, such as [160, 192, 224]")
    score: Callable[[nn.Module, Any], float] = measure or top1_accuracy
    scores = []
    for size in sizes:
        try:
            with evaluating(model), torch.no_grad():
                scores.append(SizeScore(size, float(score(model, make_loader(size)))))
        except Exception as error:
            if unfit := _why_unfit(model, size):
                raise unfit from error
            raise
    return SizeSearch(tuple(scores))


def _why_unfit(model: nn.Module, size: int) -> UnfitSizeError | None:
    """The error that names the layer, if the network cannot run at this size; else None."""
    try:
        run_shapes(shape_copy(model), (size, size), image_of(model)[0])
    except UnfitSizeError as error:
        return error
    except Exception:  # the size is not the reason
        return None
    return None


def top1_accuracy(model: nn.Module, loader: Iterable[Any]) -> float:
    """Share of images whose largest logit ``[batch, classes]`` belongs to their label ``[batch]``.

    Raises:
        ValueError: the loader yields no image.
    """
    right, total = 0, 0
    for images, labels in loader:
        predicted = model(images.to(device_of(model))).argmax(1)
        right += (predicted == labels.to(predicted.device)).sum()
        total += len(labels)
    if total == 0:
        raise ValueError("the loader yields no image; expected at least one batch of images and labels")
    return float(right) / total

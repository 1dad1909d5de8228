"""The places of all tensors of a forward pass, in the storages of the labels of channels."""

from __future__ import annotations

import torch

from ...graph.labels.classes import LabelClasses
from ...graph.labels.parameters import has_storage
from ...graph.labels.storages import LabelledStorages
from .cells import UNKNOWN, Frame, spread, step_of


class _Numbers(LabelClasses):
    """Places are numbers, and not labels: nothing unites them."""

    @property
    def are_watched(self) -> bool:
        """Nothing is frozen."""
        return True

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """The places themselves."""
        return labels


class Places:
    """The places of all tensors of a forward pass.

    Args:
        frame: what they are numbers in.
    """

    def __init__(self, frame: Frame):
        self._frame = frame
        self._storages = LabelledStorages(_Numbers())

    def get(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The places of a tensor's elements, with size 1 along dimensions along which they do not vary."""
        tracks = self._storages.get(tensor) if has_storage(tensor) else []
        return tracks[0] if tracks else None

    def set(self, tensor: torch.Tensor, places: torch.Tensor | None) -> None:
        """Note the places of a tensor's elements."""
        if has_storage(tensor) and (places is not None or tensor in self._storages):
            self._storages.set(tensor, [] if places is None else [places])

    def spread(self, places: torch.Tensor) -> torch.Tensor:
        """Move apart cells ``[maps, 1, *grid]`` that have one place because they were made of one cell."""
        grid = places.dim() == len(self._frame.size) + 2 and places.shape[1] == 1
        return spread(places.squeeze(1), self._frame).unsqueeze(1) if grid else places

    def snapped(self, places: torch.Tensor) -> torch.Tensor:
        """Places ``[maps, 1, *grid]``; evenly if they are less than half a cell to one side of that, but for edges."""
        if places.dim() != len(self._frame.size) + 2:
            return places
        even = self._frame.even(len(places), places.shape[2:]).unsqueeze(1)
        (image, begins), (whose, evenly) = self._frame.split(places), self._frame.split(even)
        if bool((places == UNKNOWN).any()) or not torch.equal(image, whose):
            return places
        for begin, other, size in zip(begins, evenly, self._frame.size, strict=True):
            off = begin - other
            usual = (off == off.flatten().mode().values).double().mean()
            if usual < 0.5 or 2 * int(off.abs().max()) >= step_of(begin, size):
                return places
        return even

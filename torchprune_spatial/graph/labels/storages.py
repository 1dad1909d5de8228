"""Labels beside the storages of tensors, so that views and in-place operations need no rules."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .classes import FROZEN, LabelClasses, compressed, varying

Geometry = tuple[torch.Size, tuple[int, ...], int]

SWEEP = 64
"""Labels of storages that are gone are dropped whenever so many new ones have been labelled."""


@dataclass
class _Labelled:
    """The labels of a storage.

    Attributes:
        storage: tells whether the storage still exists, and keeps its address from being used again.
        geometry: size, strides and offset of the tensor whose labels are in ``tracks``; None if these are flat.
        tracks: compressed labels of the tensor with the ``geometry``, or of all elements of the storage,
            ``[elements]``.
        makers: labels of weights of which the tensor is a linear function, ``[n]``; empty: those of its tracks; None if
            it is a linear function of none.
        of_sum: whether it is a sum over labels.
        positions: labels of which it holds positions, ``[n]``.
    """

    storage: StorageWeakRef
    geometry: Geometry | None
    tracks: list[torch.Tensor] = field(default_factory=list)
    makers: torch.Tensor | None = None
    of_sum: bool = False
    positions: torch.Tensor | None = None


class LabelledStorages:
    """What labels the elements of tensors carry.

    The labels of a tensor are a list of *tracks*, each a tensor of labels of the same shape. Tracks are compressed: of
    size 1 along the dimensions along which their labels do not vary. An element carries one label of each track, and
    disappears when any of them is removed. Feature maps have one track, along their channels; weights have one for each
    dimension.
    """

    def __init__(self, classes: LabelClasses):
        self.classes = classes
        self.parameters: set[tuple[int, int]] = set()
        self._labelled: dict[tuple[int, int], _Labelled] = {}
        self._sweep_at = SWEEP

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return storage_key(tensor) in self._labelled

    def get(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The compressed tracks of a tensor, as classes; tracks that do not vary are left out.

        A class that is all of a tensor has been picked out by its position: it is frozen.
        """
        found = self._labelled.get(storage_key(tensor))
        if found is None or tensor.numel() == 0:
            return []
        tracks = _seen_from(found, geometry(tensor))
        if tracks is None:
            self._flatten(found, tensor)
            tracks = [compressed(flat.as_strided(*geometry(tensor))) for flat in found.tracks]
        distinct: list[torch.Tensor] = []
        for track in tracks:
            track = compressed(self.classes.of(track))
            if track.numel() == 1:
                if int(track) != FROZEN and not self.classes.are_watched:
                    self.classes.freeze(track, "it is picked out by its position")
            elif not any(track.shape == other.shape and torch.equal(track, other) for other in distinct):
                distinct.append(track)
        return distinct

    def linear_in(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The ``makers`` with which the storage of a tensor was labelled: they hold for views of it, too."""
        found = self._labelled.get(storage_key(tensor))
        return None if found is None else found.makers

    def of_sum(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a sum over labels."""
        found = self._labelled.get(storage_key(tensor))
        return found is not None and found.of_sum

    def positions(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The labels of which a tensor holds positions."""
        found = self._labelled.get(storage_key(tensor))
        return None if found is None else found.positions

    def mark(self, tensor: torch.Tensor, positions: torch.Tensor | None = None) -> None:
        """Note that a tensor is a sum over labels, or holds positions of labels."""
        key = storage_key(tensor)
        if key not in self._labelled:
            self._labelled[key] = _Labelled(StorageWeakRef(tensor.untyped_storage()), geometry(tensor))
        self._labelled[key].of_sum, self._labelled[key].positions = positions is None, positions

    def makers(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Labels of the weights of which a tensor is a linear function, as they were when they made it, ``[n]``."""
        found = self._labelled.get(storage_key(tensor))
        if found is None or found.makers is None or len(found.makers):
            return None if found is None else found.makers
        tracks = _seen_from(found, geometry(tensor))
        if tracks is None:
            self._flatten(found, tensor)
            tracks = [flat.as_strided(*geometry(tensor)) for flat in found.tracks]
        return self.classes.distinct(torch.cat([track.reshape(-1) for track in tracks])) if tracks else None

    def set(self, tensor: torch.Tensor, tracks: list[torch.Tensor], makers: torch.Tensor | None = None) -> None:
        """Label a tensor.

        Args:
            tensor: the tensor; it may be part of a larger storage.
            tracks: labels that can be broadcast to its shape.
            makers: labels of the weights of which it is a linear function; empty: those of the tracks.
        """
        tracks = [track for track in tracks if track.numel() > 1]
        key, shape = storage_key(tensor), tensor.shape
        found = self._labelled.get(key)
        if found is None:
            if tracks or makers is not None:
                self._sweep()
                ref = StorageWeakRef(tensor.untyped_storage())
                self._labelled[key] = _Labelled(ref, geometry(tensor), tracks, makers)
            return
        found.makers, found.of_sum, found.positions = makers, False, None
        if found.geometry == geometry(tensor):
            found.tracks = tracks
            return
        self._flatten(found, tensor)
        while len(found.tracks) < len(tracks):
            found.tracks.append(torch.zeros(_elements(tensor), dtype=torch.long))
        for i, flat in enumerate(found.tracks):
            part = flat.as_strided(*geometry(tensor))
            part.copy_(tracks[i].expand(shape)) if i < len(tracks) else part.zero_()

    def _flatten(self, found: _Labelled, tensor: torch.Tensor) -> None:
        """Write the labels out for each element of the storage."""
        if found.geometry is None:
            return
        size, strides, offset = found.geometry
        flats = []
        for track in found.tracks:
            flat = torch.zeros(_elements(tensor), dtype=torch.long)
            flat.as_strided(size, strides, offset).copy_(track.expand(size))
            flats.append(flat)
        found.geometry, found.tracks = None, flats

    def _sweep(self) -> None:
        if len(self._labelled) >= self._sweep_at:
            self._labelled = {key: found for key, found in self._labelled.items() if not found.storage.expired()}
            self._sweep_at = len(self._labelled) + SWEEP


def storage_key(tensor: torch.Tensor) -> tuple[int, int]:
    """A tensor's storage, and the size of its elements, by which they are counted."""
    return tensor.untyped_storage()._cdata, tensor.element_size()


def geometry(tensor: torch.Tensor) -> Geometry:
    """Size, strides and offset of a tensor in its storage."""
    return tensor.size(), tensor.stride(), int(tensor.storage_offset())


def _seen_from(found: _Labelled, view: Geometry) -> list[torch.Tensor] | None:
    """The tracks of a storage as another view sees them; None if it takes the dimensions apart that they vary along.

    Most views transpose, expand, or reshape other dimensions than the channels: this saves writing the labels out.
    """
    if found.geometry is None:
        return None
    size, strides, offset = found.geometry
    new_size, new_strides, new_offset = view
    if found.geometry == view:
        return found.tracks
    if offset != new_offset:
        return None
    place = {}
    for dim in sorted({dim for track in found.tracks for dim in varying(track)}):
        length, stride = size[dim], strides[dim]
        same = [d for d in range(len(new_size)) if (new_size[d], new_strides[d]) == (length, stride)]
        others = [(n, s) for d, (n, s) in enumerate(zip(new_size, new_strides, strict=True)) if d not in same]
        within = sum((n - 1) * s for n, s in others if s < stride)
        if len(same) != 1 or stride == 0 or within >= stride:
            return None
        if any(s % (length * stride) for n, s in others if n > 1 and s >= stride):
            return None
        place[dim] = same[0]
    tracks = []
    for track in found.tracks:
        shape = [1] * len(new_size)
        order = sorted(varying(track), key=place.__getitem__)
        for dim in order:
            shape[place[dim]] = size[dim]
        flat = track.permute(*order, *(d for d in range(track.dim()) if d not in order))
        tracks.append(flat.reshape(shape))
    return tracks


def _elements(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()

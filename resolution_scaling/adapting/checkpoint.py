"""Going on after an interruption: one file that holds how far a computation got, and what it was of."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class Checkpoint:
    """The state of a computation, in a file that is written as a whole or not at all.

    Args:
        path: the file; None keeps nothing.
        every: steps between two writings.
        start: the tensors that the computation starts from; a file that began with others is refused.
        options: what else a computation must share to go on with the file: plain values.

    Attributes:
        state: what was saved last, or None.

    Raises:
        ValueError: the file is damaged, or belongs to other tensors or options.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        every: int,
        start: Mapping[str, torch.Tensor],
        options: dict[str, Any],
    ):
        self.path = None if path is None else Path(path)
        self.every = every
        self._belongs_to = {**options, "start": {name: fingerprint(tensor) for name, tensor in start.items()}}
        self._device = next((tensor.device for tensor in start.values()), None)
        self.state = self._read(self.path) if self.path is not None and self.path.exists() else None

    def save(self, state: dict[str, Any], step: int | None = None) -> None:
        """Write the state, a structure of tensors and plain values; if ``step`` is given, only each so many steps."""
        if self.path is None or (step is not None and step % self.every):
            return
        partial = self.path.with_name(self.path.name + ".partial")
        torch.save({"belongs_to": self._belongs_to, "state": state}, partial)
        os.replace(partial, self.path)

    def _read(self, path: Path) -> dict[str, Any]:
        file = io.BytesIO(path.read_bytes())
        try:
            content = torch.load(file, map_location=self._device, weights_only=True)
            belongs_to, state = content["belongs_to"], content["state"]
        except Exception as error:  # of many kinds, by where the file is cut
            raise ValueError(f"checkpoint {path} is damaged, or another kind of file: delete it") from error
        different = [key for key in self._belongs_to if belongs_to.get(key) != self._belongs_to[key]]
        if different:
            what = ["the network's weights" if key == "start" else key for key in different]
            raise ValueError(
                f"checkpoint {path} is of a run with other {', '.join(what)}: go on with the same network, as it "
                "was before that run, and the same options, or name another file"
            )
        return state


def fingerprint(tensor: torch.Tensor) -> int:
    """A checksum of the bytes."""
    return zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

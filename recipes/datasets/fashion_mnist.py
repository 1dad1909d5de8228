"""Fashion-MNIST, as Debian's package ``dataset-fashion-mnist`` or torchvision installs it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
IDX_HEADER = {"images": 16, "labels": 8}
"""Bytes before the values in the idx format."""


def load_fashion_mnist(folder: Path | str = DEBIAN_FOLDER, train: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Read images ``[n, 28, 28]`` uint8 and labels ``[n]`` int64: 60,000 for training or 10,000 for test.

    Args:
        folder: Debian's folder (files ``.gz``), or the ``root`` of torchvision's ``FashionMNIST``.
        train: whether to read the training images, or those for test.

    Raises:
        FileNotFoundError: the folder holds neither form.
    """
    part = "train" if train else "t10k"
    if (Path(folder) / f"{part}-images-idx3-ubyte.gz").exists():
        images, labels = (_read_idx(Path(folder), part, kind) for kind in IDX_HEADER)
        return images.view(-1, 28, 28), labels.long()
    from torchvision.datasets import FashionMNIST

    try:
        data = FashionMNIST(folder, train=train)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"there is no Fashion-MNIST in {folder}: install Debian's dataset-fashion-mnist, or download it once with "
            "torchvision.datasets.FashionMNIST(folder, download=True)"
        ) from error
    return data.data, data.targets


def _read_idx(folder: Path, part: str, kind: str) -> torch.Tensor:
    with gzip.open(folder / f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz") as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=IDX_HEADER[kind]).copy())

"""The embedded MNIST digits (see ``data/NOTICE.md``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

DIGITS_FILE = Path(__file__).parent / "data" / "mnist_10k.npz"
SHUFFLE_SEED = 0
"""Seeds the order of the digits, which the file sorts by class. It is fixed: `--seed` varies networks, not data."""


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All 10,000 digits in a fixed random order: images ``[10000, 28, 28]`` float32 in 0..1, labels ``[10000]``."""
    with np.load(DIGITS_FILE, allow_pickle=False) as digits:
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(digits["y"]))
        return torch.from_numpy(digits["X"][order]).float() / 255, torch.from_numpy(digits["y"][order])

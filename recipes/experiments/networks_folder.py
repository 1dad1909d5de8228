"""A folder of trained networks and a table of results about them, which a stopped run goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from .files import claim_folder, replacing
from .training import Hardware, Loss, Training, save_weights, train


class NetworksFolder:
    """What an experiment keeps: ``NAME.safetensors``, ``results.csv``, and checkpoints of what is being trained.

    Args:
        path: folder; made if missing.
        settings: what was asked for, such as JSON can hold; a folder never mixes two experiments.
        hardware: device and mixed precision.
        seed: seeds initial weights and the order of the batches; None where each network has a seed of its own.

    Raises:
        ValueError: the folder holds an experiment with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any], hardware: Hardware, seed: int | None = None):
        self.path, self.hardware, self.seed = path, hardware, seed
        path.mkdir(parents=True, exist_ok=True)
        seeded = {} if seed is None else {"seed": seed}
        claim_folder(path, settings | seeded | {"mixed_precision": hardware.mixed_precision})
        self.device = hardware.accelerator().device
        file, self.results = path / "results.csv", pd.DataFrame()
        if file.exists():
            self.results = pd.read_csv(file, dtype={"setting": str}, float_precision="round_trip")

    def network(
        self, name: str, build: Callable[[], nn.Module], fit: Callable[[nn.Module], Any], seed: int | None = None
    ) -> nn.Module:
        """A trained network, on the device, in evaluation mode: loaded if it is there, else trained and saved."""
        set_seed(self.seed if seed is None else seed)
        network, file = build(), self.path / f"{name}.safetensors"
        if file.exists():
            network.load_state_dict(load_file(file))
        else:
            fit(network)
            save_weights(network, file)
            self._drop_checkpoints()
        return network.to(self.device).eval()

    def train(
        self, network: nn.Module, training: Training, loss: Loss, data: Dataset, validation: Dataset, description: str
    ) -> int:
        """Train in place, see `training.train`; checkpoints stay until a network is saved or a row added."""
        return train(
            network,
            training,
            loss,
            data,
            validation,
            folder=self.checkpoints / description.replace(" ", "_"),
            description=description,
            hardware=self.hardware,
            seed=self.seed,
        )

    def append(self, rows: dict[str, Any] | pd.DataFrame) -> None:
        """Add a row, or several with seeds of their own, to the results."""
        rows = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([rows | {"seed": self.seed}])
        self.results = pd.concat([self.results, rows], ignore_index=True)
        with replacing(self.path / "results.csv") as partial:
            self.results.to_csv(partial, index=False)
        self._drop_checkpoints()

    @property
    def checkpoints(self) -> Path:
        """Folder of folders, one for each training that has not ended."""
        return self.path / "checkpoints"

    def _drop_checkpoints(self) -> None:
        shutil.rmtree(self.checkpoints, ignore_errors=True)

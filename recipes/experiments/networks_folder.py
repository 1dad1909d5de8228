"""A folder with the trained networks of an experiment and a table of its results; a stopped run continues from it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from resolution_scaling.ground.files import replacing

from .files import claim_folder
from .training import Hardware, Loss, Training, save_weights, train

Item = TypeVar("Item")
Key = Callable[[Item], dict[str, Any]]
"""The columns by which the rows about an item are found, and their values."""


class NetworksFolder:
    """The files of an experiment: ``NAME.safetensors``, ``results.csv``, and checkpoints of trainings in progress.

    Args:
        path: the folder; it is made if it is missing.
        settings: the settings of the experiment, as values that JSON can hold. A folder never mixes two experiments.
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
        """A trained network on the device, in eval mode: loaded if its file exists, else trained and saved."""
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
        """Train in place with `training.train`; its checkpoints stay until a network is saved or a row is added."""
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

    def missing(self, wanted: Iterable[Item], description: str, key: Key[Item] = dataclasses.asdict) -> Iterator[Item]:
        """Give the items that have no row of results, one after the other, and show progress.

        Args:
            wanted: what there should be rows about.
            description: text of the progress bar.
            key: see `Key`; the fields of a dataclass by default.

        Raises:
            SittingOver: the time of the hardware is up; the same call continues from here.
        """
        wanted = [*wanted]
        there = self._about(wanted, key)
        for item in tqdm([item for item in wanted if _values(key(item)) not in there], desc=description):
            self.hardware.check_time()
            yield item

    def rows(self, wanted: Iterable[Item], key: Key[Item] = dataclasses.asdict) -> pd.DataFrame:
        """The rows of results about these items, in the order in which they were added."""
        wanted = [*wanted]
        asked = {_values(key(item)) for item in wanted}
        return self.results[[values in asked for values in self._about(wanted, key)]]

    def _about(self, wanted: list[Item], key: Key[Item]) -> list[tuple[Any, ...]]:
        """The values of the key in each row."""
        columns = [*key(wanted[0])] if wanted else []
        return [*self.results.reindex(columns=columns).fillna("").itertuples(index=False, name=None)]

    def append(self, rows: dict[str, Any] | pd.DataFrame) -> None:
        """Add a row, or several rows that have seeds of their own, to the results."""
        rows = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([rows | {"seed": self.seed}])
        self.results = pd.concat([self.results, rows], ignore_index=True)
        with replacing(self.path / "results.csv") as partial:
            self.results.to_csv(partial, index=False)
        self._drop_checkpoints()

    @property
    def checkpoints(self) -> Path:
        """A folder that has a folder for each training in progress."""
        return self.path / "checkpoints"

    def _drop_checkpoints(self) -> None:
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def _values(key: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(key.values())

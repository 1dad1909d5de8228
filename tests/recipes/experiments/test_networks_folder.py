import dataclasses

import pytest

from recipes.experiments.networks_folder import NetworksFolder
from recipes.experiments.training import Hardware, SittingOver


@dataclasses.dataclass(frozen=True)
class Way:
    method: str
    setting: str
    share: float
    mixed: bool = False


WAYS = [Way("a", "", 0.1), Way("a", "8", 0.1), Way("a", "8", 0.2), Way("a", "8", 0.1, mixed=True)]


def test_only_what_has_no_row_is_missing(tmp_path):
    """Keys of all types are found again in the file, empty texts too."""
    folder = NetworksFolder(tmp_path, {}, Hardware("cpu"), seed=3)
    done = []
    for way in folder.missing(WAYS[1:3], "test"):
        done.append(way)
        folder.append(dataclasses.asdict(way) | {"mse": 1.0})
    assert done == WAYS[1:3]
    again = NetworksFolder(tmp_path, {}, Hardware("cpu"), seed=3)
    assert [*again.missing(WAYS, "test")] == [WAYS[0], WAYS[3]]
    again.append(dataclasses.asdict(WAYS[0]) | {"mse": 2.0})
    again.append(dataclasses.asdict(WAYS[3]) | {"mse": 3.0})
    again = NetworksFolder(tmp_path, {}, Hardware("cpu"), seed=3)
    assert not [*again.missing(WAYS, "test")]
    assert again.rows([WAYS[3], WAYS[0]])["mse"].tolist() == [2.0, 3.0]  # in the order of the file


def test_a_key_of_ones_own(tmp_path):
    folder = NetworksFolder(tmp_path, {}, Hardware("cpu"), seed=3)
    for size in folder.missing([8, 16], "test", lambda size: {"size": size}):
        folder.append({"size": size, "mse": size / 100})
    assert folder.rows([16], lambda size: {"size": size})["mse"].tolist() == [0.16]


def test_the_time_is_looked_at_before_each(tmp_path):
    folder = NetworksFolder(tmp_path, {}, Hardware("cpu", minutes=-1.0), seed=3)
    with pytest.raises(SittingOver, match="minutes are over"):
        next(folder.missing(WAYS, "test"))

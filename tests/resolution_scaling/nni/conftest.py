import importlib.util

import pytest

from tests.ports import free_port


@pytest.fixture
def port():
    """Of this machine, free."""
    return free_port()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Ask NNI for trials that ended more often than users do."""
    if importlib.util.find_spec("nni") is not None:
        from resolution_scaling.nni.experiment import recorded_experiment

        monkeypatch.setattr(recorded_experiment, "POLL_S", 0.2)

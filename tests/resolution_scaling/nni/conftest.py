import socket

import pytest


@pytest.fixture
def port():
    """Of this machine, free."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]

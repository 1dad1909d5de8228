"""Ports of this machine for tests that start servers, also when several processes of tests run at once."""

import itertools
import os
import socket

FIRST, A_PROCESS = 20_000, 500  # below the ports that the system gives to others
_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_next = itertools.cycle(range(FIRST + A_PROCESS * _process, FIRST + A_PROCESS * (_process + 1), 2))


def free_port():
    """A port that is free, as the one after it. No other process of the tests is given it."""
    while not (_is_free(number := next(_next)) and _is_free(number + 1)):
        pass
    return number


def _is_free(number):
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", number)) != 0

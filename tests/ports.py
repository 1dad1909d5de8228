"""Ports of this machine for tests that start servers, also when several processes of tests run at once."""

import itertools
import os
import socket

FIRST, A_PROCESS = 20_000, 500  # below the ports that the system gives to others
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = range(FIRST + A_PROCESS * _worker, FIRST + A_PROCESS * (_worker + 1), 2)
_next = itertools.cycle(_ports)
for _ in range(os.getpid() % len(_ports)):  # another run of the tests at the same time begins elsewhere
    next(_next)


def free_port():
    """A port that is free, as is the one after it. No other process of this run of the tests is given it."""
    while not (_is_free(number := next(_next)) and _is_free(number + 1)):
        pass
    return number


def _is_free(number):
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", number)) != 0

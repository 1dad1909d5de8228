"""NNI's manager as a process: its experiment, its port, and how to stop it with all that it started."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import requests
from nni.experiment import launcher, rest

from ...ground.arguments import whole_number

START_TIMEOUT_S = 60.0
"""How long NNI's manager may take to answer for the first time."""

STOP_TIMEOUT_S = 30.0
"""How long a manager may take to stop its tuner and trials before they are killed."""


def experiment_on(port: int) -> str | None:
    """The id of the NNI experiment whose manager answers on a port of this machine; None if none does."""
    try:
        answer = requests.get(f"http://localhost:{port}/api/v1/nni/experiment", timeout=3)
        return answer.json().get("id") if answer.ok else None
    except (requests.RequestException, ValueError, AttributeError):
        return None


def check_port(port: int, *, and_next: bool = False) -> None:
    """Check that a port is free for NNI.

    Args:
        port: for the manager and its web portal.
        and_next: whether the port after it is needed too, as on all platforms but ``local``.

    Raises:
        TypeError, ValueError: it is not the number of a port.
        RuntimeError: it is in use; the text says by what, and what to do.
    """
    whole_number(port, "port", most=65535 - and_next)
    for number in range(port, port + 1 + and_next):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", number)) != 0:
                continue
        other = experiment_on(number)
        if other is None:
            raise RuntimeError(f"port {number} is in use by another program: pass another port")
        raise RuntimeError(
            f"port {number} is in use by NNI experiment {other}: pass another port, or end that experiment with "
            f"`nnictl stop {other}`"
        )


def processes_of(experiment: str) -> list[psutil.Process]:
    """The manager of an experiment, its tuner and its trials on this machine, also those whose parent has ended."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _is_manager(process, experiment) or process.environ().get("NNI_EXP_ID") == experiment:
                found |= {child.pid: child for child in (process, *process.children(recursive=True))}
    return list(found.values())


def _is_manager(process: psutil.Process, experiment: str) -> bool:
    command = process.cmdline()
    return "--experiment-id" in command and experiment in command


def stop_manager(experiment: str, port: int | None) -> None:
    """Let a manager stop its experiment, then kill what is left of it, its tuner and its trials.

    The manager is asked first, so that it writes its state and the experiment can be resumed.
    """
    left = processes_of(experiment)
    if port is not None and experiment_on(port) == experiment:
        with contextlib.suppress(requests.RequestException):
            requests.delete(f"http://localhost:{port}/api/v1/nni/experiment", timeout=STOP_TIMEOUT_S)
        _, left = psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
    for process in {process.pid: process for process in (*left, *processes_of(experiment))}.values():
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def is_running(identity: Any) -> bool:
    """Whether the process with this `identity_of` still runs; False for a later process with the same number."""
    if not isinstance(identity, list) or len(identity) != 2:
        return False
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(identity[0])
        return process.create_time() == identity[1] and process.status() != psutil.STATUS_ZOMBIE
    return False


def identity_of(pid: int) -> list[float]:
    """Number and start time of a process, by which it differs from a later one with the same number."""
    return [pid, psutil.Process(pid).create_time()]


def has_tuner(manager_pid: int) -> bool:
    """Whether the tuner of a manager is alive. Without it NNI 3.0 would wait for ever."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(manager_pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "--exp_params" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return True
    return False


def wait_until_idle(port: int, timeout_s: float = 10.0) -> None:
    """Wait until the port of a manager that stopped is free again."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) != 0:
                return
        time.sleep(0.2)


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Let NNI wait a minute for its manager, in place of three seconds, which are too few on a busy machine.

    NNI has no setting for this: one of its functions is replaced, and put back at the end.
    """
    impatient = launcher._check_rest_server

    def check(port: int, retry: int = 0, url_prefix: str | None = None) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                rest.get(port, "/check-status", url_prefix)
                return
            except requests.RequestException:
                if time.monotonic() > end:
                    raise
            time.sleep(0.5)

    launcher._check_rest_server = check
    try:
        yield
    finally:
        launcher._check_rest_server = impatient

"""Trials of tests: what becomes of each is written in its parameters."""

import os
import signal
import time


class Example:
    """What the trials of tests work on."""

    offset = 10.0


def measure(module_class, parameters, *, scale=1.0):
    fate = parameters["fate"]
    if fate == "crash":
        raise RuntimeError("this trial was told to crash")
    if fate == "exit":
        raise SystemExit(3)
    if fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "slow":
        time.sleep(600)
    value = float("nan") if fate == "nan" else module_class.offset + scale * parameters["x"]
    return {"default": value, "flops": 2.0, "note": "measured"}

"""The command of a trial in NNI's configuration, which each training service wants in another place."""

from __future__ import annotations

import shlex
import sys
from typing import Any


def is_local(config: Any) -> bool:
    """Whether an ``ExperimentConfig`` runs trials on this machine."""
    return getattr(config.training_service, "platform", None) == "local"


def fill_commands(config: Any, arguments: list[str]) -> None:
    """Set the command of trials wherever a configuration has it.

    A command that is there already and has ``{trial}`` in it is kept around that of the trial.

    Args:
        config: NNI's ``ExperimentConfig``.
        arguments: of Python.
    """
    python = sys.executable if is_local(config) else _python_of(config.training_service)
    command = " ".join(map(shlex.quote, [python, *arguments]))
    config.trial_command = _filled(config.trial_command, command)
    for role in _roles(config.training_service):
        role.command = _filled(role.command, command)


def _python_of(training_service: Any) -> str:
    """Python on other machines: that of ``python_path`` where it is the same on all. To NNI it is only a part of PATH,
    which the ``.bashrc`` of a machine may change again.
    """
    machines = getattr(training_service, "machine_list", None) or []
    paths = {str(machine.python_path) for machine in machines if machine.python_path}
    same = len(paths) == 1 and all(machine.python_path for machine in machines)
    return f"{paths.pop().rstrip('/')}/python3" if same else "python3"


def _roles(training_service: Any) -> list[Any]:
    """What has a command of its own in the configuration of Kubernetes."""
    roles = [getattr(training_service, name, None) for name in ("worker", "ps", "master")]
    return [role for role in (*roles, *(getattr(training_service, "task_roles", None) or [])) if role is not None]


def _filled(command: Any, trial: str) -> str:
    """The command of a trial, in what a configuration has around it: ``"source env.sh && {trial}"``."""
    return command.replace("{trial}", trial) if isinstance(command, str) and "{trial}" in command else trial

"""The command of a trial, and its place in NNI's configuration, which differs between training services."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..algorithms.module_class import ModuleClass
from .trial import PENALTY, dump_options
from .trial_code import import_path


@dataclass(frozen=True)
class TrialCall:
    """What a trial calls: ``run(module_class, parameters, **options)``.

    Attributes:
        run: the function, as ``"package.module:function"``.
        module_class: the class that the function works on.
        options: further arguments of the function, of types that JSON can hold.
    """

    run: str
    module_class: ModuleClass
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, code_directory: Path, *, minimize: bool, failed_status: int) -> list[str]:
        """The arguments of Python for such a trial.

        Args:
            code_directory: where it starts.
            minimize: whether the tuner minimises: the penalty of a failed trial is then large.
            failed_status: the exit status of a failed trial.
        """
        module_class = import_path(self.module_class, code_directory)
        arguments = ["-m", "resolution_scaling.nni.experiment.trial", "--run", self.run, "--module-class", module_class]
        arguments += ["--options", dump_options(self.options), f"--penalty={-PENALTY if minimize else PENALTY}"]
        return arguments if failed_status == 1 else [*arguments, f"--failed-status={failed_status}"]


def is_local(config: Any) -> bool:
    """Whether an ``ExperimentConfig`` runs trials on this machine."""
    return getattr(config.training_service, "platform", None) == "local"


def fill_commands(config: Any, arguments: list[str]) -> None:
    """Set the command of trials wherever a configuration has it.

    A command that is there already and contains ``{trial}`` is kept; the trial's command replaces ``{trial}``.

    Args:
        config: NNI's ``ExperimentConfig``.
        arguments: the arguments of Python.
    """
    python = sys.executable if is_local(config) else _python_of(config.training_service)
    command = " ".join(map(shlex.quote, [python, *arguments]))
    config.trial_command = _filled(config.trial_command, command)
    for role in _roles(config.training_service):
        role.command = _filled(role.command, command)


def _python_of(training_service: Any) -> str:
    """Python on other machines: that of ``python_path`` where it is the same on all.

    NNI only adds ``python_path`` to PATH, which the ``.bashrc`` of a machine may change again.
    """
    machines = getattr(training_service, "machine_list", None) or []
    paths = {str(machine.python_path) for machine in machines if machine.python_path}
    same = len(paths) == 1 and all(machine.python_path for machine in machines)
    return f"{paths.pop().rstrip('/')}/python3" if same else "python3"


def _roles(training_service: Any) -> list[Any]:
    """The parts of a Kubernetes configuration that have a command of their own."""
    roles = [getattr(training_service, name, None) for name in ("worker", "ps", "master")]
    return [role for role in (*roles, *(getattr(training_service, "task_roles", None) or [])) if role is not None]


def _filled(command: Any, trial: str) -> str:
    """The command of a trial inside of the configuration's: ``"source env.sh && {trial}"``."""
    return command.replace("{trial}", trial) if isinstance(command, str) and "{trial}" in command else trial

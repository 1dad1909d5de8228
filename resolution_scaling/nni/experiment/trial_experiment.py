"""A search whose trials call a function of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nni.experiment import AlgorithmConfig, ExperimentConfig

from ...ground.arguments import whole_number
from ..algorithms.module_class import ModuleClass
from ..tuners import find_tuner
from .recorded_experiment import RecordedExperiment
from .trial import dump_options
from .trial_code import code_directory_of, import_path
from .trial_command import TrialCall


class TrialExperiment(RecordedExperiment):
    """A search whose trials call ``run(module_class, parameters, **options)``, each in a process of its own.

    `RecordedExperiment` says how it differs from NNI's own ``Experiment``.

    Args:
        run: the function that a trial calls, as ``"package.module:function"``. It returns a number, or a dict of
            metrics with ``"default"``.
        module_class: the class that the function works on, at the top level of a file that trials can import.
        search_space: in NNI's form.
        options: further arguments of ``run``, of types that JSON can hold.
        tuner: its name: ``"TPE"``, ``"Evolution"``, ``"GridSearch"``, ``"Random"``, another of NNI's, or one of yours
            (`register_tuner`).
        tuner_args: its arguments, as ``{"seed": 0}``; ``"optimize_mode"`` is ``"maximize"`` unless given.
        max_trials: the largest number of trials.
        concurrency: the number of trials at once.
        output: folder of the record, made if it does not exist.
        config: NNI's ``ExperimentConfig`` or the name of a platform (``"remote"``, ...) to set more than that; None for
            ``"local"``. Search space, tuner, the two numbers and the command are set on it. A command that contains
            ``{trial}``, as ``"source env.sh && {trial}"``, is kept around that of the trial.

    Raises:
        TypeError, ValueError: an argument is not usable, or trials could not import ``module_class``.
        FileExistsError: ``output`` holds a search already.

    Example:
        >>> experiment = TrialExperiment("mine.search:measure", Network, space, output=Path("results/search"))
        >>> for result in experiment.run_all(port=8080):
        ...     print(result.parameters, result.score)
    """

    def __init__(
        self,
        run: str,
        module_class: ModuleClass,
        search_space: dict[str, Any],
        *,
        options: dict[str, Any] | None = None,
        tuner: str = "TPE",
        tuner_args: dict[str, Any] | None = None,
        max_trials: int = 20,
        concurrency: int = 1,
        output: Path,
        config: ExperimentConfig | str | None = None,
    ) -> None:
        for name, number in (("max_trials", max_trials), ("concurrency", concurrency)):
            whole_number(number, name)
        if not isinstance(search_space, dict) or not search_space:
            raise TypeError(
                f"search_space is {search_space!r}; expected NNI's: a dict of names and the values that each can have"
            )
        settings: Any = config
        if config is None or isinstance(config, str):
            settings = ExperimentConfig(config or "local")
            settings.trial_code_directory = str(code_directory_of(module_class))
        settings.search_space = search_space
        settings.tuner = AlgorithmConfig(name=tuner, class_args=find_tuner(tuner).direction() | (tuner_args or {}))
        settings.max_trial_number, settings.trial_concurrency = max_trials, concurrency
        super().__init__(settings, TrialCall(run, module_class, options or {}), Path(output))
        import_path(module_class, self.code_directory)
        dump_options(options or {})
        self._check_output()

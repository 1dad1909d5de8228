"""What an AutoCompress script imports in place of ``nni.algorithms.compression.pytorch.auto_compress``, on NNI 2.10.1
and on 3.0, which dropped it: the same three names, with resolution scaling and other algorithms beside NNI's own.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nni.experiment
from nni.experiment import ExperimentConfig

from ...ground.meta import meta_copy
from ..algorithms.module import AbstractAutoCompressionModule, check_module, example_input
from ..algorithms.pruners import NAMES, SPEEDS_UP
from ..algorithms.registry import find_algorithm, home_of
from ..experiment.trial_experiment import TrialExperiment, TrialResult
from .compact_space import AutoCompressionSearchSpaceGenerator, check_space, decode, values_of

__all__ = ["AbstractAutoCompressionModule", "AutoCompressionExperiment", "AutoCompressionSearchSpaceGenerator"]

RUN = "resolution_scaling.nni.autocompress.trial:compress_and_evaluate"

MOST_COMBINATIONS = 1000
"""So many combinations of parameters of an algorithm are tried on shapes before a search starts, no more."""


class AutoCompressionExperiment(TrialExperiment):
    """An AutoCompress search, configured and run as NNI 2.10.1's class of this name.

    Pruned trials are really sped up, so that pruning and resolution compete on the same measure; results are read from
    what trials report; the search ends by itself, can be resumed, and leaves no process behind (`TrialExperiment`).

    Args:
        auto_compress_module: your `AbstractAutoCompressionModule`, in a file of its own below
            ``config.trial_code_directory``.
        config_or_platform: NNI's ``ExperimentConfig``, or the name of a platform, as ``"local"``.
        output: directory of the record, ``trials.jsonl``. Default: NNI's own directory of the experiment.

    Raises:
        TypeError, ValueError: the class lacks a method, or trials could not import it.

    Example:
        >>> experiment = AutoCompressionExperiment(Module, "local")
        >>> experiment.config.trial_code_directory = Path(__file__).parent
        >>> experiment.config.search_space = generator.dumps()
        >>> experiment.config.tuner.name = "TPE"
        >>> experiment.config.tuner.class_args["optimize_mode"] = "maximize"
        >>> experiment.config.trial_concurrency, experiment.config.max_trial_number = 1, 10
        >>> results = experiment.run(8088)
    """

    def __init__(
        self,
        auto_compress_module: type[Any],
        config_or_platform: ExperimentConfig | str | list[str],
        *,
        output: Path | None = None,
    ) -> None:
        check_module(auto_compress_module)
        nni.experiment.Experiment.__init__(self, config_or_platform)
        self._run, self._subject, self._options, self._resumed = RUN, auto_compress_module, {}, False
        self._output = None if output is None else Path(output)

    def run(self, port: int = 8080, wait_completion: bool = True, debug: bool = False) -> list[TrialResult]:
        """Check the search, and run it to its end.

        Args:
            port: for NNI's web portal while it runs.
            wait_completion: must be True: the record of the search is kept while this waits.
            debug: let NNI log more.

        Returns:
            The trials, in the order in which they ended.

        Raises:
            TypeError, ValueError: something in the configuration cannot work; nothing was started.
            RuntimeError: the port is in use, or NNI's manager or tuner died.
        """
        if not wait_completion:
            raise ValueError("wait_completion is False; the record is kept while run() waits: call it in a thread")
        if debug:
            self.config.debug = True
        return self.run_all(port)

    def _prepare(self) -> None:
        if not self._resumed:
            self._check()
        super()._prepare()

    def _check(self) -> None:
        """What can be known before the experiment starts."""
        choices = check_space(self.config.search_space)
        tuner = self.config.tuner
        if tuner is None or (tuner.name in (None, "_none_") and tuner.class_name is None):
            raise ValueError("config.tuner.name is not set; expected a tuner of NNI, as 'TPE'")
        arguments = tuner.class_args or {}
        if str(tuner.name).lower() in ("tpe", "evolution", "anneal", "smac") and "optimize_mode" not in arguments:
            raise ValueError(
                f"config.tuner.class_args lacks 'optimize_mode', without which NNI's {tuner.name} looks for the "
                "smallest value or the largest as its default says: set 'maximize' for an evaluator that gives accuracy"
            )
        algorithms = {choice["_name"] for choice in choices}
        for name in sorted(algorithms & SPEEDS_UP):
            example_input(self._subject, f"{name!r} needs to speed the network up")
        self._options = {"imports": self._homes(algorithms)}
        self._try_outlines(choices)

    def _homes(self, algorithms: set[str]) -> list[str]:
        """Modules that register algorithms of others; trials must import them as well."""
        homes = {home_of(name) for name in sorted(algorithms - NAMES - {"resolution"})}
        return sorted(homes - {self._subject.__module__})

    def _try_outlines(self, choices: list[dict[str, Any]]) -> None:
        """Whether the network can be what is asked for, where that can be told from shapes alone."""
        outlines = [(choice, find_algorithm(choice["_name"]).outline) for choice in choices]
        wanted = [(choice, outline) for choice, outline in outlines if outline is not None]
        if not wanted:
            return
        model = self._subject.model()
        for choice, outline in wanted:
            names = list(choice)
            values = [values_of(choice[name]) or choice[name]["_value"][:1] for name in names]  # of a range, its start
            for combination in itertools.islice(itertools.product(*values), MOST_COMBINATIONS):
                config_list, parameters = decode(dict(zip(names, combination, strict=True)))
                try:
                    outline(meta_copy(model)[0], config_list, self._subject, **parameters)
                except (TypeError, ValueError) as error:
                    given = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
                    raise ValueError(
                        f"{choice['_name']!r} with {given or config_list} cannot be done to "
                        f"{type(model).__name__}: {error}"
                    ) from error

"""AutoCompress searches, on NNI 2.10.1 and on NNI 3.0, which dropped them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from nni.experiment import ExperimentConfig

from ...ground.meta import meta_copy
from ..algorithms.module_class import ModuleClass, check_module_class, dummy_input_of
from ..algorithms.pruners import NAMES, SPEEDS_UP
from ..algorithms.registry import find_algorithm, home_of
from ..experiment.recorded_experiment import RecordedExperiment
from ..experiment.trial_command import TrialCall
from ..tuners import find_tuner
from .compact_space import checked_choices, decode, values_of

RUN = "resolution_scaling.nni.autocompress.trial:compress_and_evaluate"

MOST_COMBINATIONS = 1000
"""The largest number of combinations of an algorithm's parameters that are tried on shapes before a search starts."""


class AutoCompressionExperiment(RecordedExperiment):
    """An AutoCompress search, configured and run as NNI 2.10.1's class of this name.

    Pruned channels are really removed, so that pruning and resolution compete on the same measure. `RecordedExperiment`
    says how results are read, and how the search ends.

    Args:
        module_class: your AutoCompress class, in a file of its own below ``config.trial_code_directory``.
        config_or_platform: NNI's ``ExperimentConfig``, or the name of a platform, as ``"local"``.
        output: folder of the record, ``trials.jsonl``. Default: NNI's own folder of the experiment.

    Raises:
        TypeError, ValueError: the class lacks a method, or trials could not import it.

    Example:
        >>> experiment = AutoCompressionExperiment(MyModule, "local")
        >>> experiment.config.trial_code_directory = Path(__file__).parent
        >>> experiment.config.search_space = generator.dumps()
        >>> experiment.config.tuner.name = "TPE"
        >>> experiment.config.tuner.class_args["optimize_mode"] = "maximize"
        >>> experiment.config.trial_concurrency, experiment.config.max_trial_number = 1, 10
        >>> results = experiment.run(8088)
    """

    def __init__(
        self,
        module_class: ModuleClass,
        config_or_platform: ExperimentConfig | str | list[str],
        *,
        output: str | Path | None = None,
    ) -> None:
        check_module_class(module_class)
        super().__init__(config_or_platform, TrialCall(RUN, module_class), None if output is None else Path(output))

    def _prepare(self, call: TrialCall) -> list[str]:
        return super()._prepare(dataclasses.replace(call, options={"imports": self._check(call.module_class)}))

    def _check(self, module_class: Any) -> list[str]:
        """Check all that can be checked before the experiment starts.

        Returns:
            The modules that register algorithms which are not NNI's; trials import them.
        """
        choices = checked_choices(self.config.search_space)
        tuner = self.config.tuner
        if tuner is None or (tuner.name in (None, "_none_") and tuner.class_name is None):
            raise ValueError("config.tuner.name is not set; expected a tuner of NNI, as 'TPE'")
        if find_tuner(tuner.name).minimizes_unless_told and "optimize_mode" not in (tuner.class_args or {}):
            raise ValueError(
                f"config.tuner.class_args lacks 'optimize_mode', without which NNI's {tuner.name} looks for the "
                "smallest value or the largest as its default says: set 'maximize' for an evaluator that gives accuracy"
            )
        algorithms = {choice["_name"] for choice in choices}
        for name in sorted(algorithms & SPEEDS_UP):
            dummy_input_of(module_class, f"{name!r} needs to speed the network up")
        homes = {home_of(name) for name in sorted(algorithms - NAMES - {"resolution"})}
        _try_outlines(choices, module_class)
        return sorted(homes - {module_class.__module__})


def _try_outlines(choices: list[dict[str, Any]], module_class: ModuleClass) -> None:
    """Try the choices of a search space on the network, where its shapes alone show whether that is possible."""
    outlines = [(choice, find_algorithm(choice["_name"]).outline) for choice in choices]
    wanted = [(choice, outline) for choice, outline in outlines if outline is not None]
    if not wanted:
        return
    model = module_class.model()
    for choice, outline in wanted:
        names = list(choice)
        values = [values_of(choice[name]) or choice[name]["_value"][:1] for name in names]  # of a range, its start
        for combination in itertools.islice(itertools.product(*values), MOST_COMBINATIONS):
            config_list, parameters = decode(dict(zip(names, combination, strict=True)))
            try:
                outline(meta_copy(model)[0], config_list, module_class, **parameters)
            except (TypeError, ValueError) as error:
                given = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
                raise ValueError(
                    f"{choice['_name']!r} with {given or config_list} cannot be done to {type(model).__name__}: {error}"
                ) from error

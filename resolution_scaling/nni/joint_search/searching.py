"""Joint search of pruning and resolution with NNI: by which criterion and how much to prune, and the resolution."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..algorithms.module_class import ModuleClass, check_module_class
from ..algorithms.registry import home_of
from ..algorithms.resolution import SIZES
from ..experiment.results import POINTS_FILE, TrialResult
from ..experiment.trial_code import code_directory_of, import_path
from ..tuners import find_tuner
from .limits import check_limits
from .search_check import check_rewards, check_search
from .search_result import SETTINGS_FILE, SearchResult, read_settings
from .search_space import Options, search_space

RUN = "resolution_scaling.nni.joint_search.search_trial:run_trial"
CONVOLUTIONS = ({"op_types": ["Conv2d"]},)


def search(
    module_class: ModuleClass,
    *,
    pruning: Mapping[str, Options | Mapping[str, Options]] | None = None,
    size: Options = (),
    grid: Options = (),
    patch_size: Options = (),
    config_list: Sequence[Mapping[str, Any]] = CONVOLUTIONS,
    limits: Mapping[str, float] | None = None,
    reward_for_halving: Mapping[str, float] | None = None,
    tuner: str = "TPE",
    tuner_args: Mapping[str, Any] | None = None,
    max_trials: int = 20,
    concurrency: int = 1,
    seed: int = 0,
    output: str | Path,
    record: str | Path | None = None,
    port: int = 8080,
    on_trial: Callable[[TrialResult], None] | None = None,
    config: Any = None,
) -> SearchResult:
    """Search for pruning and resolution together.

    Each trial makes the network of ``module_class``, prunes it (or not), scales its resolution (or not), trains it by
    the class's ``post_compress_finetuning_trainer``, and evaluates it. The unpruned network and the full resolution are
    always among the choices. Before the experiment starts, the network is evaluated once, each resolution is tried on
    the meta device, and all other settings are checked.

    Args:
        module_class: the AutoCompress class, in a file that trials can import. Costs are counted for its
            ``dummy_input()``. The number that its evaluator gives must be higher for better networks.
        pruning: the ratios to choose from, by name of the algorithm: ``{"l1": [0.3, 0.5]}``, or a range in NNI's form:
            ``{"l1": {"_type": "quniform", "_value": [0.2, 0.6, 0.1]}}``. Or the values by name of a parameter:
            ``{"spatial_mask": {"compression": [2, 4]}}``.
        size: for a CNN, the sizes in px to which its images would be reduced (FCR); for a ViT, sizes of the image.
        grid: for a ViT, tokens a side.
        patch_size: for a ViT, px a side. All combinations of the three must be possible.
        config_list: the layers to prune, in NNI's form, without the ratio.
        limits: on ``"flops"``, ``"memory_bytes"``, ``"peak_bytes"`` or ``"parameters"``. A network that exceeds them is
            not trained.
        reward_for_halving: what is added to the score for each halving of a cost, as ``{"flops": 0.01}``: the tuner
            then looks for cheap networks too. By default it looks for the best accuracy within the limits.
        tuner: ``"TPE"``, ``"Evolution"``, ``"GridSearch"``, ``"Random"``, another of NNI's, or one of yours
            (`register_tuner`).
        tuner_args: its arguments. Default: see `Tuner.arguments`.
        max_trials: the largest number of trials. A trial that repeats a point takes no time, but counts.
        concurrency: the number of trials at once.
        seed: of the tuner and of each trial.
        output: folder of the record, made if it does not exist.
        record: file of the points that were measured, which several searches can share. Default: in ``output``.
        port: the port of NNI's web portal while the search runs.
        on_trial: called with each trial that ended.
        config: NNI's ``ExperimentConfig``, for more than one machine.

    Returns:
        All trials and their Pareto fronts. ``trials.jsonl`` in ``output`` is the record; `SearchResult.write` adds
        table, figure and report.

    Raises:
        TypeError, ValueError: an argument is not usable, an algorithm is unknown, a resolution is impossible, not even
            the smallest network keeps the limits, the evaluator gives no number.
        FileExistsError: ``output`` holds a search already: see `resume_search`.
        ImportError: NNI is not installed.

    Example:
        >>> result = search(
        ...     MyModule,
        ...     pruning={"l1": [0.3, 0.5, 0.7], "spatial_mask": [0.3, 0.5, 0.7]},
        ...     size=[112, 128, 160],
        ...     limits={"flops": 2e9},
        ...     max_trials=40,
        ...     output="results/search",
        ... )
        >>> print(result)
        >>> result.write()
    """
    _require_nni()
    from ..algorithms import pruners  # noqa: F401  registers NNI's own
    from ..experiment.trial_experiment import TrialExperiment

    check_module_class(module_class)
    output = Path(output).resolve()
    sizes = dict(zip(SIZES, (size, grid, patch_size), strict=True))
    space, limits, rewards = search_space(pruning or {}, sizes), check_limits(limits), check_rewards(reward_for_halving)
    if config is None:
        import_path(module_class, code_directory_of(module_class))
    options: dict[str, Any] = {
        "config_list": [dict(layer) for layer in config_list],
        "limits": limits,
        "reward_for_halving": rewards,
        "imports": _homes(space),
        "record": str(Path(record).resolve() if record else output / POINTS_FILE),
        "seed": seed,
    }
    options["unchanged"] = check_search(module_class, space, options["config_list"], limits)
    if tuner_args is None:
        tuner_args = find_tuner(tuner).arguments(seed=seed, max_trials=max_trials, concurrency=concurrency)
    experiment = TrialExperiment(
        RUN,
        module_class,
        space,
        options=options,
        tuner=tuner,
        tuner_args=dict(tuner_args),
        max_trials=max_trials,
        concurrency=concurrency,
        output=output,
        config=config,
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / SETTINGS_FILE).write_text(json.dumps({"search_space": space, **options}, indent=1), encoding="utf-8")
    return SearchResult(experiment.run_all(port, on_trial), options["unchanged"], output)


def resume_search(
    output: str | Path,
    *,
    max_trials: int | None = None,
    port: int = 8080,
    on_trial: Callable[[TrialResult], None] | None = None,
) -> SearchResult:
    """Continue a search that was stopped or killed, with its settings.

    Args:
        output: the folder of the search.
        max_trials: a new number of trials in all.
        port: the port of NNI's web portal.
        on_trial: called with each further trial that ended.

    Returns:
        All trials, also the earlier ones.

    Raises:
        FileNotFoundError: there is no search in ``output``.
    """
    output = Path(output).resolve()
    _require_nni()
    from ..experiment.recorded_experiment import RecordedExperiment

    experiment = RecordedExperiment.resume(output, max_trials=max_trials)
    return SearchResult(experiment.run_all(port, on_trial), read_settings(output)["unchanged"], output)


def _require_nni() -> None:
    """Raise an ImportError that says what to install, where NNI is missing."""
    try:
        importlib.import_module("nni")
    except ImportError as error:
        raise ImportError(
            "the search needs NNI: pip install torchprune-spatial[nni3], or [nni2] for NNI 2.10.1"
        ) from error


def _homes(space: Mapping[str, Any]) -> list[str]:
    """The modules that register the algorithms of a space: trials import them.

    Raises:
        ValueError: an algorithm is unknown, or trials cannot import the module that defines it.
    """
    names = [option["_name"] for option in space["pruning"]["_value"][1:]]
    names += ["resolution"] if len(space["resolution"]["_value"]) > 1 else []
    return sorted(set(map(home_of, names)))

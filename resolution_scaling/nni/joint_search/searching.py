"""Joint search of pruning and resolution with NNI: which criterion, how much, and at which resolution to work."""

from __future__ import annotations

import importlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..algorithms.registry import dummy_input_of, home_of
from ..algorithms.resolution import SIZES  # this registers 'resolution' too
from ..experiment.results import TrialResult
from ..experiment.trial_code import code_directory_of, import_path
from .limits import COSTS, check_limits, count_costs, outline_costs, violation
from .search_result import SETTINGS_FILE, SearchResult, read_settings
from .search_space import Options, Trial, corners, search_space
from .search_trial import evaluate

RUN = "resolution_scaling.nni.joint_search.search_trial:run_trial"
CONVOLUTIONS = ({"op_types": ["Conv2d"]},)
POINTS_FILE = "points.jsonl"


def search(
    module: type[Any],
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

    Each trial builds the network of ``module``, prunes it (or not), lets it work at a lower resolution (or not), trains
    it as the class's ``post_compress_finetuning_trainer`` does, and evaluates it. Leaving the network unpruned, and
    keeping its resolution, are always among the choices. The network, and all that can be told without a trial, is
    checked before the experiment starts: it is evaluated once, each resolution is tried on the meta device.

    Args:
        module: the AutoCompress class, in a file that trials can import. Its ``dummy_input()`` says for which input
            costs are counted, the evaluator's score is taken for better when higher.
        pruning: by name of the algorithm, the ratios to choose from: ``{"l1": [0.3, 0.5]}``, or a range in NNI's form:
            ``{"l1": {"_type": "quniform", "_value": [0.2, 0.6, 0.1]}}``. Or values by parameter of the algorithm:
            ``{"spatial_mask": {"compression": [2, 4]}}``.
        size: for a CNN, sizes that the images are treated as, px (FCR); for a ViT, sizes of the image.
        grid: for a ViT, tokens a side.
        patch_size: for a ViT, sides of a patch, px. All combinations of the three must fit each other.
        config_list: the layers to prune, in NNI's form, without the ratio.
        limits: on ``"flops"``, ``"memory_bytes"``, ``"peak_bytes"`` or ``"parameters"``. A network that breaks them is
            not trained.
        reward_for_halving: what it is worth to halve a cost, in units of the score, as ``{"flops": 0.01}``: makes the
            tuner look for cheap networks too. By default it looks for the best score within the limits.
        tuner: ``"TPE"``, ``"Evolution"``, ``"GridSearch"``, ``"Random"``, or another of NNI's.
        tuner_args: its arguments. Default: to maximise, with ``seed`` where it takes one.
        max_trials: how many trials at most; one that tries a point again costs nothing, but counts.
        concurrency: trials at once.
        seed: of the tuner and of each trial.
        output: folder of the record, made if it is not there.
        record: file of the points that were tried, which several searches can share. Default: in ``output``.
        port: of NNI's web portal while it runs.
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
    experiment_class = _experiment_class()
    importlib.import_module("resolution_scaling.nni.algorithms.module").check_module(module)
    output = Path(output).resolve()
    sizes = dict(zip(SIZES, (size, grid, patch_size), strict=True))
    space, limits = search_space(pruning or {}, sizes), check_limits(limits)
    for cost, reward in (reward_for_halving or {}).items():
        if cost not in COSTS or isinstance(reward, bool) or not isinstance(reward, (int, float)) or reward < 0:
            raise ValueError(
                f"reward_for_halving has {cost!r}: {reward!r}; expected {', '.join(map(repr, COSTS))}, and numbers "
                "of at least 0"
            )
    if config is None:
        import_path(module, code_directory_of(module))
    options: dict[str, Any] = {
        "config_list": [dict(layer) for layer in config_list],
        "limits": limits,
        "reward_for_halving": dict(reward_for_halving or {}),
        "imports": _homes(space),
        "record": str(Path(record).resolve() if record else output / POINTS_FILE),
        "seed": seed,
    }
    options["unchanged"] = check_space(module, space, options["config_list"], limits)
    experiment = experiment_class(
        RUN,
        module,
        space,
        options=options,
        tuner=tuner,
        tuner_args=_tuner_args(tuner, seed, max_trials, concurrency) if tuner_args is None else dict(tuner_args),
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
    """Go on with a search that was stopped or killed, with the settings that it had.

    Args:
        output: its folder.
        max_trials: another number of trials in all.
        port: of NNI's web portal.
        on_trial: called with each further trial that ended.

    Returns:
        All trials, earlier ones too.

    Raises:
        FileNotFoundError: there is no search in ``output``.
    """
    output = Path(output).resolve()
    experiment = _experiment_class().resume(output, max_trials=max_trials)
    return SearchResult(experiment.run_all(port, on_trial), read_settings(output)["unchanged"], output)


def check_space(
    module: type[Any], space: Mapping[str, Any], config_list: Sequence[Mapping[str, Any]], limits: Mapping[str, float]
) -> dict[str, float]:
    """See that a search can succeed, as far as that can be told without a trial.

    Returns:
        Costs and ``"score"`` of the unchanged network.

    Raises:
        TypeError, ValueError: see `search`.
    """
    if dummy_input_of(module) is None:
        raise TypeError(
            f"{module.__name__} has no dummy_input(): add a classmethod that gives an input of the network, such as "
            "torch.rand(1, 3, 224, 224); costs are counted for it"
        )
    model = module.model()
    unchanged = count_costs(model, module.dummy_input())
    for trial in _resolutions(space):
        try:
            outline_costs(model, trial, module, [])
        except (TypeError, ValueError) as error:
            given = ", ".join(f"{name}={value}" for name, value in trial.sizes.items())
            raise type(error)(f"{given} is impossible for {type(model).__name__}: {error}") from error
    smallest: dict[str, float] = dict.fromkeys(limits, math.inf)
    for parameters in corners(space) if limits else ():
        trial = Trial.of(parameters)
        costs = outline_costs(model, trial, module, trial.config_list(config_list))
        if costs is None or not violation(costs, limits):
            break
        smallest = {name: min(value, costs[name]) for name, value in smallest.items()}
    else:
        if limits:
            found = ", ".join(f"{name} {value:,.0f} (limit {limits[name]:,.0f})" for name, value in smallest.items())
            raise ValueError(
                f"limits cannot be kept by any network of the search; the least that was found: {found}. Raise the "
                "limits, prune more, or lower the resolution further"
            )
    return {**unchanged, "score": evaluate(module, model)}


def _experiment_class() -> type[Any]:
    try:
        importlib.import_module("nni")
    except ImportError as error:
        raise ImportError(
            "the search needs NNI: pip install torchprune-spatial[nni3], or [nni2] for NNI 2.10.1"
        ) from error
    importlib.import_module("resolution_scaling.nni.algorithms.pruners")
    return importlib.import_module("resolution_scaling.nni.experiment.trial_experiment").TrialExperiment


def _resolutions(space: Mapping[str, Any]) -> list[Trial]:
    """Every combination of sizes, unpruned."""
    trials = []
    for option in space["resolution"]["_value"]:
        names = [name for name in option if name != "_name"]
        for values in itertools.product(*(option[name]["_value"] for name in names)):
            trials.append(Trial("none", None, {}, dict(zip(names, values, strict=True))))
    return [trial for trial in trials if trial.sizes]


def _homes(space: Mapping[str, Any]) -> list[str]:
    """The modules in which the algorithms are registered: trials import them.

    Raises:
        ValueError: an algorithm is unknown, or is defined where trials cannot import it.
    """
    names = [option["_name"] for option in space["pruning"]["_value"][1:]]
    names += ["resolution"] if len(space["resolution"]["_value"]) > 1 else []
    return sorted(set(map(home_of, names)))


def _tuner_args(tuner: str, seed: int, max_trials: int, concurrency: int) -> dict[str, Any]:
    """To maximise, with a seed where the tuner takes one; populations small enough for several generations."""
    seeded = {"seed": seed} if tuner in ("TPE", "Random") else {}
    evolution = {"population_size": max(concurrency + 1, min(32, max_trials // 3))} if tuner == "Evolution" else {}
    return {"optimize_mode": "maximize", **seeded, **evolution}

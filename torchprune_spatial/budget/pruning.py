"""Pruning to a budget: the user says how much smaller or faster the network must be, not which ratios to prune by."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import Group

from resolution_scaling.ground.arguments import real_number, whole_number
from resolution_scaling.ground.calls import call_model, on_copies
from resolution_scaling.ground.meta import call_on_meta, meta_copy
from resolution_scaling.ground.models import evaluating, of_autograd
from resolution_scaling.ground.progress import counting, showing_progress
from resolution_scaling.ground.put_back import undoing_failures

from ..calibration.statistics import Calibration
from ..graph.attention import attention_heads
from ..graph.channel_graph import ChannelGraph
from ..graph.options import check_heads, check_layers, check_option_names
from ..record.pruning_record import PruningRecord
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS
from .allocations import ALLOCATIONS, Allocation, Work
from .bisection import fewest_steps
from .limits import LIMITS, checked_limits
from .output_changes import Loss
from .planned_pruner import HEAD_RATIOS, ScoringPruner
from .rehearsal import Rehearsal
from .scored_groups import ScoredGroup, root_name, scored_group

GRAPHS = ("channels", "torch-pruning")

NOT_OURS = ("iterative_steps", "iterative_pruning_ratio_scheduler", "pruning_ratio", "ch_sparsity", "ch_sparsity_dict")
"""Options of Torch-Pruning's pruner that contradict a budget."""

Importance = Callable[[Group], torch.Tensor | None]
Fold = Callable[[Group], None]


def prune_to(
    model: nn.Module,
    example_inputs: Any,
    importance: Importance,
    *,
    compression: float | None = None,
    speedup: float | None = None,
    allocation: str | None = None,
    fold: bool | Fold = True,
    calibration: Calibration | Iterable[Any] | None = None,
    loss: Loss | None = None,
    tolerance: float = 0.02,
    progress: bool = True,
    graph: str = "channels",
    **options: Any,
) -> PruningRecord:
    """Prune a network until it is N times smaller or faster, and no further.

    Every group is scored once, on the unpruned network. The allocation orders all the channels that can be removed. A
    bisection then finds how many of them must be removed: it prunes copies on the meta device, which have no weights,
    and counts what is left. The network itself is pruned last, and only once. No group loses all its channels.

    Args:
        model: the network, pruned in place.
        example_inputs: as for Torch-Pruning. FLOPs are counted for this batch and size.
        importance: any importance of Torch-Pruning; it is called once for each group that may be pruned. Groups for
            which it returns None are not pruned. We recommend `InterpolativeImportance`.
        compression: the parameters before pruning, divided by those after it, must reach this number.
        speedup: the FLOPs before pruning, divided by those after it, must reach this number (`flops_by_module` says
            what counts). If ``compression`` is given too, both limits hold.
        allocation: how the budget is spread over the groups; default: ``"sensitivity"`` with `InterpolativeImportance`,
            otherwise ``"uniform"`` (an importance can recommend another).

            - ``"uniform"``: each group loses the same share of its channels.
            - ``"global"``, ``"isomorphic"``: as in Torch-Pruning, the channels with the lowest scores of the network,
              or of all groups of one kind, are removed first. The scores must be comparable across layers.
            - ``"cost"``: the channels that matter least to their group are removed first, relative to the parameters
              (with ``compression``) or FLOPs (with ``speedup``) that their removal saves.
            - ``"sensitivity"``: the channels whose removal changes the outputs least are removed first, relative to
              what it saves. The change is measured on calibration data, group by group, and every region has the same
              weight. This evaluates at least 32 images, if there are as many, about five times per group.
            - the name of an allocation of your own, see `register_allocation`.
        fold: whether the next layers are changed so that they make up for removed channels, if the importance has a
            method ``fold``, as `InterpolativeImportance` and `ThiNetImportance` do. Or a function that does this; it
            is called with each group just before its channels are removed. ``"sensitivity"`` also folds, temporarily,
            while it measures.
        calibration: a loader or a `Calibration`, for allocations that need data. Default: that of the importance. If it
            is given, ``"sensitivity"`` works with any importance. ``forward_fn`` also calls the model with the inputs
            of a loader.
        loss: ``(outputs, target)`` -> the loss that you train with. ``"sensitivity"`` then measures how much the loss
            increases. Default: it measures how much the outputs change. Logits are then compared as probabilities;
            whether the outputs are logits follows from the targets of the calibration data.
        tolerance: the relative deviation from the target that is accepted. A larger deviation gives a warning. It
            occurs if a single step removes much, as in small networks or with ``round_to``.
        progress: whether progress bars are shown on a terminal.
        graph: ``"channels"`` follows the channels themselves (see `ChannelGraph`); ``"torch-pruning"`` uses the graph
            of Torch-Pruning, which cannot follow many networks and is then wrong or fails.
        options: arguments of ``tp.pruner.BasePruner``: ``max_pruning_ratio``, ``round_to``, ``ignored_layers``,
            ``num_heads`` (default: `attention_heads`), ``unwrapped_parameters``, ``customized_pruners``,
            ``forward_fn``, ... ``global_pruning`` and ``isomorphic`` can be given instead of ``allocation``. Layers in
            ``pruning_ratio_dict`` are pruned by the ratio given there.

    Returns:
        The record of what was removed: ``print(record)`` prints a table, ``record.plot()`` draws a figure.

    Raises:
        TypeError, ValueError: an argument is not usable, the scores are not one number per channel, the outputs cannot
            be compared, or the network cannot run on the meta device. The network is then unchanged.

    Warns:
        UserWarning: the target is out of reach, so that the network was pruned as much as possible; or it could not be
            met within ``tolerance``, so that the network was pruned as little as reaches it.

    Example:
        >>> importance = tp.importance.InterpolativeImportance(loader)
        >>> record = prune_to(model, example_inputs, importance, compression=20)
        >>> record.compression
        20.004
    """
    for name in NOT_OURS:
        if name in options:
            raise TypeError(
                f"{name} cannot be given to prune_to, which finds the pruning ratios and prunes in one step"
            )
    check_option_names(options.keys() - {"model", "example_inputs", "importance"})
    check_heads(model, options.get("num_heads"))
    check_layers(model, options.get("ignored_layers"), "ignored_layers")
    limits = checked_limits({"compression": compression, "speedup": speedup})
    spread = _allocation(allocation, options, importance)
    folding = _folding(fold, importance)
    data = _calibration(calibration, importance, spread, options.get("forward_fn"))
    if loss is not None and not (callable(loss) and spread.needs_calibration):
        raise TypeError(
            f"loss is {loss!r} with allocation={spread.name!r}; expected a callable (outputs, target), with an "
            "allocation that measures, such as allocation='sensitivity'"
        )
    real_number(tolerance, "tolerance", least=0)
    if graph not in GRAPHS:
        raise ValueError(f"graph is {graph!r}; expected one of {', '.join(map(repr, GRAPHS))}")
    rounding = _rounding(options)
    options = _completed(options, model, graph)
    with ExitStack() as stack:
        for context in (
            evaluating(model),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(range(torch.cuda.device_count())),
            showing_progress(progress),
        ):
            stack.enter_context(context)
        example_inputs = of_autograd(model, example_inputs)
        tried = stack.enter_context(counting("search"))
        forward = options["forward_fn"]
        on_meta, inputs_on_meta = meta_copy(model, example_inputs)
        call_on_meta(on_meta, inputs_on_meta, forward)  # before anything is measured, which may take long
        costs = {name: LIMITS[name](model, example_inputs, forward) for name in limits}
        channels = _followed(model, example_inputs, options) if graph == "channels" else None
        groups, pruning_groups = _scored(model, example_inputs, importance, options, channels)
        work = Work(
            model,
            free := _free(model, groups, options),
            {name: pruning_groups[name] for name in free},
            {
                name: sum(cost.get(name, 0) / max(1, cost[""]) for cost in costs.values())
                for name, _ in model.named_modules()
            },
            **rounding,
            fold=folding,
            calibration=data,
            loss=loss,
        )
        before = {name: cost[""] for name, cost in costs.items()}
        rehearsal = Rehearsal(model, example_inputs, options, groups, spread.order(work), before, tried, channels)
        if not rehearsal.order:
            raise ValueError(_nothing_to_remove(model, groups, channels))

        def excess(steps: int) -> float:
            return min(rehearsal.reached(steps)[name] / limit for name, limit in limits.items()) - 1

        steps = fewest_steps(len(rehearsal.order), excess, tolerance)
        _warn_if_missed(rehearsal, steps, limits, excess(steps), tolerance)
        record = PruningRecord(model, example_inputs, forward)
        with undoing_failures(model):
            record.step(rehearsal.pruner(steps), folding)
            if channels is not None and (wrong := channels.verify()):
                raise RuntimeError(
                    f"after pruning, other channels of {', '.join(map(repr, wrong[:4]))} belong together than before, "
                    "so the network is left as it was. Please report it, and list these layers in ignored_layers"
                )
    return record


def _nothing_to_remove(model: nn.Module, groups: Mapping[str, Any], channels: ChannelGraph | None) -> str:
    """Why no channel can be removed."""
    text = f"{type(model).__name__} has no channel to remove"
    if groups or channels is None or not channels.left_alone:
        return f"{text}: importance, ignored_layers, round_to or max_pruning_ratio exclude every group from pruning"
    reasons: dict[str, list[str]] = {}
    for name, why in channels.left_alone.items():
        reasons.setdefault(why, []).append(name)
    quoted = [f"{', '.join(map(repr, names[:3]))}{', ...' * (len(names) > 3)}: {why}" for why, names in reasons.items()]
    return f"{text}. Left alone are {'; '.join(quoted[:3])}{'; ...' * (len(quoted) > 3)}"


def _followed(model: nn.Module, example_inputs: Any, options: Mapping[str, Any]) -> ChannelGraph:
    """Follow the channels of the network."""
    return ChannelGraph().build_dependency(
        model,
        example_inputs,
        forward_fn=options["forward_fn"],
        output_transform=options.get("output_transform"),
        customized_pruners=options["customized_pruners"],
        ignored_params=[p for p in options.get("ignored_layers") or () if isinstance(p, nn.Parameter)],
    )


def _allocation(allocation: str | None, options: dict[str, Any], importance: Importance) -> Allocation:
    """Find the allocation, given by name or by Torch-Pruning's options, which are removed from ``options``."""
    words = {"isomorphic": options.pop("isomorphic", False), "global": options.pop("global_pruning", False)}
    for name, option in (("global", "global_pruning"), ("isomorphic", "isomorphic")):
        if allocation is not None and words[name]:
            raise TypeError(f"{option} and allocation={allocation!r} both choose the allocation: pass one of them")
    asked = next((name for name, given in words.items() if given), allocation)
    name = getattr(importance, "recommended_allocation", "uniform") if asked is None else asked
    if name not in ALLOCATIONS:
        raise ValueError(f"allocation is {name!r}; expected one of {', '.join(map(repr, ALLOCATIONS))}")
    return ALLOCATIONS[name]


def _folding(fold: bool | Fold, importance: Importance) -> Fold | None:
    if callable(method := getattr(fold, "fold", None)):  # an importance: calling it would only score
        return method
    if callable(fold):
        return fold
    if not isinstance(fold, bool):
        raise TypeError(f"fold is {fold!r}; expected True, False or a function that is called with a group")
    return getattr(importance, "fold", None) if fold else None


def _rounding(options: dict[str, Any]) -> dict[str, Any]:
    """Take ``round_to`` and ``max_pruning_ratio`` out of the options, after a check."""
    given = {name: options.pop(name, None) for name in ("round_to", "max_pruning_ratio")}
    if given["round_to"] is not None:
        whole_number(given["round_to"], "round_to")
    if given["max_pruning_ratio"] is not None:
        real_number(given["max_pruning_ratio"], "max_pruning_ratio", least=0, most=1)
    return {name: value for name, value in given.items() if value is not None}


def _calibration(given: Any, importance: Importance, allocation: Allocation, forward: Any) -> Calibration | None:
    if given is not None and not allocation.needs_calibration:
        raise TypeError(
            f"calibration is for allocations that measure, but allocation is {allocation.name!r}: pass "
            "allocation='sensitivity' too"
        )
    if given is not None:
        return given if isinstance(given, Calibration) else Calibration(given, forward=forward)
    calibration = getattr(importance, "calibration", None)
    if not isinstance(calibration, Calibration):
        if allocation.needs_calibration:
            raise ValueError(
                f"allocation={allocation.name!r} measures on calibration data, which importance "
                f"({type(importance).__name__}) does not have: pass calibration=loader, or allocation='cost'"
            )
        return None
    return calibration


def _completed(options: dict[str, Any], model: nn.Module, graph: str) -> dict[str, Any]:
    """Add our defaults to the options of Torch-Pruning's pruner."""
    completed = options | {"forward_fn": on_copies(options.get("forward_fn") or call_model), "pruning_ratio": 0.0}
    completed["customized_pruners"] = CUSTOMIZED_PRUNERS | (options.get("customized_pruners") or {})
    whole_heads = any(options.get(name) for name in ("prune_num_heads", *HEAD_RATIOS))
    if options.get("num_heads") is None and (graph == "torch-pruning" or whole_heads):
        completed["num_heads"] = attention_heads(model)
    return completed


def _scored(
    model: nn.Module,
    example_inputs: Any,
    importance: Importance,
    options: Mapping[str, Any],
    channels: ChannelGraph | None,
) -> tuple[dict[str, ScoredGroup | None], dict[str, Group]]:
    """Score every group: the scored groups (None for those that must not be pruned) and Torch-Pruning's, by name."""
    groups: dict[str, ScoredGroup | None] = {}
    pruning_groups: dict[str, Group] = {}

    def look(pruner: tp.pruner.BasePruner, group: Group) -> None:
        scores, name = importance(group), root_name(group)
        groups[name] = None if scores is None else scored_group(pruner, group, scores)
        pruning_groups[name] = group

    ScoringPruner(model, example_inputs, options, look, channels).look()
    return groups, pruning_groups


def _free(
    model: nn.Module, groups: Mapping[str, ScoredGroup | None], options: Mapping[str, Any]
) -> dict[str, ScoredGroup]:
    """Find the groups that may lose channels: those with scores for which the user gives no ratios."""
    fixed = {
        module
        for layers in options.get("pruning_ratio_dict") or ()
        for layer in (layers if isinstance(layers, tuple) else (layers,))
        for module in layer.modules()
    }
    names = {name for name, module in model.named_modules() if module in fixed}
    return {name: group for name, group in groups.items() if group and names.isdisjoint(group.layers)}


def _warn_if_missed(
    rehearsal: Rehearsal, steps: int, limits: Mapping[str, float], excess: float, tolerance: float
) -> None:
    """Warn if the target is missed by more than the tolerance, and say what can be reached."""

    def reached(steps: int) -> str:
        return " and ".join(f"{name} {value:.4g}" for name, value in rehearsal.reached(steps).items())

    if excess < -tolerance:
        problem = f"is out of reach: the strongest pruning, which is used, gives {reached(steps)}"
        remedy = "To get further, free layers from ignored_layers, lower round_to or raise max_pruning_ratio"
    elif excess > tolerance:
        problem = f"cannot be met more closely than by {reached(steps)}, which is used"
        remedy = f"The next weaker pruning gives {reached(steps - 1)}"
    else:
        return
    target = " with ".join(f"{name}={limit:g}" for name, limit in limits.items())
    warnings.warn(f"{target} {problem}. {remedy}", stacklevel=3)

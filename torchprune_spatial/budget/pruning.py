"""Pruning to a budget: how much smaller or faster, instead of what share of the channels."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn as nn
import torch_pruning as tp
from torch_pruning.dependency import Group

from resolution_scaling.ground.meta import call_on_meta, meta_copy
from resolution_scaling.ground.models import evaluating

from ..calibration.batches import call_model
from ..calibration.statistics import Calibration
from ..graph.attention import attention_heads
from ..graph.private_names import own_containers
from ..record.flops import flops_by_module
from ..record.pruning_record import PruningRecord
from ..residuals.channel_scatter import CUSTOMIZED_PRUNERS
from .allocations import cost_order
from .removal import ScoredGroup, removal_order, root_of, scored_group
from .sensitivity import Sensitivity

ALLOCATIONS: dict[str, dict[str, bool]] = {
    "uniform": {},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
    "cost": {},
    "sensitivity": {},
}
"""By name, the options of Torch-Pruning that they stand for."""
OURS = {"iterative_steps", "iterative_pruning_ratio_scheduler", "pruning_ratio", "ch_sparsity", "ch_sparsity_dict"}
SPREAD = ("global_pruning", "isomorphic", "round_to", "max_pruning_ratio")
"""Options that `removal_order` takes over from the host, whose threshold spares the layers that it condemns whole."""


def prune_to(
    model: nn.Module,
    example_inputs: Any,
    importance: Callable[[Group], torch.Tensor | None],
    *,
    compression: float | None = None,
    speedup: float | None = None,
    allocation: str | None = None,
    tolerance: float = 0.02,
    before_removal: Callable[[Group], None] | None = None,
    **options: Any,
) -> PruningRecord:
    """Prune a network until it is so many times smaller or faster, and no further.

    Every group is scored once, on the unpruned network. Channels are then thought away one at a time, in a fixed order,
    and a bisection finds how many have to go: it prunes copies on the meta device, which have no weights, and counts
    what is left. Only then is the network pruned, once. No group loses all its channels.

    Args:
        model: the network, pruned in place.
        example_inputs: as for Torch-Pruning. FLOPs are counted for this batch and size.
        importance: any importance of Torch-Pruning, called once for each group that may be pruned. Groups for which it
            returns None are left alone.
        compression: parameters before over parameters after, at least this.
        speedup: FLOPs before over FLOPs after, at least this (see `flops_by_module` for what counts). With both, both
            limits hold.
        allocation: how the budget is spread over the groups. ``"uniform"``, the default: each loses the same share of
            its channels. ``"global"`` and ``"isomorphic"``, as in Torch-Pruning: the lowest scores of the network, or
            of the groups of one kind, go first; they need scores that compare across layers. ``"cost"``: those channels
            go first that matter least to their group for the parameters (with ``compression``) or FLOPs (with
            ``speedup``) that they save; see `allocation.cost_order`. ``"sensitivity"``: those without which the outputs
            change least for what they save, measured group by group on calibration data, with every region of the same
            weight (`Sensitivity`). It needs an importance with calibration data, evaluates up to 32 images of them
            about five times a group, and wants outputs that are no logits: see ``forward`` of `SpatialMaskImportance`.
        tolerance: how far from the target is near enough. Farther, which happens where one step of the order removes
            much (small networks, ``round_to``), there is a warning.
        before_removal: is called with each group, on the network, just before its channels go: `fold` of
            `SpatialMaskImportance` or ``fold_rescaling`` of `ThiNetImportance`, which make up for them. With
            ``allocation="sensitivity"`` also while errors are measured, and what it did is undone.
        options: of ``tp.pruner.BasePruner``: ``max_pruning_ratio``, ``round_to``, ``ignored_layers``, ``num_heads``
            (default: `attention_heads`), ``unwrapped_parameters``, ``customized_pruners``, ``forward_fn``, ..., and in
            place of ``allocation`` also ``global_pruning`` and ``isomorphic``. Layers in ``pruning_ratio_dict`` keep
            the ratio given there.

    Returns:
        The record of what was removed; ``print(record)`` for the table, ``record.plot()`` for the figure.

    Raises:
        TypeError, ValueError: an argument is not usable, the scores are not one number a channel, or the network cannot
            run on the meta device. The network is then as it was.

    Warns:
        UserWarning: the target is out of reach (the strongest pruning was done), or could not be met within
            ``tolerance`` (the nearest that reaches it was done).

    Example:
        >>> record = prune_to(model, example_inputs, SpatialMaskImportance(loader), compression=20)
        >>> record.compression
        20.004
    """
    search = _Search(model, example_inputs, options, _limits(compression, speedup), allocation)
    with evaluating(model), torch.enable_grad():
        search.score(importance, before_removal)
        steps = search.nearest(tolerance)
        search.warn(steps, tolerance)
        record = PruningRecord(model, example_inputs, search.options["forward_fn"])
        record.step(_Pruner(model, example_inputs, search.plan(steps), search.replay), before_removal)
    return record


def _limits(compression: float | None, speedup: float | None) -> dict[str, float]:
    limits = {name: v for name, v in (("compression", compression), ("speedup", speedup)) if v is not None}
    if not limits:
        raise ValueError(
            "prune_to needs a target: pass compression=... or speedup=..., such as compression=20, or both"
        )
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 < value < math.inf:
            raise ValueError(f"{name} is {value!r}; expected a number above 1, such as {name}=4")
    return limits


def _host_options(allocation: str, given: dict[str, Any]) -> dict[str, bool]:
    """What an allocation is called in Torch-Pruning."""
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation is {allocation!r}; expected one of {', '.join(map(repr, ALLOCATIONS))}")
    for name in ("global_pruning", "isomorphic"):
        if given.get(name):
            raise TypeError(f"{name} says what allocation={allocation!r} says too: pass one of them")
        given.pop(name, None)
    return ALLOCATIONS[allocation]


class _Search:
    """How many steps of the removal order it takes until the network meets its limits."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        options: dict[str, Any],
        limits: dict[str, float],
        allocation: str | None,
    ):
        for name in OURS & options.keys():
            raise TypeError(
                f"{name} cannot be given to prune_to, which finds the pruning ratios and prunes in one step"
            )
        self.model, self.example_inputs, self.limits = model, example_inputs, limits
        self.spread = {name: options.pop(name) for name in SPREAD if name in options}
        if allocation is not None:
            self.spread |= _host_options(allocation, self.spread)
        self.allocation = allocation
        self.options = options | {"forward_fn": options.get("forward_fn") or call_model}
        self.options["customized_pruners"] = CUSTOMIZED_PRUNERS | (options.get("customized_pruners") or {})
        if options.get("num_heads") is None:
            self.options["num_heads"] = attention_heads(model)
        self.groups: dict[str, ScoredGroup | None] = {}  # None: left alone
        self.order: list[tuple[str, int]] = []
        self.reached = {0: dict.fromkeys(limits, 1.0)}
        self.flops = flops_by_module(model, example_inputs, self.options["forward_fn"]) if "speedup" in limits else {}

    def score(
        self, importance: Callable[[Group], torch.Tensor | None], before_removal: Callable[[Group], None] | None
    ) -> None:
        """Score every group once, in a step of the pruner that removes nothing, and put the removals in order."""
        calibration = self._calibration_of(importance) if self.allocation == "sensitivity" else None
        of_host: dict[str, Group] = {}

        def score(pruner: tp.pruner.BasePruner, group: Group) -> None:
            scores = importance(group)
            self.groups[root_of(group)] = None if scores is None else scored_group(pruner, group, scores)
            of_host[root_of(group)] = group

        pruner = _Pruner(self.model, self.example_inputs, self.options, score)
        assert not list(pruner.step(interactive=True))
        fixed = {
            module
            for layers in self.options.get("pruning_ratio_dict") or ()
            for layer in (layers if isinstance(layers, tuple) else (layers,))
            for module in layer.modules()
        }
        free = {root: group for root, group in self.groups.items() if group and fixed.isdisjoint(group.layers)}
        losses = None
        if calibration:
            sensitivity = Sensitivity(self.model, calibration, before_removal)
            losses = {root: sensitivity.losses(of_host[root], group) for root, group in free.items()}
        if self.allocation in ("cost", "sensitivity"):
            self.order = cost_order(free, self._costs(), losses, **self.spread)
        else:
            self.order = removal_order(free, **self.spread)
        self._drop_refused()
        if not self.order:
            raise ValueError(
                f"{type(self.model).__name__} has no channel to remove: importance, ignored_layers, round_to or "
                "max_pruning_ratio leave every group alone"
            )

    @staticmethod
    def _calibration_of(importance: object) -> Calibration:
        calibration = getattr(importance, "calibration", None)
        if not isinstance(calibration, Calibration):
            raise ValueError(
                f"allocation='sensitivity' needs calibration data, which importance ({type(importance).__name__}) does "
                "not have: use one that has, such as SpatialMaskImportance(loader), or allocation='cost'"
            )
        return calibration

    def _costs(self) -> dict[str, float]:
        """Of each module by name, in shares of the network's; of parameters and FLOPs the sum, if both are limited."""
        parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in self.model.named_modules()}
        counts = {"compression": parameters, "speedup": self.flops}
        return {
            name: sum(counts[limit].get(name, 0) / max(1, counts[limit][""]) for limit in self.limits)
            for name in parameters
        }

    def _drop_refused(self) -> None:
        """Drop the steps that the host refuses: the last half of a group's, until it does the rest.

        It leaves a group whole where one of its layers would lose everything, which comes early for channels that only
        the host knows to hang together, as in gates of ``chunk``.
        """
        while True:
            steps = len(self.order)
            self.reached[steps], refused = self._rehearse(steps)
            if not refused:
                return
            allowed = {root: sum(group == root for group, _ in self.order) // 2 for root in refused}
            done, order, self.order = Counter[str](), self.order, []
            for root, kept in order:
                done[root] += 1
                if done[root] <= allowed.get(root, steps):
                    self.order.append((root, kept))

    def nearest(self, tolerance: float) -> int:
        """The fewest steps that meet the limits, or one less where that is within the tolerance and they are not.

        All the steps where even they do not.
        """
        below, steps, width = 0, len(self.order), math.inf
        if self.excess(steps) < 0:
            return steps
        while steps - below > 1 and self.excess(steps) > tolerance / 10:
            # Costs go down with the square of the channels, nearly; where that leads nowhere, halve.
            ends = [(1 + self.excess(end)) ** -0.5 for end in (below, steps)]
            aim = (1 + tolerance / 20) ** -0.5
            share = (ends[0] - aim) / (ends[0] - ends[1]) if 2 * (steps - below) <= width else 0.5
            width = steps - below
            middle = min(max(below + round(share * width), below + 1), steps - 1)
            below, steps = (middle, steps) if self.excess(middle) < 0 else (below, middle)
        return below if self.excess(steps) > tolerance and self.excess(below) >= -tolerance else steps

    def excess(self, steps: int) -> float:
        """How far beyond the limits so many steps lead, as a share of them: below 0 if a limit is not met."""
        if steps not in self.reached:
            self.reached[steps], _ = self._rehearse(steps)
        return min(self.reached[steps][name] / limit for name, limit in self.limits.items()) - 1

    def _rehearse(self, steps: int) -> tuple[dict[str, float], set[str]]:
        """Prune a copy without weights: what that reaches, and the groups that the host left whole."""
        model, example_inputs, plan = meta_copy(self.model, self.example_inputs, self.plan(steps))
        forward = plan["forward_fn"]
        plan["forward_fn"] = lambda model, inputs: call_on_meta(model, inputs, forward)
        record, names = PruningRecord(model), {module: name for name, module in model.named_modules()}
        before = {name: len(kept) for name, kept in record.kept_out.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to say was said when the groups were scored
            record.step(_Pruner(model, example_inputs, plan, self.replay))
        reached = {"compression": record.compression}
        if "speedup" in self.limits:
            reached["speedup"] = self.flops[""] / max(1, flops_by_module(model, example_inputs, forward)[""])
        layers = zip(dict(self.order[:steps]), (names[layer] for layer in plan["pruning_ratio_dict"]), strict=False)
        return reached, {root for root, layer in layers if len(record.kept_out[layer]) == before.get(layer)}

    def plan(self, steps: int) -> dict[str, Any]:
        """Options for the host that do so many steps."""
        ratios = {}
        for root, kept in dict(self.order[:steps]).items():  # the last step of each group
            group = cast(ScoredGroup, self.groups[root])  # those that stay whole are in no step
            ratios[group.layers[0]] = 1 - (kept + 0.5) / len(group.block_scores)  # the host rounds down what it keeps
        return self.options | {"pruning_ratio_dict": ratios | (self.options.get("pruning_ratio_dict") or {})}

    def replay(self, pruner: tp.pruner.BasePruner, group: Group) -> torch.Tensor | None:
        """The scores as they were recorded, for the network or a copy."""
        if root_of(group) not in self.groups:
            raise ValueError(f"the group of {root_of(group)!r} was not there when they were scored: is forward random?")
        scored = self.groups[root_of(group)]
        return None if scored is None else scored.scores

    def warn(self, steps: int, tolerance: float) -> None:
        """Say where the target was missed, and what is near."""
        excess = self.excess(steps)
        if excess < -tolerance:
            problem = f"is out of reach: the strongest pruning, which is done now, gives {self._reached(steps)}"
            remedy = "To get further, free layers from ignored_layers, lower round_to or raise max_pruning_ratio"
        elif excess > tolerance:
            problem = f"cannot be met more nearly than by {self._reached(steps)}, which is done now"
            remedy = f"The next weaker pruning gives {self._reached(steps - 1)}"
        else:
            return
        target = " with ".join(f"{name}={limit:g}" for name, limit in self.limits.items())
        warnings.warn(f"{target} {problem}. {remedy}", stacklevel=3)

    def _reached(self, steps: int) -> str:
        self.excess(steps)
        return " and ".join(f"{name} {value:.4g}" for name, value in self.reached[steps].items())


class _Pruner(tp.pruner.BasePruner):
    """Torch-Pruning's pruner with other scores, and with containers of its own."""

    def __init__(self, model: nn.Module, example_inputs: Any, options: dict[str, Any], scoring: Callable[..., Any]):
        super().__init__(model, example_inputs, importance=None, pruning_ratio=0.0, **own_containers(options))
        self._scoring = scoring

    def estimate_importance(self, group: Group) -> torch.Tensor | None:
        """Instead of calling an importance."""
        return self._scoring(self, group)

"""Resolution scaling as a compressor of NNI 3.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn as nn
from nni.compression.base.compressor import Compressor
from nni.compression.base.config import select_modules_by_config
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.utils import Evaluator
from schema import And, Optional, Or, Schema, Use
from torch.utils._pytree import tree_map

from ...cnn.resized_conv import INTERPOLATIONS
from ...ground.calls import tensors_in
from ...ground.meta import meta_copy
from ...ground.sizes import as_size
from ...scaling import METHODS, scale_resolution, undo_scaling
from .scaling_plan import NetworkSizes, ScalingPlan, changed_modules, costs_of, network_method, sizes_of
from .wrapped_modules import changing, show_resized

TARGETS = ("size", "grid", "patch_size")
SELECTION = ("op_names", "op_types", "op_names_re", "exclude_op_names", "exclude_op_types", "exclude_op_names_re")


class ResolutionScaler(Compressor):
    """Lets a trained network work at a lower resolution: `scale_resolution`, in the manner of NNI 3.0's compressors.

    It goes before or after NNI's pruners and `ModelSpeedup`. NNI 3.0's own tracer fails with current versions of
    PyTorch, so always pass it the graph of `torch.fx`, as in the example. Between a pruner's ``compress`` and the
    speed-up the network is wrapped; it can be scaled there too, unless a wrapped parameter would have to be resampled.

    Args:
        model: the network, changed in place by `compress`.
        config_list: one dict for each network to scale, mostly one. Its keys are the arguments of `scale_resolution`:
            ``size``, px; ``grid`` and ``patch_size``, for a ViT; ``method``; ``input_size``, ``in_channels``,
            ``interpolation``, ``restore_outputs``, for a CNN. Numbers of pixels may be whole floats, as tuners give.
            NNI's ``op_names``, ``op_types``, ``op_names_re`` and ``exclude_...`` select a network inside of ``model``,
            such as ``'backbone'``. Without these it is ``model``.
        evaluator: as for NNI's compressors. Needed only for what trains; its dummy input serves for the costs.
        existed_wrappers: used by `from_compressor`.
        dummy_input: example inputs of ``model``, as it is before, for the costs in the plan; they also tell the
            ``input_size`` of a CNN. Default: the evaluator's, else one image of the size that the network is made for.

    Raises:
        schema.SchemaError: a configuration has a key or a value that is not usable; the text names the key.
        TypeError, ValueError: nothing, or a layer, is selected, or the network cannot work at this resolution (see
            `scale_resolution`). That is tried at once, on a copy without weights.

    Example:
        >>> pruner = L1NormPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}])
        >>> _, masks = pruner.compress()
        >>> pruner.unwrap_model()
        >>> ModelSpeedup(model, x, masks, graph_module=torch.fx.symbolic_trace(model)).speedup_model()
        >>> scaler = ResolutionScaler(model, [{"size": 160}])
        >>> model, plan = scaler.compress()
        >>> print(plan)
        >>> scaler.undo()
    """

    mode = "pruning"

    def __init__(
        self,
        model: nn.Module,
        config_list: list[dict[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: dict[str, ModuleWrapper] | None = None,
        *,
        dummy_input: Any = None,
    ):
        self._dummy_input = example_inputs(model, evaluator, dummy_input)
        self._configs = validated(config_list)
        self.plan: ScalingPlan | None = None  # of the last compress()
        with changing(model):  # without wrappers
            (draft,) = meta_copy(model)
        self._scale(draft)
        super().__init__(model, [], evaluator, existed_wrappers)  # an empty list: no weights are wrapped
        self.config_list = config_list

    def compress(self, max_steps: int | None = None, max_epochs: int | None = None) -> tuple[nn.Module, ScalingPlan]:
        """Scale the network, in place.

        Args:
            max_steps, max_epochs: with one of these, the compressors that this one was made from
                (`from_compressor`) then do their work in a training of this length, at the new resolution.

        Returns:
            The network, and what was changed.

        Raises:
            TypeError, ValueError: as at construction. The network is as it was.
        """
        self._single_compress(None, None)
        if max_steps is not None or max_epochs is not None:
            if self.evaluator is None or len(self.fused_compressors) < 2:
                raise ValueError(
                    "max_steps and max_epochs are for the training of other compressors: make this one by "
                    "ResolutionScaler.from_compressor(pruner, config_list, evaluator=...), or leave them out"
                )
            self._fusion_compress(max_steps, max_epochs)
        return self.bound_model, cast(ScalingPlan, self.plan)

    def undo(self) -> nn.Module:
        """Take the scaling back, in place: the network as before it was first scaled, with its weights of now.

        Raises:
            ValueError: a ViT was trained since, see `undo_scaling`. The network is as it was.
        """
        with changing(self.bound_model):
            for name in self._selected(self.bound_model):
                undo_scaling(self.bound_model.get_submodule(name))
        self.plan = None
        return self.bound_model

    uncompress = undo

    def _single_compress(self, max_steps: int | None, max_epochs: int | None) -> None:
        with changing(self.bound_model):
            plan = self._scale(self.bound_model)
            show_resized(self.bound_model)
        self.plan = plan

    def _fuse_preprocess(self, evaluator: Evaluator) -> None:
        """Before another compressor trains: scale, where that was not done and the optimizer may be made already."""
        if self.plan is not None:
            return
        before = dict(self.bound_model.named_parameters())
        self._single_compress(None, None)
        if any(before.get(name) is not parameter for name, parameter in self.bound_model.named_parameters()):
            self.undo()
            raise ValueError(
                "scaling this network replaces parameters, and the optimizer holds the old ones already: call "
                "compress() of the ResolutionScaler first"
            )

    def _fuse_postprocess(self, evaluator: Evaluator) -> None:
        """Nothing is left to do."""

    def _scale(self, model: nn.Module) -> ScalingPlan:
        """Scale the network, or a copy."""
        inputs, networks = self._dummy_input, []
        costs = [] if inputs is None else [costs_of(model, inputs)]
        for name, options in self._selected(model).items():
            network = model.get_submodule(name)
            if name == "" and inputs is not None and network_method(network, options) == "fcr":
                options = self._input_size | options
            before = sizes_of(network, options)
            if inputs is None and name == "":
                inputs = torch.empty(1, before.channels, *before.image_size, device="meta")
                costs = [costs_of(model, inputs)]
            scale_resolution(network, inplace=True, **options)
            image = as_size(options.get("size", before.image_size), "size")
            after = sizes_of(network, options, image)
            method = network_method(network, options)
            networks.append(NetworkSizes(name, method, before, after, changed_modules(network)))
            if inputs is not None:
                inputs = _resized(inputs, before.image_size, after.image_size)
        if costs:
            costs.append(costs_of(model, inputs))
        return ScalingPlan(tuple(networks), *costs)

    @property
    def _input_size(self) -> dict[str, tuple[int, int]]:
        """Size of the images that the model reads, as an option of FCR, where example inputs tell it."""
        images = [tensor for tensor in tensors_in(self._dummy_input) if tensor.ndim == 4]
        return {"input_size": (images[0].shape[-2], images[0].shape[-1])} if images else {}

    def _selected(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """Options of `scale_resolution` by the name of the network that is to be scaled."""
        selected: dict[str, dict[str, Any]] = {}
        for number, config in enumerate(self._configs):
            options = {key: value for key, value in config.items() if key not in SELECTION}
            keys = {key: value for key, value in config.items() if key in SELECTION}
            said = f"{', '.join(f'{key}={value}' for key, value in keys.items())} in config_list[{number}]"
            there = set(keys.get("op_names", ())) <= {name for name, _ in model.named_modules(remove_duplicate=False)}
            names = sorted(select_modules_by_config(model, keys)[0]) if keys and there else [] if keys else [""]
            if not names:
                raise ValueError(f"{said} selects nothing in {type(model).__name__}: leave it out to scale all of it")
            for name in names:
                module = model.get_submodule(name)
                if name and not any(True for _ in module.children()):
                    raise ValueError(
                        f"{said} selects the layer {name!r} ({type(module).__name__}). Resolution is scaled in a whole "
                        "network: leave it out, or name a network inside of the model, such as 'backbone'"
                    )
                for other in selected:
                    if "" in (name, other) or f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                        raise ValueError(f"config_list selects {other!r} and {name!r}, of which one is in the other")
                selected[name] = options
        return selected


def example_inputs(model: Any, evaluator: Any, dummy_input: Any) -> Any:
    """What a step shows to a model: ``dummy_input``, else the evaluator's; None if there is neither.

    Raises:
        TypeError: the model is no module, or the evaluator none of NNI's.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    if evaluator is not None and not isinstance(evaluator, Evaluator):
        raise TypeError(f"evaluator is a {type(evaluator).__name__}; expected one of NNI's, as TorchEvaluator")
    return dummy_input if dummy_input is not None or evaluator is None else evaluator.get_dummy_input()


def validated(config_list: Any) -> list[dict[str, Any]]:
    """The configurations with whole numbers where there were whole floats.

    Raises:
        TypeError: it is no list of dicts.
        schema.SchemaError: a key or a value is not usable.
    """
    if not isinstance(config_list, Sequence) or not config_list or not all(isinstance(c, dict) for c in config_list):
        raise TypeError(f"config_list is {config_list!r}; expected a list of dicts, as [{{'size': 160}}]")
    return [_SCHEMA.validate(dict(config)) for config in config_list]


def whole_number(value: Any) -> int:
    """A whole number, also one that a tuner gives as a float.

    Raises:
        ValueError: it is none, or below 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < 1:
        raise ValueError(f"{value!r} is not a whole number above 0")
    return int(value)


def pixels(value: Any) -> int | tuple[int, int]:
    """A whole number of pixels, or height and width."""
    if isinstance(value, (tuple, list)):
        height, width = value
        return whole_number(height), whole_number(width)
    return whole_number(value)


def method(value: Any) -> str:
    """The name of a method of `scale_resolution`."""
    if value not in METHODS:
        hint = ": it changes the data, see resolution_scaling.adapting.transforms" if value == "rc" else ""
        raise ValueError(f"{value!r}{hint}; expected one of {', '.join(map(repr, METHODS))}")
    return value


def names_a_resolution(config: dict[str, Any]) -> bool:
    """Whether a configuration says what is to be reached."""
    if not any(key in config for key in TARGETS):
        raise ValueError(f"none of {', '.join(map(repr, TARGETS))} is in {config}")
    return True


_SCHEMA = Schema(
    And(
        {
            **{Optional(key): [str] for key in SELECTION},
            Optional("size"): Use(pixels),
            Optional("grid"): Use(whole_number),
            Optional("patch_size"): Use(whole_number),
            Optional("method"): Use(method),
            Optional("input_size"): Use(pixels),
            Optional("in_channels"): Use(whole_number),
            Optional("interpolation"): Or(*INTERPOLATIONS),
            Optional("restore_outputs"): bool,
        },
        names_a_resolution,
    )
)


def _resized(inputs: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """Example inputs, as shapes, whose images have the new size where they had the old one."""
    if old == new or not tensors_in(inputs):
        return inputs

    def resized(leaf: Any) -> Any:
        image = isinstance(leaf, torch.Tensor) and leaf.ndim == 4 and tuple(leaf.shape[-2:]) == old
        return leaf.new_empty(*leaf.shape[:2], *new, device="meta") if image else leaf

    return tree_map(resized, inputs)

"""Resolution scaling as a compressor of NNI 3.0."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn as nn
from nni.compression.base.compressor import Compressor
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.utils import Evaluator
from torch.utils._pytree import tree_map

from ...ground.calls import tensors_in
from ...ground.meta import meta_copy
from ...ground.sizes import as_size
from ...scaling import scale_resolution, undo_scaling
from .configuration import selected_networks, validated
from .reductions import keep_reductions, release_nni
from .scaling_plan import NetworkSizes, ScalingPlan, changed_modules, costs_of, network_method, sizes_of
from .wrapped_modules import changing


class ResolutionScaler(Compressor):
    """Lets a trained network work at a lower resolution: `scale_resolution` as one of NNI 3.0's compressors.

    It can be used before or after NNI's pruners and `ModelSpeedup`. NNI 3.0's own tracer fails with current versions of
    PyTorch, so always pass the graph of `torch.fx` to `ModelSpeedup`, as in the example. Between a pruner's
    ``compress`` and the speed-up the network is wrapped; it can be scaled then too, unless that would resample a
    wrapped parameter.

    While a network that was scaled by FCR exists, NNI's replacement of ``Conv2d`` keeps its reduction (`reductions`).

    Args:
        model: the network; `compress` changes it in place.
        config_list: one dict for each network to scale, mostly one. Its keys are the arguments of `scale_resolution`:
            ``size``, px; for a ViT ``grid`` and ``patch_size``; ``method``; for a CNN ``input_size``, ``in_channels``,
            ``interpolation`` and ``restore_outputs``. Numbers of pixels may be whole floats, as tuners give them.
            NNI's ``op_names``, ``op_types``, ``op_names_re`` and ``exclude_...`` select a network inside of ``model``,
            such as ``'backbone'``. Without them, ``model`` is scaled.
        evaluator: as for NNI's compressors. Only training needs it; its dummy input is used for the costs.
        existed_wrappers: used by `from_compressor`.
        dummy_input: example inputs of ``model`` before the scaling, for the costs in the plan and the ``input_size`` of
            a CNN. Default: the evaluator's, else one image of the size for which the network was made.

    Raises:
        schema.SchemaError: a configuration has a key or a value that is not usable; the text names the key.
        TypeError, ValueError: a configuration selects nothing, or a layer, or the network cannot work at this
            resolution (see `scale_resolution`). A copy without weights is tried at once.

    Example:
        >>> pruner = L1NormPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}])
        >>> _, masks = pruner.compress()
        >>> pruner.unwrap_model()
        >>> ModelSpeedup(model, x, masks, graph_module=torch.fx.symbolic_trace(model)).speedup_model()
        >>> scaler = ResolutionScaler(model, [{"size": 160}])
        >>> model, plan = scaler.compress()
        >>> print(plan)
        >>> scaler.undo_scaling()
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
            max_steps, max_epochs: with one of these, the compressors from which this one was made (`from_compressor`)
                then do their work in a training of this length, at the new resolution.

        Returns:
            The network, and what was changed.

        Raises:
            TypeError, ValueError: see the class. The network is as it was.
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

    def undo_scaling(self) -> nn.Module:
        """Undo the scaling, in place: the network works as before it was first scaled, with its present weights.

        Raises:
            ValueError: a ViT was trained since, see `resolution_scaling.undo_scaling`. The network is as it was.
        """
        with changing(self.bound_model):
            for name in selected_networks(self.bound_model, self._configs):
                undo_scaling(self.bound_model.get_submodule(name))
        release_nni()
        self.plan = None
        return self.bound_model

    def _single_compress(self, max_steps: int | None, max_epochs: int | None) -> None:
        try:
            with changing(self.bound_model):
                plan = self._scale(self.bound_model)
                keep_reductions(self.bound_model)
        finally:
            release_nni()  # after an exception no reduction may be left
        self.plan = plan

    def _fuse_preprocess(self, evaluator: Evaluator) -> None:
        """Before another compressor trains: scale, unless that was done. The optimizer may exist already."""
        if self.plan is not None:
            return
        before = dict(self.bound_model.named_parameters())
        self._single_compress(None, None)
        if any(before.get(name) is not parameter for name, parameter in self.bound_model.named_parameters()):
            self.undo_scaling()
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
        for name, options in selected_networks(model, self._configs).items():
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
        """Size of the images that the model reads, as an option of FCR, if there are example inputs."""
        images = [tensor for tensor in tensors_in(self._dummy_input) if tensor.ndim == 4]
        return {"input_size": (images[0].shape[-2], images[0].shape[-1])} if images else {}


def example_inputs(model: Any, evaluator: Any, dummy_input: Any) -> Any:
    """The example inputs of a step: ``dummy_input``, else the evaluator's; None if there is neither.

    Raises:
        TypeError: the model is not a module, or the evaluator is not one of NNI's.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    if evaluator is not None and not isinstance(evaluator, Evaluator):
        raise TypeError(f"evaluator is a {type(evaluator).__name__}; expected one of NNI's, as TorchEvaluator")
    return dummy_input if dummy_input is not None or evaluator is None else evaluator.get_dummy_input()


def _resized(inputs: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """Example inputs, as shapes, in which images of the old size have the new one."""
    if old == new or not tensors_in(inputs):
        return inputs

    def resized(leaf: Any) -> Any:
        image = isinstance(leaf, torch.Tensor) and leaf.ndim == 4 and tuple(leaf.shape[-2:]) == old
        return leaf.new_empty(*leaf.shape[:2], *new, device="meta") if image else leaf

    return tree_map(resized, inputs)

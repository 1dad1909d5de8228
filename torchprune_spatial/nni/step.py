"""Spatial-mask pruning as a compressor of NNI 3.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn as nn
from nni.compression.base.compressor import Compressor
from nni.compression.base.config import select_modules_by_config
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.utils import Evaluator

from resolution_scaling.nni.steps.step import example_inputs
from resolution_scaling.nni.steps.wrapped_modules import wrappers_of

from ..record.pruning_record import PruningRecord
from .config import read_config
from .criterion_options import check_keeps_fraction, criterion_options, make_importance, needs_data
from .pruning import prune


class SpatialMaskPruner(Compressor):
    """A compressor that prunes by spatial masks, or by another criterion of this package.

    Torch-Pruning removes the channels, so that no `ModelSpeedup` is needed, and networks that it cannot trace can be
    pruned. `resolution_scaling.nni.ResolutionScaler` may come before or after.

    Args:
        model: the network; `compress` changes it in place.
        config_list: as for NNI's pruners: ``op_types``, ``op_names``, ``op_names_re``, ``exclude_op_names``, ..., and
            ``sparse_ratio``, the share of the output channels to remove. Instead of the ratio, for the whole network:
            ``compression`` or ``speedup`` (see `prune_to`), or ``keep_fraction`` (the paper's selection). With
            ``global_group_id`` the channels of all the layers are ranked together. Lists of NNI 2.x are accepted too.
            Layers that must lose the same channels, such as those of a residual addition, are pruned only if all of
            them are selected.
        evaluator: as for NNI's compressors. Only its dummy input is used.
        existed_wrappers: used by ``from_compressor``; there must be none.
        loader: calibration batches, see `SpatialMaskImportance`. Criteria that need no data do without.
        dummy_input: example inputs. Default: the evaluator's.
        criterion: name of a criterion: ``'spatial_mask'``, ``'apoz'``, ``'mean_activation'``, ``'thinet'``,
            ``'weight_sum'`` or one that was registered.
        options: of the criterion (``threshold``, ...), and ``global_pruning``, ``max_pruning_ratio``, ``round_to``.

    Raises:
        TypeError, ValueError: an argument is not usable; the text names it.

    Example:
        >>> config_list = [{"op_types": ["Conv2d"], "exclude_op_names": ["output"], "sparse_ratio": 0.5}]
        >>> pruner = SpatialMaskPruner(model, config_list, loader=loader, dummy_input=torch.rand(1, 1, 64, 64))
        >>> model, record = pruner.compress()
        >>> print(record)
    """

    mode = "pruning"

    def __init__(
        self,
        model: nn.Module,
        config_list: list[dict[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: dict[str, ModuleWrapper] | None = None,
        *,
        loader: Any = None,
        dummy_input: Any = None,
        criterion: str = "spatial_mask",
        **options: Any,
    ):
        dummy_input = example_inputs(model, evaluator, dummy_input)
        if dummy_input is None:
            raise TypeError("dummy_input is missing: pass example inputs of the model, as torch.rand(1, 3, 224, 224)")
        if existed_wrappers:
            _refuse_wrapped(next(iter(existed_wrappers)))
        self.criterion = criterion
        self._own, self._pruning = criterion_options(criterion, options)
        if loader is None and needs_data(criterion):
            raise TypeError(f"loader is missing: criterion {criterion!r} ranks channels by calibration batches")
        self._importance = make_importance(criterion, loader, self._own)
        self._dummy_input = dummy_input
        check_keeps_fraction(criterion, read_config(model, config_list, self._pruning, _select))
        super().__init__(model, [], evaluator, None)  # an empty list: no weights are wrapped
        self.config_list = config_list

    def compress(self, max_steps: None = None, max_epochs: None = None) -> tuple[nn.Module, PruningRecord]:
        """Prune the network, in place.

        Returns:
            The network, and what was removed.

        Raises:
            TypeError, ValueError: see `prune`. The network is as it was.
        """
        if max_steps is not None or max_epochs is not None:
            raise ValueError(f"{type(self).__name__} does not train: leave out max_steps and max_epochs")
        self._single_compress(None, None)
        return self.bound_model, self.record

    def _single_compress(self, max_steps: None, max_epochs: None) -> None:
        for wrapper in wrappers_of(self.bound_model):
            _refuse_wrapped(wrapper.name)
        config = read_config(self.bound_model, self.config_list, self._pruning, _select)
        self.record = prune(self.bound_model, config, self._importance, self._dummy_input)


def _select(model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """NNI's own selection, in the order of the network."""
    selected = select_modules_by_config(model, dict(config))[0]
    return [name for name, _ in model.named_modules() if name in selected]


def _refuse_wrapped(name: str) -> None:
    raise ValueError(
        f"{name!r} is wrapped by a pruner of NNI, which hides its weights: call pruner.unwrap_model() first; to keep "
        "the effect of its masks, then run NNI's ModelSpeedup"
    )

"""`ForwardPass`: what a network is called with, and the channels that are followed through the call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn as nn

from resolution_scaling.ground.put_back import restoring_values

from .channels import Channels
from .factors import owners_of, settle_factors
from .labels.classes import FROZEN
from .labels.trace import Traced, trace
from .sides import reads_one_channel


class ForwardPass:
    """A forward pass of a network, through which its channels are followed: at first, and after each removal.

    Args:
        model: the network.
        run: calls it.
        customized: as for `labels.trace.trace`.

    Attributes:
        united_at_first: pairs of classes that are united when the whole network is followed again.
    """

    def __init__(self, model: nn.Module, run: Callable[[Any], Any], customized: Mapping[nn.Module, bool]):
        self._model, self._run, self._customized = model, run, customized
        self.united_at_first: set[tuple[int, int]] = set()

    def of(self, model: nn.Module, customized: Mapping[nn.Module, bool]) -> ForwardPass:
        """The same for a copy of the network."""
        copied = ForwardPass(model, self._run, customized)
        copied.united_at_first = self.united_at_first
        return copied

    def first(self, frozen: Mapping[str, str]) -> tuple[Channels, Traced]:
        """Follow the channels of the whole network.

        Args:
            frozen: names of parameters that must not be changed, with the reasons.

        Returns:
            The channels, and what else the forward pass has shown.
        """
        traced = self._traced(frozen)
        channels = Channels(traced)
        stuck = [labels for labels in traced.choices if bool((traced.classes.of(labels) == FROZEN).all())]
        held = set(torch.cat(stuck).tolist()) - {FROZEN} if stuck else set()
        if held:  # where single positions cannot be removed, whole blocks of them may, such as heads
            by_blocks = Channels(self._traced(frozen, held))
            if by_blocks.frozen() < channels.frozen():
                channels = by_blocks
        channels.depthwise = {name for name, module in self._model.named_modules() if reads_one_channel(module)}
        return channels, traced

    def _traced(self, frozen: Mapping[str, str], held: Collection[int] = ()) -> Traced:
        traced = trace(self._model, self._call, customized=self._customized, frozen=frozen, held=held)
        settle_factors(traced, self._model, self._call, owners_of(self._model)[0])
        return traced

    def _call(self) -> Any:
        return self._run(self._model)

    def again(self, channels: Channels) -> Traced:
        """Follow the channels through the network as it is now, with the labels that are left."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trace(self._model, self._call, known=channels.known(), customized=self._customized)

    def with_other_weights(self, channels: Channels) -> Traced:
        """Follow the channels through the network with all parameters changed at random by a tenth."""
        generator = torch.Generator().manual_seed(0)
        with restoring_values(self._model.parameters()), torch.no_grad():
            for parameter in self._model.parameters():
                if parameter.is_floating_point():
                    parameter.mul_(0.9 + 0.2 * torch.rand(parameter.shape, generator=generator).to(parameter))
            return self.again(channels)

    def united(self, channels: Channels, again: Traced) -> set[int]:
        """The classes that were united when the channels were followed again, but not in the whole network."""
        unseen = channels.singles()
        pairs = again.classes.joined - self.united_at_first
        return {label for pair in pairs if not unseen & set(pair) for label in pair} - {FROZEN}

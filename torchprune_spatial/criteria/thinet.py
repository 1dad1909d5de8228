"""ThiNet: keep the channels from which the outputs of the next layer are best reconstructed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
from torch_pruning.dependency import Group

from resolution_scaling.ground.arguments import whole_number

from ..calibration.batches import Forward
from ..calibration.measurements import Measurement
from ..calibration.statistics import Calibration
from ..graph.groups import Member
from ..graph.layers import mixes_channels
from ..graph.private_names import graph_of
from .base import CalibratedImportance
from .contributions import Contributions
from .folding import fold_factors
from .grams import GramsOfGroups, grams_of_readers
from .ranking import places
from .registry import register_criterion

FORMS = ("tpami", "iccv")


def iccv_order(gram: torch.Tensor) -> torch.Tensor:
    """Channels in the order of greedy removal: ``[channels]``, first removed first.

    ThiNet (ICCV 2017), algorithm 1: add to the set T of removed channels the one that minimises
    ``|| sum_{j in T} x_j ||^2``.
    """
    energy, cross = gram.diag().clone(), torch.zeros(len(gram), dtype=gram.dtype)
    order: list[int] = []
    for _ in range(len(gram)):
        cost = energy + 2 * cross
        cost[order] = torch.inf
        order.append(int(cost.argmin()))
        cross += gram[order[-1]]
    return torch.tensor(order)


def tpami_order(gram: torch.Tensor) -> torch.Tensor:
    """Channels in the order of selection by orthogonal matching pursuit: ``[channels]``, first selected first.

    As in the authors' code of the TPAMI version, each step selects the channel that best explains the residual of
    ``y = sum_j x_j``, and then fits the weights of all selected channels again.
    """
    energy, residual = gram.diag(), gram.sum(1)  # residual[j] = x_j' (y - X_S w)
    basis = torch.zeros_like(gram)  # rows: x_j' q of the orthonormal directions of the selected channels
    order: list[int] = []
    for step in range(len(gram)):
        gain = torch.where(energy > 0, residual.square() / energy.clamp_min(1e-300), -1.0)
        gain[order] = -2.0
        chosen = int(gain.argmax())
        order.append(chosen)
        direction = gram[chosen] - basis[:step, chosen] @ basis[:step]
        if direction[chosen] > 1e-6 * energy[chosen]:  # else it is a linear combination of the selected channels
            basis[step] = direction / direction[chosen].sqrt()
            residual = residual - basis[step] * (residual[chosen] / direction[chosen].sqrt())
    return torch.tensor(order)


def rescaling(gram: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Least-squares factors with which the kept channels best reconstruct the sum of all channels, ``[len(kept)]``."""
    normal, target = gram[kept][:, kept], gram[kept].sum(1)
    return torch.linalg.lstsq(normal, target.unsqueeze(1), driver="gelsd").solution.squeeze(1)


def gram_of_group(gram: torch.Tensor, member: Member, channels: int) -> torch.Tensor:
    """Compute the Gram matrix of a group's channels from that of a layer's channels.

    If several channels of the layer belong to one channel of the group, their entries are added.

    Args:
        gram: the matrix of all channels that the layer reads.
        member: the layer, and which of its channels belong to which channel of the group.
        channels: the number of channels of the group.

    Returns:
        ``[channels, channels]``.
    """
    gram = gram[member.channels][:, member.channels]
    rows = gram.new_zeros(channels, len(gram)).index_add_(0, member.positions, gram)
    return gram.new_zeros(channels, channels).index_add_(1, member.positions, rows)


@register_criterion
class ThiNetImportance(CalibratedImportance):
    """Keep the channels from which the next layer's outputs are best reconstructed.

    Luo, Wu, Lin, "ThiNet: a filter level pruning method for deep neural network compression", ICCV 2017, and Luo,
    Zhang, Zhou, Xie, Wu, Lin, "ThiNet: pruning CNN filters for a thinner net", IEEE TPAMI 41(10), 2019. Outputs of
    the next layer are sampled and split into the contributions of its input channels, ``y = sum_j x_j``. Then

    - ``form="iccv"`` removes, one after the other, the channel that keeps ``|| sum of the removed x_j ||^2`` smallest;
    - ``form="tpami"`` selects, one after the other, the channel that best explains the rest, and fits the weights of
      all the selected ones anew (orthogonal matching pursuit, as in the authors' code).

    Both give one order for all numbers of kept channels. The score is a channel's place in it, from 0 to 1, so that
    global pruning removes the same fraction of every layer. Differences from the papers: the next layers are those that
    read the channels, whatever operations lie between, and if there are several, their errors are added, each relative
    to the energy of its contributions; the network is scored once, instead of layer by layer with retraining in
    between. Layers that do not mix channels (depthwise convolutions) are used only if no other layer reads the
    channels; the channels of highest energy are then kept.

    Args:
        loader: calibration batches whose first item is the input, or inputs alone, or a `Calibration` that several
            criteria share.
        form: ``"tpami"`` (the version that the spatial-mask paper cites) or ``"iccv"``.
        locations: number of sampled outputs per image and layer (10 in the authors' code).
        seed: seeds the sampling.
        forward: see `SpatialMaskImportance`.
    """

    name: ClassVar[str] = "thinet"

    def __init__(
        self,
        loader: Iterable[Any] | Calibration,
        form: str = "tpami",
        *,
        locations: int = 10,
        seed: int = 0,
        forward: Forward | None = None,
    ):
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; expected one of {', '.join(map(repr, FORMS))}")
        self.form = form
        self.measurement = Contributions(whole_number(locations, "locations", unit="samples per image"), seed)
        self._grams = GramsOfGroups()
        super().__init__(loader, forward=forward)

    def measurements(self) -> list[Measurement]:
        """The Gram matrices of the contributions."""
        return [self.measurement]

    def score(self, group: Group) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Places in the order of selection."""
        values, channels = self.statistics(graph_of(group)).values[self.measurement], len(group[0].idxs)
        grams = grams_of_readers(
            group, values, lambda member: gram_of_group(values[member.layer].matrix(), member, channels)
        )
        if not grams:
            return None
        self._grams.keep(group, grams)
        total = cast(torch.Tensor, sum(gram / gram.trace().clamp_min(1e-300) for gram in grams.values()))
        scores = places(iccv_order(total).flip(0) if self.form == "iccv" else tpami_order(total))
        return scores, scores

    def fold(self, group: Group) -> None:
        """Rescale the weights of the next layers so that they make up for channels that are about to be removed.

        This is the last step of both versions of ThiNet: least squares give one factor ``w_j`` per kept channel in
        ``y = sum_j w_j x_j``, and the weights of each layer that reads the channel are multiplied by it. Layers that do
        not mix channels are not changed. `prune_to` folds by itself. With a pruner of your own, call this before the
        group is pruned, in the same step that scored it.

        Args:
            group: channels to be removed, as the pruner yields them.

        Raises:
            ValueError: the group was not scored by this importance.

        Example:
            >>> for group in pruner.step(interactive=True):
            ...     importance.fold(group)
            ...     group.prune()
        """
        for member, gram in self._grams.readers(group):
            if mixes_channels(member.layer):
                kept = torch.tensor(sorted(set(range(len(gram))).difference(group[0].idxs)), dtype=torch.long)
                factors = torch.ones(len(gram), dtype=torch.float64)
                factors[kept] = rescaling(gram, kept)
                fold_factors(member.layer, member.channels, factors[member.positions])

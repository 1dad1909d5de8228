"""What happens when coordinates are removed: by zeros, by masks, and by taking slices out of the parameters."""

from __future__ import annotations

import copy
from collections import Counter
from random import Random

import torch
from torch import nn

from .labels import Coordinate, Labelled, coordinates
from .network import Network, mask_of
from .operations.attention import AttentionLayer
from .operations.convolutions import Convolution
from .operations.elementwise import Activation


class Reference:
    """The classes of coordinates of a network.

    Attributes:
        classes: those that can be removed, without ``not_compared``.
        frozen: coordinates that cannot be removed.
        joined: as ``classes``, where blocks that must lose as many channels are united, the last channels with each
            other: each of these can be removed alone.
        widest: as ``classes``, where all channels of such blocks are united: no wider sets are allowed.
        components: as ``widest``, with those that hold frozen coordinates.
        not_compared: parameters and dimensions whose coordinates are shared by several blocks.
    """

    def __init__(self, net: Network):
        self.net = net
        self.follower, self.values = net.follow()
        self.coordinates = coordinates(net)
        follower = self.follower
        self.not_compared = {coordinate[:2] for coordinate in follower.not_compared}
        everything, _ = self._split([])
        self.classes = [c for c in map(self.compared, everything) if c]
        self.frozen = self.compared(self.coordinates - set().union(*everything))
        self.joined, _ = self._split(follower.aligned)
        self.widest, stuck = self._split([*follower.aligned, *follower.counted])
        self.components = self.widest + stuck

    def _split(self, united) -> tuple[list[set[Coordinate]], list[set[Coordinate]]]:
        classes = self.follower.classes(united)
        met = set().union(*classes)
        classes += [{coordinate} for coordinate in sorted(self.coordinates - met)]
        stuck = self.follower.frozen | self.follower.markers
        return [c for c in classes if not c & stuck], [c for c in classes if c & stuck]

    def compared(self, labels: set[Coordinate]) -> set[Coordinate]:
        return {coordinate for coordinate in labels if coordinate[:2] not in self.not_compared}

    def closure(self, removed: set[Coordinate]) -> set[Coordinate]:
        """What must be removed with these coordinates, numbers of channels aside."""
        return removed.union(*(labels for labels in self.follower.classes() if labels & removed))

    def choice(self, random: Random, share: float = 0.4) -> set[Coordinate]:
        """Some of the joined classes: no dimension of a parameter is emptied."""
        removed: set[Coordinate] = set()
        for labels in self.joined:
            if random.random() < share and self.leaves_some(removed | labels):
                removed |= labels
        return removed

    def leaves_some(self, removed: set[Coordinate], least: int = 1) -> bool:
        """Whether as many indices are left in each dimension of a parameter from which some are removed."""
        left = Counter(coordinate[:2] for coordinate in self.coordinates - removed)
        return all(left[(name, dimension)] >= least for name, dimension, _ in removed & self.coordinates)

    def masks(self, removed: set[Coordinate]) -> dict[str, torch.Tensor]:
        return {name: mask_of(labels, removed) for name, labels in self.values.items()}


def zeroed(net: Network, removed: set[Coordinate]) -> Network:
    """A copy in which the removed coordinates are zero."""
    net = copy.deepcopy(net)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for name, dimension, index in removed:
            if name in parameters:
                parameters[name].select(dimension, index).zero_()
    return net


def zeros_suffice(net: Network) -> bool:
    """Whether zeros in the parameters have the effect of removal: no operation tells zeros from nothing."""
    operations = [step.operation for step in net.steps]
    grouped = any(isinstance(o, Convolution) and 1 < o.groups < o.inputs for o in operations)
    sigmoid = any(isinstance(o, Activation) and o.kind == "sigmoid" for o in operations)
    return not any(o.sees_removed for o in operations) and not (grouped and sigmoid)


def sliced(net: Network, removed: set[Coordinate]) -> Network:
    """A copy without the removed coordinates: slices are taken out of all parameters and buffers."""
    net = copy.deepcopy(net)
    new: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in net.named_parameters():
        new[parameter] = nn.Parameter(without(parameter.detach(), name, removed))
    for path, module in reversed(list(net.named_modules())):  # layers before those that they are part of
        before = {name: parameter for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)}
        for name, parameter in before.items():
            setattr(module, name, new[parameter])
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dim() == 1:
                setattr(module, name, without(buffer, f"{path}.weight", removed))
        if before or isinstance(module, AttentionLayer):
            _set_sizes(module, before["weight"].shape if "weight" in before else ())
    return net


def without(tensor: torch.Tensor, name: str, removed: set[Coordinate]) -> torch.Tensor:
    for dimension in range(tensor.dim()):
        kept = [i for i in range(tensor.shape[dimension]) if (name, dimension, i) not in removed]
        if len(kept) < tensor.shape[dimension]:
            tensor = tensor.index_select(dimension, torch.tensor(kept, dtype=torch.long))
    return tensor


def _set_sizes(module: nn.Module, before: tuple[int, ...]) -> None:
    """Attributes with which layers are called, or check their inputs."""
    if isinstance(module, nn.modules.conv._ConvNd):
        written, read = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels:
            module.groups = written if module.transposed else written * module.groups // before[0]
        if module.transposed:
            written, read = read * module.groups, written
        else:
            read *= module.groups
        module.out_channels, module.in_channels = written, read
    elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
        module.num_features = module.weight.shape[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, AttentionLayer):
        module.head_dim = module.proj.in_features // module.heads
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape


def is_rectangular(values: dict[str, Labelled], classes: list[set[Coordinate]], frozen: set[Coordinate]) -> bool:
    """Whether all elements at one index of a dimension are in the same classes along it, frozen ones aside."""
    number = {coordinate: i for i, labels in enumerate(classes) for coordinate in labels}
    for labels in values.values():
        seen: dict[tuple[int, int], set[int]] = {}
        for index, sets in labels.at.items():
            for dimension, (i, along) in enumerate(zip(index, sets, strict=True)):
                found = {
                    number[coordinate] for coordinate in along if coordinate in number and coordinate not in frozen
                }
                if seen.setdefault((dimension, i), found) != found:
                    return False
    return True

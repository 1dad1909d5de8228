"""``python -m tests.conformance.same_groups --match resnet18``: the groups of both graphs, channel by channel."""

from __future__ import annotations

import argparse
import collections
import warnings
from collections.abc import Iterator

import torch_pruning as tp
from torch import nn

from torchprune_spatial import ChannelGraph

from .networks import NETWORKS

Coordinate = tuple[str, int, int]


def coordinates_of(group: tp.dependency.Group, names: dict[object, str]) -> set[Coordinate]:
    """What a group of Torch-Pruning removes, as (parameter, dimension, index)."""
    found: set[Coordinate] = set()
    for dep, idxs in group:
        layer, handler = dep.target.module, dep.handler
        name = names.get(layer)
        if name is None or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):  # of all channels: it stays
            continue
        if isinstance(layer, nn.Parameter):
            dim = dep.target.pruning_dim % layer.dim()
            found |= {(name, dim, i) for i in idxs}
            continue
        inputs = handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
        dim = int(isinstance(layer, nn.Embedding) or inputs != bool(getattr(layer, "transposed", False)))
        for attribute, parameter in layer.named_parameters(recurse=False):
            if attribute == "weight":
                found |= {(f"{name}.weight", dim if parameter.dim() > 1 else 0, i) for i in idxs}
            elif not inputs:
                found |= {(f"{name}.{attribute}", 0, i) for i in idxs}
    return found


def differences(model: nn.Module, inputs: object) -> Iterator[tuple[str, set[Coordinate], set[Coordinate]]]:
    """Yield channels of which the two graphs remove different things: a name, ours only, theirs only.

    Channels that a `ChannelGraph` leaves alone are passed over, as are the inputs of convolutions with groups, of which
    Torch-Pruning does not say which group loses what.
    """
    ours, theirs = ChannelGraph(), tp.DependencyGraph()
    ours.build_dependency(model, inputs)
    theirs.build_dependency(model, inputs)
    names: dict[object, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    class_of = {place: members for members in ours.classes() for place in members}
    grouped = {f"{name}.weight" for name, m in model.named_modules() if getattr(m, "groups", 1) > 1}
    for name, layer in model.named_modules():
        if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) or layer not in theirs.module2node:
            continue
        handler = theirs.get_pruner_of_module(layer).prune_out_channels
        count = theirs.get_out_channels(layer)
        dim = int(bool(getattr(layer, "transposed", False)))
        for i in sorted({0, count // 3, count - 1}):
            members = class_of.get((f"{name}.weight", dim, i))
            if members is None:
                continue
            removed = coordinates_of(theirs.get_pruning_group(layer, handler, [i]), names)
            removed = {place for place in removed if place[0] not in grouped or place[1] == 0}
            members = {place for place in members if place[0] not in grouped or place[1] == 0}
            if members != removed:
                yield f"{name}[{i}]", members - removed, removed - members


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.same_groups", description=__doc__)
    parser.add_argument("--match", default="", help="only networks whose name holds this")
    parser.add_argument("--show", type=int, default=2, help="differences to print for each network")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name, network in NETWORKS.items():
        if arguments.match not in name:
            continue
        try:
            found = list(differences(network.build(), network.inputs()))
        except Exception as error:  # of Torch-Pruning's graph, for the most part
            print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:120]}", flush=True)
            continue
        print(f"{name}: {len(found)} channels differ" if found else f"{name}: the same", flush=True)
        for channel, ours, theirs in found[: arguments.show]:
            for side, places in (("ours", ours), ("theirs", theirs)):
                by_axis = collections.Counter((parameter, dim) for parameter, dim, _ in places)
                print(f"    {channel}, {side} only: {dict(by_axis.most_common(4))}", flush=True)


if __name__ == "__main__":
    main()

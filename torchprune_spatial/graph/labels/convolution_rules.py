"""The rules of convolutions."""

from __future__ import annotations

import torch

from .classes import varying
from .following import OF_TRACKS, Following
from .rules import Call, register_rule


@register_rule("convolution", "_convolution")
def convolution(following: Following, call: Call) -> None:
    """A convolution, transposed or not, with any number of groups; the weights may be computed."""
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    classes, out = following.classes, call.output
    channels, of_group = x.shape[1], x.shape[1] // groups
    reading, making = [], []
    for track in following.get(weight):
        if any(dim > 1 for dim in varying(track)):
            following.freeze(track, "it is an index of a kernel")
            continue
        grid = track.reshape(track.shape[:2]).expand(weight.shape[:2])
        grid = (
            grid.reshape(groups, of_group, -1).transpose(1, 2)
            if transposed
            else grid.reshape(groups, -1, weight.shape[1])
        )  # [groups, outputs of a group, inputs of a group]
        if of_group > 1 and not torch.equal(grid, grid[:, :, :1].expand_as(grid)):
            reading.append(classes.unite_along(grid, 1).squeeze(1))
        else:
            making.append(grid[:, :, 0])
    following.made += making
    inputs, passing = [], []
    for track in following.get(x):
        if _pass(track, call):
            passing.append(track)
            continue
        for dim in range(track.dim()):
            track = track if dim == 1 else classes.unite_along(track, dim)
        if track.shape[1] == 1:
            following.freeze(track, "it is a position in space")
        else:
            inputs.append(track.reshape(groups, of_group))
    if of_group > 1:
        following.unite_sides(inputs, reading)
        for blocks in (*inputs, *making) if groups > 1 else ():
            following.equal(classes.of(blocks))
    elif groups > 1:  # each group reads one channel, and disappears with it
        shared = [labels for labels in making if bool((labels == labels[:1]).all())]
        for labels in shared:
            following.freeze(labels, "all groups have the same filters")
        making = [labels for labels in making if not any(labels is other for other in shared)]
        if not making and inputs:
            making = [inputs[0].expand(groups, out.shape[1] // groups)]
        following.unite_sides([inputs[0]] if inputs else [], making)
    elif channels == 1:
        for track in inputs:
            following.freeze(track, "it is the only channel")
    tracks = [classes.of(track.reshape(1, -1, *[1] * (out.dim() - 2))) for track in making if out.shape[1] > 1]
    tracks += passing
    if bias is not None:
        column = (-1, *[1] * (out.dim() - 2))
        tracks = following.combine(
            out, tracks, bias.reshape(column), [t.reshape(column) for t in following.get(bias)], out.shape
        )
    following.set(out, tracks, OF_TRACKS)


def _pass(track: torch.Tensor, call: Call) -> bool:
    """Whether the labels of a convolution's input lie along the batch, and along what it looks at point by point."""
    weight, _, stride, padding = call.args[1:5]
    dims = varying(track)
    return 1 not in dims and all(
        dim == 0 or (weight.shape[dim] == 1 and stride is not None and stride[dim - 2] == 1 and padding[dim - 2] == 0)
        for dim in dims
    )


@register_rule("torchvision::deform_conv2d")
def deformable_convolution(following: Following, call: Call) -> None:
    """A convolution at positions that are computed: the channels of these are kernel positions, and stay."""
    x, weight, *positions, bias = call.args[:5]
    groups, of_positions = call.args[11:13]
    for tensor in positions:
        for track in following.get(tensor):
            following.freeze(track, "it is a position of a kernel")
    for track in following.get(x):
        if track.shape[1] > 1:
            following.equal(track.movedim(1, -1).reshape(-1, track.shape[1])[0].reshape(of_positions, -1))
    args = (x, weight, bias, None, None, None, False, None, groups)
    convolution(following, Call(call.name, args, {}, call.result, call.function))

"""The rules of operations that move, join, reduce or resample."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from .classes import FROZEN, compressed, varying
from .following import Following, Tracks, on_cpu, tensors_in
from .rules import Call, register_rule

PICKED = "it is picked out by its position"


@register_rule(
    *("roll", "flip", "repeat", "pixel_unshuffle", "rot90", "diagonal_copy", "unfold_copy", "view_copy"),
    *("repeat_interleave", "channel_shuffle", "native_channel_shuffle", "expand_copy", "permute_copy", "_reshape_copy"),
)
def move(following: Following, call: Call) -> None:
    """Labels move as the elements do."""
    x, *rest = call.args
    rest = on_cpu(rest)
    makers = following.storages.linear_in(x)
    tracks = [following.moved(t, x, lambda w: call.function(w, *rest, **call.kwargs)) for t in following.get(x)]
    following.set(call.output, tracks, makers)


@register_rule("pixel_shuffle")
def pixel_shuffle(following: Following, call: Call) -> None:
    """The channels that make one channel of the result go together."""
    x, factor = call.args[:2]
    tracks = []
    for track in following.get(x):
        left = following.collapse(track, (x.dim() - 1, x.dim() - 2), PICKED)
        if left is not None:
            channels = left.expand(*left.shape[:-3], x.shape[-3], 1, 1)
            grid = channels.reshape(*left.shape[:-3], -1, factor * factor, 1)
            tracks.append(following.classes.unite_along(grid, grid.dim() - 2))
    following.set(call.output, tracks)


@register_rule("im2col")
def unfold(following: Following, call: Call) -> None:
    """Patches of an image: each channel appears at all positions of the kernel."""
    x, kernel = call.args[:2]
    tracks = []
    for track in following.get(x):
        left = following.collapse(track, (x.dim() - 1, x.dim() - 2), PICKED)
        if left is not None:
            tracks.append(left.squeeze(-1).repeat_interleave(math.prod(kernel), -2))
    following.set(call.output, tracks)


@register_rule("col2im")
def fold(following: Following, call: Call) -> None:
    """Patches added up to an image: the positions of a kernel go together."""
    x, _, kernel = call.args[:3]
    tracks = []
    for track in following.get(x):
        left = following.collapse(track, (x.dim() - 1,), PICKED)
        if left is not None:
            grid = left.expand(*left.shape[:-2], x.shape[-2], 1).reshape(*left.shape[:-2], -1, math.prod(kernel), 1)
            tracks.append(following.classes.unite_along(grid, grid.dim() - 2))
    following.set(call.output, tracks)


@register_rule("index", "index_select", "gather", "take_along_dim", "select_scatter", "slice_scatter")
def pick(following: Following, call: Call) -> None:
    """Labels move as the elements do; positions among labels are fixed."""
    x, *rest = call.args
    if call.name == "index":
        dims = {dim for dim, index in enumerate(rest[0]) if index is not None}
        if any(index is not None and index.dtype == torch.bool for index in rest[0]):
            dims = set(range(x.dim()))
    elif call.name in ("select_scatter", "slice_scatter"):
        for track in following.elementwise(call.inputs[:1], x.shape) + following.get(rest[0]):
            following.freeze(track, "it is written to a position")
        following.set(call.output, [])
        return
    else:
        dims = {rest[0] % x.dim()}
    tracks: Tracks = []
    for track in following.get(x):
        if varying(track) & dims:
            following.freeze(track, PICKED)
        else:
            tracks.append(following.moved(track, x, lambda whole: call.function(whole, *on_cpu(rest), **call.kwargs)))
    following.set(call.output, tracks)


@register_rule("index_put", "_index_put_impl", "_unsafe_index_put")
def write(following: Following, call: Call) -> None:
    """Values are written to positions, which stay: along the other dimensions they are combined with the target."""
    x, indices, values = call.args[:3]
    masks = [index is not None and index.dtype == torch.bool for index in indices]
    if masks == [True] and indices[0].shape == x.shape and values.numel() == 1:
        following.set(call.result, following.elementwise([x, indices[0]], x.shape))
        return
    written = sum(index.dim() if mask else 1 for index, mask in zip(indices, masks, strict=True))
    whole = written - sum(index is None for index in indices)
    lead = max(0, values.dim() - (x.dim() - written))
    for tensor, dims in ((x, written), (values, lead)):
        for track in following.get(tensor):
            if whole < written or varying(track) & set(range(dims)):
                following.freeze(track, "it is written to a position")
    for index in tensors_in(indices):
        for track in following.get(index):
            following.freeze(track, PICKED)
    ones = [1] * (x.dim() - values.dim() + lead)
    sources = [track.reshape([*ones, *track.shape[lead:]]) for track in following.get(values)]
    rows = values.reshape([math.prod(values.shape[:lead]), *ones[1:], *values.shape[lead:]])
    left = x.index_put(indices, x.new_zeros(()))  # of the target
    following.set(call.result, following.combine(left, following.get(x), rows, sources, x.shape))


@register_rule("cat", "stack")
def join(following: Following, call: Call) -> None:
    """Labels stand beside each other as the elements do; along the other dimensions they are united."""
    dim = (call.args[1] if len(call.args) > 1 else 0) % call.output.dim()
    parts = [tensor for tensor in call.args[0] if tensor.numel()]
    tracks_of = [following.get(tensor) for tensor in parts]
    if call.name == "stack":
        parts = [tensor.unsqueeze(dim) for tensor in parts]
        tracks_of = [[track.unsqueeze(dim) for track in tracks] for tracks in tracks_of]
    following.set(call.output, join_tracks(following, parts, tracks_of, dim))
    if call.name == "stack":
        for track in following.get(call.output):
            inner = [d for d in varying(track) if d != dim]
            if track.shape[dim] > 1 and inner:
                following.equal(track.movedim((dim, inner[-1]), (0, -1)).flatten(0, -2))


def join_tracks(
    following: Following, parts: list[torch.Tensor], tracks_of: list[Tracks], dim: int
) -> list[torch.Tensor]:
    """The tracks of tensors that are concatenated along a dimension."""
    joined = []
    for across in sorted({frozenset(varying(t) - {dim}) for tracks in tracks_of for t in tracks}, key=sorted):
        of_kind = [[t for t in tracks if varying(t) - {dim} == across] for tracks in tracks_of]
        for k in range(max(map(len, of_kind))):
            chosen = [tracks[k] if len(tracks) > k else None for tracks in of_kind]
            joined.append(_join_kind(following, parts, chosen, dim, across))
    return joined


def _join_kind(
    following: Following, parts: list[torch.Tensor], tracks: list[torch.Tensor | None], dim: int, across: frozenset[int]
) -> torch.Tensor:
    """One track of a concatenation, from tracks that vary along the same other dimensions."""
    known = [track for track in tracks if track is not None]
    if across and all(track is not None and track.shape[dim] > 1 for track in tracks):
        shape = [max(track.shape[d] for track in known) for d in range(parts[0].dim())]
        rows = [t.movedim(max(across), -1).reshape(-1, t.shape[max(across)]) for t in known]
        if len({row.shape[1] for row in rows}) == 1:
            following.equal(following.classes.of(torch.cat(rows)))
        sizes = [[t.shape[d] if d == dim else shape[d] for d in range(t.dim())] for t in known]
        return compressed(
            torch.cat([following.classes.of(t).expand(size) for t, size in zip(known, sizes, strict=True)], dim)
        )
    if across:  # the other dimensions of all parts shrink alike
        lines = [following.classes.unite_along(track, dim) for track in known]
        for line in lines[1:]:
            following.classes.unite(lines[0], line)
        for tensor, track in zip(parts, tracks, strict=True):
            if track is None and not all(following.adapts(tensor, d) for d in across):
                following.freeze(lines[0], "it is concatenated with values that cannot lose a channel")
        return following.classes.of(lines[0])
    pieces = []
    for tensor, track in zip(parts, tracks, strict=True):
        size = [tensor.shape[d] if d == dim else 1 for d in range(tensor.dim())]
        if track is not None:
            piece = following.classes.of(track)
        elif following.adapts(tensor, dim) and _constant(tensor):  # a filler can have any number of channels
            piece = following.classes.new(tensor.shape[dim]).reshape(size)
        else:
            piece = torch.tensor(FROZEN)
        pieces.append(piece.expand(size))
    return compressed(torch.cat(pieces, dim))


def _constant(tensor: torch.Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all())


@register_rule(
    *("sum", "mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "prod", "logsumexp", "any", "all", "nansum"),
    *("max", "min", "linalg_vector_norm", "norm", "median", "count_nonzero"),
)
def reduce(following: Following, call: Call) -> None:
    """Labels along the reduced dimensions are dropped; those that vary along others too are united."""
    if len(call.inputs) > 1:  # max and min of two tensors
        following.set(call.result, following.elementwise(call.inputs, call.output.shape))
        return
    x = call.inputs[0]
    dims = reduced_dims(call, x)
    keeps = call.output.dim() == x.dim()
    tracks = []
    for track in following.get(x):
        if varying(track) & dims and call.name not in ("sum", "nansum"):
            following.averages.add(call.name)
        left = following.collapse(track, dims)
        if left is not None:
            kept = [size for dim, size in enumerate(left.shape) if dim not in dims]
            tracks.append(left if keeps else left.reshape(kept))
    following.set(call.result, tracks)
    reduced = [track.flatten() for track in following.get(x) if varying(track) & dims]
    if reduced and call.name in ("sum", "nansum"):
        following.storages.mark(call.output)
    if reduced and call.name in ("max", "min", "median") and len(tensors_in(call.result)) == 2:
        following.storages.mark(call.result[1], positions=torch.cat(reduced))


def reduced_dims(call: Call, x: torch.Tensor) -> set[int]:
    """The dimensions of its input that a reduction reduces."""
    position = 2 if call.name in ("linalg_vector_norm", "norm") else 1
    given: Any = call.args[position] if len(call.args) > position else call.kwargs.get("dim")
    if isinstance(given, bool) or given is None or given == []:
        return set(range(x.dim()))
    return {dim % max(1, x.dim()) for dim in ([given] if isinstance(given, int) else given)}


@register_rule("topk", "sort", "argmax", "argmin", "argsort", "kthvalue")
def order(following: Following, call: Call) -> None:
    """Channels that are compared with each other stay."""
    x = call.inputs[0]
    position = 2 if call.name in ("topk", "kthvalue") else 1
    dim = call.args[position] if len(call.args) > position else -1
    tracks = []
    for track in following.get(x):
        if dim is None or isinstance(dim, bool) or track.shape[dim] > 1:
            following.freeze(track, "it is ordered among others by value")
        elif call.output.dim() == x.dim():
            tracks.append(track)
        else:
            tracks.append(track.squeeze(dim))
    following.set(call.result, tracks)


@register_rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
               "replication_pad2d", "replication_pad3d")  # fmt: skip
def pad(following: Following, call: Call) -> None:
    """Padding: where it adds channels, these cannot be removed."""
    x, padding = call.args[:2]
    padded = {x.dim() - 1 - i // 2 for i, size in enumerate(padding) if size}
    tracks = []
    for track in following.get(x):
        if varying(track) & padded and call.name == "constant_pad_nd":
            inner = [size if track.shape[x.dim() - 1 - i // 2] > 1 else 0 for i, size in enumerate(padding)]
            tracks.append(compressed(torch.nn.functional.pad(track, inner, value=FROZEN)))
        else:
            left = following.collapse(track, padded, PICKED)
            tracks += [] if left is None else [left]
    following.set(call.output, tracks)


def resample(following: Following, call: Call) -> None:
    """Pooling, upsampling and transforms in space: labels along other dimensions pass on."""
    x, out = call.inputs[0], call.output
    if call.name.startswith(("_fft", "fft")):
        dims = {dim % x.dim() for dim in call.args[1]}
    else:
        dims = set(range(2, x.dim())) if x.dim() > 2 else set(range(1, x.dim()))
        if spatial := re.search(r"(\d)d", call.name):  # of an unbatched input, the channels can be among these
            dims |= set(range(max(0, x.dim() - int(spatial[1])), x.dim()))
        dims |= {dim for dim in range(x.dim()) if out.dim() == x.dim() and out.shape[dim] != x.shape[dim]}
    tracks = [following.collapse(track, dims, PICKED) for track in following.get(x)]
    for tensor in call.inputs[1:]:
        for track in following.get(tensor):
            following.freeze(track, PICKED)
    following.set(
        [tensor for tensor in tensors_in(call.result) if tensor.dim() == x.dim()], [t for t in tracks if t is not None]
    )


for _names in (
    ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool"),
    ("upsample_nearest", "_upsample_nearest_exact", "upsample_linear", "upsample_bilinear", "upsample_bicubic"),
    ("_upsample_bilinear", "_upsample_bicubic", "upsample_trilinear", "grid_sampler"),
):
    for _name in _names:
        for _dims in ("1d", "2d", "3d"):
            for _ending in ("", "_aa", "_with_indices"):
                register_rule(f"{_name}{_dims}{_ending}", f"{_name}_{_dims}{_ending}", f"_{_name}{_dims}")(resample)
register_rule("_fft_r2c", "_fft_c2r", "_fft_c2c", "mkldnn_max_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")(
    resample
)


@register_rule("torchvision::roi_align", "torchvision::roi_pool")
def regions(following: Following, call: Call) -> None:
    """Parts of images at positions that are computed: these stay, the channels pass on."""
    x, positions = call.inputs[:2]
    for track in following.get(positions):
        following.freeze(track, PICKED)
    tracks = [following.collapse(track, (0, 2, 3), PICKED) for track in following.get(x)]
    following.set(tensors_in(call.result)[:1], [track for track in tracks if track is not None])


@register_rule("view_as_real", "view_as_complex")
def complex_view(following: Following, call: Call) -> None:
    """Complex numbers as pairs: the pairs have the labels of the numbers."""
    x = call.inputs[0]
    if call.name == "view_as_real":
        tracks = [track.unsqueeze(-1) for track in following.get(x)]
    else:
        left = (following.collapse(track, (x.dim() - 1,), PICKED) for track in following.get(x))
        tracks = [track.squeeze(-1) for track in left if track is not None]
    following.set(call.output, tracks)

"""Image transforms for training and evaluating classifiers, by their sizes; needs torchvision.

Reduced crop (RC; Morlier et al., GRETSI 2025, section 3.3) lowers the resolution of a CNN by these alone. The network
is not changed: it is trained on smaller crops (``K_train`` of 64, 128, 160, 176 px in section 4.1) and evaluated on
crops of ``K_eval`` px from images of ``K`` px. Objects look larger in random crops than in central crops, so the best
``K_eval`` is above ``K_train`` (Touvron et al. 2019, "Fixing the train-test resolution discrepancy");
`search_evaluation_size` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.transforms import InterpolationMode, v2

from ..ground.sizes import as_size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train_transform(
    K_train: int = 176,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    flip: float = 0.5,
    trivial_augment: bool = True,
    random_erasing: float = 0.1,
    interpolation: str = "bilinear",
) -> v2.Compose:
    """Resize random crops of random scale to ``K_train`` px, as torchvision's training does, which the paper uses.

    Args:
        K_train: side of the crop, px.
        scale: smallest and largest share of the image's area in a crop.
        mean, std: mean and standard deviation of each channel, for images in [0, 1], as many as the image has channels.
            Default: those of ImageNet, for 3 channels (by which a grey image becomes one of 3 channels).
        flip: probability of a horizontal flip.
        trivial_augment: whether to augment by `v2.TrivialAugmentWide`.
        random_erasing: probability of erasing a rectangle.
        interpolation: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``; antialiased.

    Returns:
        A transform from PIL images, or uint8 tensors ``[..., channels, height, width]``, to float tensors
        ``[..., channels, K_train, K_train]``.

    Raises:
        TypeError, ValueError: a size or the interpolation is not usable.
    """
    mode = _interpolation(interpolation)
    steps = [v2.RandomResizedCrop(_side(K_train, "K_train"), scale=scale, interpolation=mode, antialias=True)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if trivial_augment:
        steps.append(v2.TrivialAugmentWide(interpolation=mode))
    steps += _to_normalized(mean, std)
    if random_erasing:
        steps.append(v2.RandomErasing(random_erasing))
    return v2.Compose(steps)


def evaluation_transform(
    K_eval: int = 224,
    K: int | None = None,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> v2.Compose:
    """Resize the shorter side to ``K`` px, and crop the central ``K_eval`` px.

    Args:
        K_eval: side of the crop, px.
        K: shorter side of the resized image, px; at least ``K_eval``. Default: `matching_K`.
        mean, std, interpolation: as for `train_transform`.

    Returns:
        A transform from PIL images, or uint8 tensors ``[..., channels, height, width]``, to float tensors
        ``[..., channels, K_eval, K_eval]``.

    Raises:
        TypeError, ValueError: a size is not usable, or the crop is larger than the image.
    """
    K = _side(matching_K(K_eval) if K is None else K, "K")
    if _side(K_eval, "K_eval") > K:
        raise ValueError(f"K_eval is {K_eval} px, but it is cropped from images of K={K} px: use K >= K_eval")
    mode = _interpolation(interpolation)
    return v2.Compose([v2.Resize(K, mode, antialias=True), v2.CenterCrop(K_eval), *_to_normalized(mean, std)])


def matching_K(K_eval: int) -> int:
    """``K`` in the proportion of the paper's default, 232 px for a crop of 224; it is even, and at least ``K_eval``."""
    return max(_side(K_eval, "K_eval"), 2 * round(K_eval * 232 / 224 / 2))


def _to_normalized(mean: Sequence[float], std: Sequence[float]) -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std)), v2.ToPureTensor()]


def _interpolation(name: str) -> InterpolationMode:
    modes = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    modes["nearest"] = InterpolationMode.NEAREST_EXACT
    if name not in modes:
        raise ValueError(f"interpolation is {name!r}; expected one of {', '.join(modes)}")
    return modes[name]


def _side(value: int, name: str) -> int:
    """The side of a square crop."""
    height, width = as_size(value, name)
    if height != width:
        raise ValueError(f"{name} is {value}; expected one number, because crops are square")
    return height

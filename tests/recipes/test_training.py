import itertools

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from recipes import training
from recipes.training import Hardware, Training, train
from recipes.unet import ResUNet, digit_classifier


def data(count, seed):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True))


def fit(folder, epochs=6, validation=None, schedule="one_cycle"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    best = train(
        model,
        Training(epochs, 1e-2, batch_size=8, schedule=schedule),
        nn.functional.mse_loss,
        data(40, 1),
        validation or data(16, 2),
        folder=folder,
        description="test",
        hardware=Hardware("cpu"),
        seed=3,
    )
    return model, best


@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_a_killed_training_ends_with_the_same_weights(tmp_path, monkeypatch, schedule):
    (tmp_path / "whole").mkdir(), (tmp_path / "killed").mkdir()
    whole, _ = fit(tmp_path / "whole", schedule=schedule)

    save = training._save

    def save_and_die(accelerator, folder, progress, best_weights):
        save(accelerator, folder, progress, best_weights)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", schedule=schedule)
    monkeypatch.setattr(training, "_save", save)
    (tmp_path / "killed" / "partial").mkdir()  # what a kill while saving leaves
    epochs = []
    monkeypatch.setattr(training, "_mean_loss", lambda *args, f=training._mean_loss: epochs.append(1) or f(*args))
    resumed, _ = fit(tmp_path / "killed", schedule=schedule)
    assert len(epochs) == 4
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


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

"""The reader's own AutoCompress class, small; it knows nothing of NNI's generation."""

import torch
import torch.nn as nn

import torchprune_spatial.nni  # noqa: F401
from resolution_scaling.nni.autocompress import AbstractAutoCompressionModule


def images():
    """Dark and bright ones."""
    bright = torch.arange(8) % 2
    return torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(0)) + bright.view(-1, 1, 1, 1), bright


def train(model, optimizer, criterion, epoch):
    x, y = images()
    model.train()
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    optimizer.step()


def accuracy(model):
    x, y = images()
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


class MyModule(AbstractAutoCompressionModule):
    @classmethod
    def model(cls):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
        )

    @classmethod
    def evaluator(cls):
        return accuracy

    @classmethod
    def optimizer_factory(cls):
        return lambda parameters: torch.optim.SGD(parameters, lr=0.05)

    @classmethod
    def criterion(cls):
        return nn.CrossEntropyLoss()

    @classmethod
    def sparsifying_trainer(cls, compress_algorithm_name):
        return train

    @classmethod
    def post_compress_finetuning_trainer(cls, compress_algorithm_name):
        return train

    @classmethod
    def post_compress_finetuning_epochs(cls, compress_algorithm_name):
        return 1

    @classmethod
    def dummy_input(cls):
        return torch.rand(1, 3, 224, 224)

    @classmethod
    def calibration_loader(cls):
        x, _ = images()
        return [(x, x.mean(1, keepdim=True), x.mean(1) > 1)]

"""An AutoCompress class as a user writes it, in a file that trials import; it knows nothing of NNI's generation."""

import functools

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

from resolution_scaling.nni import Algorithm, register_algorithm
from resolution_scaling.nni.autocompress import AbstractAutoCompressionModule


class Network(nn.Module):
    """Three convolutions with batch norms on images of 16 px."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.conv3(x))
        return self.fc(torch.flatten(self.pool(x), 1))


@functools.cache
def data():
    """Noise that is dark, or bright."""
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.rand(64, 1, 16, 16, generator=generator), torch.arange(64) % 2
    images[targets == 1] += 1
    return TensorDataset(images, targets)


def train(model, optimizer, criterion, epoch):
    model.train()
    for images, targets in DataLoader(data(), 16):
        optimizer.zero_grad()
        criterion(model(images), targets).backward()
        optimizer.step()


def accuracy(model):
    model.eval()
    with torch.no_grad():
        return sum((model(x).argmax(1) == y).float().sum().item() for x, y in DataLoader(data(), 16)) / len(data())


def halve(model, config_list, module_class, *, share=0.5):
    """The algorithm of a user: fewer outputs of the last convolution."""
    kept = int(16 * share)
    narrow, fc = nn.Conv2d(16, kept, 3, padding=1), nn.Linear(kept, 2)
    narrow.weight.data, narrow.bias.data = model.conv3.weight.data[:kept], model.conv3.bias.data[:kept]
    fc.weight.data, fc.bias.data = model.fc.weight.data[:, :kept], model.fc.bias.data
    model.conv3, model.fc = narrow, fc
    return model


register_algorithm(Algorithm("halve", halve, needs_config_list=False), replace=True)


class Module(AbstractAutoCompressionModule):
    @classmethod
    def model(cls):
        torch.manual_seed(0)
        return Network()

    @classmethod
    def evaluator(cls):
        return accuracy

    @classmethod
    def optimizer_factory(cls):
        return lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

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
        return torch.rand(2, 1, 16, 16)


class Textual(Module):
    """Its evaluator gives text."""

    @classmethod
    def evaluator(cls):
        return lambda model: "excellent"

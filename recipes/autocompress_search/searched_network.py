"""The AutoCompress class of the search recipe: the trained network, its training and its evaluation."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchprune_spatial.nni  # noqa: F401  registers 'spatial_mask' in the trials
from resolution_scaling.nni.autocompress import AbstractAutoCompressionModule

from ..networks.resnet import SmallResNet
from .task import IMAGE_PX, TASK_VARIABLE, Task


class SearchedNetwork(AbstractAutoCompressionModule):
    """The trained network, how it is fine-tuned, and how it is judged."""

    @classmethod
    def model(cls) -> nn.Module:
        """The trained network."""
        network = SmallResNet(_task().width)
        network.load_state_dict(load_file(_folder() / "base.safetensors"))
        return network

    @classmethod
    def evaluator(cls):
        """Accuracy on the validation images."""
        return lambda model: accuracy(model, DataLoader(_data()[1], 500))

    @classmethod
    def optimizer_factory(cls):
        """Adam."""
        return lambda parameters: torch.optim.Adam(parameters, _task().learning_rate)

    @classmethod
    def criterion(cls):
        """Cross entropy."""
        return F.cross_entropy

    @classmethod
    def sparsifying_trainer(cls, compress_algorithm_name):
        """An epoch, for pruners that train while they prune."""
        return train_epoch

    @classmethod
    def post_compress_finetuning_trainer(cls, compress_algorithm_name):
        """An epoch."""
        return train_epoch

    @classmethod
    def post_compress_finetuning_epochs(cls, compress_algorithm_name):
        """The same number for all algorithms, so that they are compared after equal training."""
        return _task().finetuning_epochs

    @classmethod
    def dummy_input(cls) -> torch.Tensor:
        """One image, for which costs are counted."""
        return torch.rand(1, 1, IMAGE_PX, IMAGE_PX)

    @classmethod
    def calibration_loader(cls) -> Iterable:
        """Training images with labels and masks; objects are where an image is brighter than one half."""
        return MaskedImages(TensorDataset(*_data()[0][:512]), batch_size=128)


class MaskedImages:
    """Batches ``(images, labels, masks)`` for the spatial-mask criterion."""

    def __init__(self, data: TensorDataset, batch_size: int):
        self.loader = DataLoader(data, batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for images, labels in self.loader:
            yield images, labels, (images > 0.5).float()

    def __len__(self) -> int:
        return len(self.loader)


def train_epoch(model: nn.Module, optimizer, criterion, epoch: int) -> None:
    """Make one pass over the training images, in an order that depends on the epoch alone; the rate falls to 0."""
    order, task = torch.Generator().manual_seed(epoch), _task()
    loader = DataLoader(_data()[0], task.batch_size, shuffle=True, generator=order)
    model.train()
    for step, (images, labels) in enumerate(loader):
        left = 1 - (epoch + step / len(loader)) / task.finetuning_epochs
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * max(left, 0.01)
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, loader: Iterable) -> float:
    """The share of images whose largest logit is that of their label."""
    model.eval()
    hits = [(model(images).argmax(1) == labels).float() for images, labels in loader]
    return torch.cat(hits).mean().item()


def _folder() -> Path:
    if TASK_VARIABLE not in os.environ:
        raise RuntimeError(f"{TASK_VARIABLE} is not set: the class is used by python -m recipes.autocompress_search")
    return Path(os.environ[TASK_VARIABLE])


@functools.lru_cache(maxsize=1)
def _read(folder: Path) -> Task:
    return Task.read(folder)


def _task() -> Task:
    return _read(_folder())


@functools.lru_cache(maxsize=1)
def _read_data(task: Task) -> tuple[TensorDataset, TensorDataset]:
    return task.data()


def _data() -> tuple[TensorDataset, TensorDataset]:
    return _read_data(_task())

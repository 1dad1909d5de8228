"""The training loop of the recipes, on Hugging Face `accelerate`: mixed precision, devices, checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from resolution_scaling.ground.files import replacing

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Augment = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda parameters, **settings: torch.optim.SGD(parameters, momentum=0.9, **settings),
}


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        epochs: passes over the training data; 0 leaves the network as it is.
        learning_rate: that of the optimizer; with a schedule, the largest one.
        batch_size: number of images in a step.
        schedule: ``"constant"`` as in the spatial-mask paper; ``"one_cycle"`` warms up and anneals, for short
            trainings; ``"cosine"`` anneals to zero after ``warmup_epochs`` of linear warm-up.
        optimizer: ``"adam"``, ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        weight_decay: that of the optimizer.
        warmup_epochs: those of the cosine schedule.
        ema_decay: decay per step of an exponential moving average of the weights, which is then evaluated and kept;
            None to keep the weights themselves.
        keep: which epoch to keep, the ``"best"`` by validation loss or the ``"last"``.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 32
    schedule: str = "constant"
    optimizer: str = "adam"
    weight_decay: float = 0.0
    warmup_epochs: int = 0
    ema_decay: float | None = None
    keep: str = "best"

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A new optimizer for the parameters of a model."""
        return OPTIMIZERS[self.optimizer](model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def make_schedule(self, optimizer: torch.optim.Optimizer, steps_an_epoch: int) -> lr_scheduler.LRScheduler:
        """A new schedule, which is stepped after each batch."""
        steps, warmup = self.epochs * steps_an_epoch, self.warmup_epochs * steps_an_epoch
        if self.schedule == "one_cycle":
            return lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        if self.schedule == "cosine":
            annealing = lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - warmup)
            if not warmup:
                return annealing
            rise = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
            return lr_scheduler.SequentialLR(optimizer, [rise, annealing], milestones=[warmup])
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)

    def __str__(self):
        decay = f", weight decay {self.weight_decay:g}" if self.weight_decay else ""
        warmup = f" after {self.warmup_epochs} epochs of warm-up" if self.warmup_epochs else ""
        average = f", weights averaged by {self.ema_decay:g} a step" if self.ema_decay else ""
        return (
            f"{self.epochs} epochs, {self.optimizer}, learning rate {self.learning_rate:g}, "
            f"{self.schedule.replace('_', '-')} schedule{warmup}, batches of {self.batch_size}{decay}{average}"
        )


@dataclass(frozen=True)
class Hardware:
    """Where, how precisely and for how long to compute.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None for the first accelerator, or else the CPU.
        mixed_precision: `accelerate`'s ``"no"``, ``"bf16"`` or ``"fp16"`` (``"fp16"`` not on the CPU).
        workers: number of processes that read and augment training images.
        minutes: time after which training raises `SittingOver` at the end of an epoch; None for no limit.
    """

    device: str | None = None
    mixed_precision: str = "no"
    workers: int = 0
    minutes: float | None = None
    started: float = field(default_factory=time.monotonic, compare=False)

    def accelerator(self, seed: int = 0) -> Accelerator:
        """A new accelerator; the order in which its loaders shuffle depends on ``seed`` and the epoch alone."""
        device = torch.device(self.device or "cpu")
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        return Accelerator(
            mixed_precision=self.mixed_precision,
            cpu=self.device == "cpu",
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=seed),
        )

    def check_time(self) -> None:
        """Raise `SittingOver` if the time is up."""
        if self.minutes is not None and time.monotonic() - self.started > 60 * self.minutes:
            raise SittingOver(f"{self.minutes:g} minutes are over")


class SittingOver(Exception):
    """The time of this sitting is up. What was reached is saved, and the same call continues from there."""


def train(
    model: nn.Module,
    training: Training,
    loss: Loss,
    train_data: Dataset,
    validation_data: Dataset,
    *,
    folder: Path,
    description: str,
    hardware: Hardware,
    seed: int,
    augment: Augment | None = None,
) -> int:
    """Train in place, and keep the epoch whose validation loss is lowest (section 4.3 of the spatial-mask paper).

    The start counts as an epoch, so that retraining cannot make a network worse (this is ours; the paper says nothing
    about it). After each epoch the state is saved in ``folder``. A call with the same folder continues from there and
    reaches the same weights as without the interruption.

    Args:
        model: the network; at the end it has the weights of the epoch to keep.
        training: epochs, optimizer, schedule, and which epoch to keep.
        loss: ``(output, target)`` -> mean loss of the batch.
        train_data: items ``(input, target)``.
        validation_data: such items too; they choose the epoch.
        folder: where checkpoints are kept; it is made if it is missing.
        description: text of the progress bar.
        hardware: device and mixed precision.
        seed: seeds the order of the batches.
        augment: changes a training batch on the device, as torchvision's ``v2.MixUp`` does; the loss must accept its
            targets.

    Returns:
        The epoch that was kept, from 1; 0 is the start.

    Raises:
        SittingOver: the time of ``hardware`` is up.
    """
    if training.epochs == 0:
        return 0
    accelerator = hardware.accelerator(seed)
    model.to(memory_format=_memory_format(model))
    optimizer = training.make_optimizer(model)
    train_loader = DataLoader(train_data, training.batch_size, shuffle=True, num_workers=hardware.workers)
    validation_loader = DataLoader(validation_data, training.batch_size, num_workers=hardware.workers)
    schedule = training.make_schedule(optimizer, len(train_loader))
    prepared, optimizer, schedule, train_loader, validation_loader = accelerator.prepare(
        model, optimizer, schedule, train_loader, validation_loader
    )
    judged, average = prepared, None
    if training.ema_decay:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay), use_buffers=True)
        accelerator.register_for_checkpointing(average)
        judged = average.module
    if (checkpoint := _latest(folder)) is None:
        progress = {"epoch": 0, "best_epoch": 0, "best_loss": _mean_loss(judged, loss, validation_loader)}
        best_weights = _weights(model)
    else:
        accelerator.load_state(str(checkpoint))
        progress = json.loads((checkpoint / PROGRESS_FILE).read_text())
        best_weights = load_file(checkpoint / BEST_FILE)

    steps = training.epochs * len(train_loader)
    with tqdm(total=steps, initial=progress["epoch"] * len(train_loader), desc=description, leave=False) as bar:
        for epoch in range(progress["epoch"], training.epochs):
            hardware.check_time()
            prepared.train()
            train_loader.set_epoch(epoch)
            for inputs, targets in train_loader:
                if augment:
                    inputs, targets = augment(inputs, targets)
                value = loss(prepared(inputs), targets)
                accelerator.backward(value)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                if average is not None:
                    average.update_parameters(model)
                bar.update()
            validation_loss = _mean_loss(judged, loss, validation_loader)
            bar.set_postfix(epoch=epoch + 1, validation=f"{validation_loss:.4f}")
            progress["epoch"] = epoch + 1
            if training.keep == "last" or validation_loss < progress["best_loss"]:
                progress |= {"best_epoch": epoch + 1, "best_loss": validation_loss}
                best_weights = _weights(model if average is None else average.module)
            _save(accelerator, folder, progress, best_weights)
    accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    model.load_state_dict(best_weights)
    model.eval()
    return progress["best_epoch"]


def _memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last, up to three times as fast on the CPU for narrow layers, where PyTorch's gradients are right.

    They are not behind a strided convolution of kernel size 1 with fewer input channels than a block of oneDNN, 8 or
    16: it writes past its memory (uxlfoundation/oneDNN, issue 6035, PyTorch 2.14).
    """
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    wrong = any(max(c.kernel_size) == 1 < max(c.stride) and c.in_channels // c.groups < 16 for c in convolutions)
    return torch.contiguous_format if wrong else torch.channels_last


def save_weights(model: nn.Module, file: Path) -> None:
    """Save the parameters and buffers as safetensors."""
    with replacing(file) as partial:
        save_file(_weights(model), partial)


PROGRESS_FILE, BEST_FILE = "progress.json", "best.safetensors"


@torch.no_grad()
def _mean_loss(model: nn.Module, loss: Loss, loader: DataLoader) -> float:
    model.eval()
    total = sum(loss(model(inputs), targets).item() * len(inputs) for inputs, targets in loader)
    return total / len(loader.dataset)


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def _latest(folder: Path) -> Path | None:
    return max(folder.glob("epoch_*"), default=None)


def _save(accelerator: Accelerator, folder: Path, progress: dict, best_weights: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint aside, rename it into place, then drop the older one, so that a kill leaves at least one."""
    older, partial = _latest(folder), folder / "partial"
    accelerator.save_state(str(partial))
    save_file(best_weights, partial / BEST_FILE)
    (partial / PROGRESS_FILE).write_text(json.dumps(progress))
    os.replace(partial, folder / f"epoch_{progress['epoch']:05d}")
    if older is not None:
        shutil.rmtree(older)

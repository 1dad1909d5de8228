"""One training loop for the recipes, on Hugging Face `accelerate`: mixed precision, devices, checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .files import replacing

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Training:
    """How a network is trained: Adam, with a constant learning rate or one cycle.

    Attributes:
        epochs: passes over the training data; 0 leaves the network as it is.
        learning_rate: Adam's; with ``one_cycle`` the peak of `torch.optim.lr_scheduler.OneCycleLR`.
        batch_size: images a step.
        one_cycle: warm up and anneal, for short trainings. The spatial-mask paper's rate is constant.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 32
    one_cycle: bool = False


@dataclass(frozen=True)
class Hardware:
    """Where and how precisely to compute.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None takes the first accelerator, else the CPU.
        mixed_precision: `accelerate`'s ``"no"``, ``"bf16"`` or ``"fp16"`` (``"fp16"`` not on the CPU).
    """

    device: str | None = None
    mixed_precision: str = "no"

    def accelerator(self, seed: int = 0) -> Accelerator:
        """A new accelerator, whose loaders shuffle by ``seed`` and epoch alone."""
        device = torch.device(self.device or "cpu")
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        return Accelerator(
            mixed_precision=self.mixed_precision,
            cpu=self.device == "cpu",
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=seed),
        )


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
) -> int:
    """Train in place, and keep the epoch whose validation loss is lowest (section 4.3 of the spatial-mask paper).

    The start counts as an epoch, so that retraining cannot leave a network worse than it was (ours; the paper does not
    say). After each epoch the state is saved in ``folder``, and a call with the same folder goes on from there, to the
    same weights as without the interruption.

    Args:
        model: the network; ends with the weights of the best epoch.
        training: epochs, learning rate, batch size.
        loss: ``(output, target)`` -> mean loss of the batch.
        train_data: items ``(input, target)``.
        validation_data: the same, for the choice of the epoch.
        folder: where checkpoints are kept.
        description: name on the progress bar.
        hardware: device and mixed precision.
        seed: seeds the order of the batches.

    Returns:
        The best epoch, from 1; 0 if it was best at the start.
    """
    if training.epochs == 0:
        return 0
    accelerator = hardware.accelerator(seed)
    model.to(memory_format=torch.channels_last)  # on the CPU, up to three times as fast for narrow layers
    optimizer = torch.optim.Adam(model.parameters(), training.learning_rate)
    train_loader = DataLoader(train_data, training.batch_size, shuffle=True)
    steps = training.epochs * len(train_loader)
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=steps)
        if training.one_cycle
        else torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    )
    prepared, optimizer, schedule, train_loader, validation_loader = accelerator.prepare(
        model, optimizer, schedule, train_loader, DataLoader(validation_data, training.batch_size)
    )
    if (checkpoint := _latest(folder)) is None:
        progress = {"epoch": 0, "best_epoch": 0, "best_loss": _mean_loss(prepared, loss, validation_loader)}
        best_weights = _weights(model)
    else:
        accelerator.load_state(str(checkpoint))
        progress = json.loads((checkpoint / PROGRESS_FILE).read_text())
        best_weights = load_file(checkpoint / BEST_FILE)

    with tqdm(total=steps, initial=progress["epoch"] * len(train_loader), desc=description, leave=False) as bar:
        for epoch in range(progress["epoch"], training.epochs):
            prepared.train()
            train_loader.set_epoch(epoch)
            for inputs, targets in train_loader:
                value = loss(prepared(inputs), targets)
                accelerator.backward(value)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                bar.update()
            validation_loss = _mean_loss(prepared, loss, validation_loader)
            bar.set_postfix(epoch=epoch + 1, validation=f"{validation_loss:.4f}")
            progress["epoch"] = epoch + 1
            if validation_loss < progress["best_loss"]:
                progress |= {"best_epoch": epoch + 1, "best_loss": validation_loss}
                best_weights = _weights(model)
            _save(accelerator, folder, progress, best_weights)
    accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    model.load_state_dict(best_weights)
    model.eval()
    return progress["best_epoch"]


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
    """Write a checkpoint aside, put it in place by one rename, then drop the older one: a kill never leaves none."""
    older, partial = _latest(folder), folder / "partial"
    accelerator.save_state(str(partial))
    save_file(best_weights, partial / BEST_FILE)
    (partial / PROGRESS_FILE).write_text(json.dumps(progress))
    os.replace(partial, folder / f"epoch_{progress['epoch']:05d}")
    if older is not None:
        shutil.rmtree(older)

"""What is trained by contrast, and one update of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import PartSpec
from mmaudio_core.weights.build import load_part

from ..engine.distributed import clip_gradients
from ..engine.generators import generator_of
from .config import OptimConfig
from .rows import Rows

AUGMENT = 5
"""Distinguishes the draws of the augmentation."""


@dataclass(frozen=True)
class Place:
    """A step, on which everything random depends."""

    seed: int
    step: int

    def generators(self, count: int) -> list[torch.Generator]:
        """For the augmentation of each of ``count`` clips."""
        return [generator_of(self.seed, AUGMENT, self.step, position) for position in range(count)]


class Task(Protocol):
    """A part of the model and what it is trained with."""

    @property
    def name(self) -> str:
        """Of the command and of the resulting file."""

    @property
    def spec(self) -> PartSpec: ...

    @property
    def model(self) -> nn.Module:
        """What comes out."""

    @property
    def others(self) -> nn.Module:
        """What is trained beside it and stays in the run's folder."""

    def rows(self, split: str, held_out: bool = False) -> Rows[Any]:
        """The clips of a split; to measure on, all that a clip holds."""

    def loss(self, items: Sequence[Any], place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar and its parts for the log."""

    def measure(self, items: Sequence[Any]) -> dict[str, float]:
        """Retrieval among held-out clips."""


def make_optimizer(task: Task, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; layers' weights decay, and not biases, norms, temperatures, positions or embeddings, least rare words'."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in (task.model, task.others):
        for name, parameter in module.named_parameters():
            plain = parameter.ndim < 2 or name.endswith(("embedding", "embedding.weight", "_embed", "cls_token"))
            (rest if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]))


def rate_of(step: int, steps: int, config: OptimConfig) -> float:
    """The learning rate of ``step`` = 1, 2, ... of ``steps``."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def update(
    task: Task, optimizer: torch.optim.AdamW, config: OptimConfig, rate: float, items: Sequence[Any], place: Place
) -> dict[str, Tensor]:
    """One step with a batch of clips; scalars for the log."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss, parts = task.loss(items, place)
    loss.backward()
    parameters = [p for module in (task.model, task.others) for p in module.parameters()]
    norm = clip_gradients(parameters, config.clip_norm or math.inf)
    optimizer.step()
    return {"loss": loss.detach(), **{name: value.detach() for name, value in parts.items()}, "norm": norm}


def load_base(path: str, kind: str) -> tuple[nn.Module, PartSpec]:
    """The part of a file, float32 on the CPU, to be trained, in memory of its own.

    Raises:
        WeightsError: when the file holds no such part.
    """
    module, spec = load_part(path, kind, dtype=torch.float32)
    if spec.kind != kind:
        raise WeightsError(f"{path} holds a {spec.kind}; a {kind} is needed.")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()  # training would write to the mapped file's pages
    return module.requires_grad_(True).train(), spec

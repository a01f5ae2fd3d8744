"""One update of discriminator and generator, over any number of pieces and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmaudio_core.spec.model import PartSpec

from ..engine.distributed import Ranks, clip_gradients
from .config import OptimConfig


@dataclass(frozen=True)
class Places:
    """Where samples stand, on which everything random depends: places in the global batch of a step."""

    seed: int
    step: int
    positions: tuple[int, ...]


class Task(Protocol):
    """What is trained: a generator, what judges it, and their losses, which are means over the samples of a piece."""

    @property
    def spec(self) -> PartSpec:
        """Of the generator."""

    @property
    def generator(self) -> nn.Module: ...

    @property
    def discriminator(self) -> nn.Module: ...

    @property
    def adversarial_from(self) -> int:
        """The first step in which the discriminator is trained and listened to."""

    def take(self, samples: Tensor, places: Places) -> Any:
        """What the other methods call a piece, from samples (B, N) on the device."""

    def make(self, piece: Any) -> Any:
        """What the generator makes of a piece."""

    def discriminator_loss(self, piece: Any, made: Any) -> Tensor:
        """Scalar; no gradient may reach the generator."""

    def generator_loss(self, piece: Any, made: Any, playing: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar and its parts for the log; with the discriminator's judgement when ``playing``."""

    def settle(self) -> None:
        """Called after each update of the generator."""

    def result(self) -> dict[str, Tensor]:
        """The generator under published names."""

    def listen(self, samples: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Of samples (B, N): measurements, and what to see and hear: "mel ..." (B, M, F) and "sound ..." (B, N)."""


@dataclass
class Sides:
    """The optimisers of both sides."""

    generator: torch.optim.AdamW
    discriminator: torch.optim.AdamW


def make_sides(task: Task, config: OptimConfig) -> Sides:
    """AdamW for both sides."""

    def optimizer(module: nn.Module, rate: float) -> torch.optim.AdamW:
        betas = (config.betas[0], config.betas[1])
        return torch.optim.AdamW(module.parameters(), lr=rate, betas=betas, weight_decay=config.weight_decay)

    return Sides(optimizer(task.generator, config.lr), optimizer(task.discriminator, config.discriminator_lr))


def rate_factor(step: int, config: OptimConfig) -> float:
    """What both learning rates are multiplied by in ``step`` = 1, 2, ..."""
    factor = config.decay_per_step ** (step - 1)
    if config.warmup_steps:
        factor *= min(1.0, step / config.warmup_steps)
    if config.rsqrt_after:
        factor /= math.sqrt(max(1.0, step / config.rsqrt_after))
    return factor


def update(
    task: Task, sides: Sides, config: OptimConfig, pieces: Sequence[tuple[Tensor, Places]], ranks: Ranks
) -> dict[str, Tensor]:
    """One step over ``pieces`` of this rank's samples, all equally large; returns scalars for the log (of this rank).

    The discriminator comes first and judges what the generator of the step before makes.
    """
    step = pieces[0][1].step
    for optimizer, rate in ((sides.generator, config.lr), (sides.discriminator, config.discriminator_lr)):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor(step, config)
    playing = step >= task.adversarial_from
    taken = [task.take(samples, places) for samples, places in pieces]
    # One piece is made once for both sides; several would hold all their graphs in memory, and are made twice.
    made = task.make(taken[0]) if len(taken) == 1 else None
    scalars: dict[str, Tensor] = {}
    if playing:
        scalars |= _discriminator_update(task, sides.discriminator, config, taken, made, ranks)
    return scalars | _generator_update(task, sides.generator, config, taken, made, playing, ranks)


def _discriminator_update(
    task: Task, optimizer: torch.optim.AdamW, config: OptimConfig, taken: Sequence[Any], made: Any, ranks: Ranks
) -> dict[str, Tensor]:
    parameters = list(task.discriminator.parameters())
    optimizer.zero_grad()
    total = torch.zeros((), device=ranks.device)
    for piece in taken:
        with torch.no_grad():
            fake = task.make(piece) if made is None else made
        loss = task.discriminator_loss(piece, fake) / len(taken)
        loss.backward()
        total += loss.detach()
    norm = _finish(optimizer, parameters, config, ranks)
    return {"loss/discriminator": total, "norm/discriminator": norm}


def _generator_update(
    task: Task,
    optimizer: torch.optim.AdamW,
    config: OptimConfig,
    taken: Sequence[Any],
    made: Any,
    playing: bool,
    ranks: Ranks,
) -> dict[str, Tensor]:
    parameters = list(task.generator.parameters())
    optimizer.zero_grad()
    task.discriminator.requires_grad_(False)  # its gradients would only be thrown away
    scalars: dict[str, Tensor] = {}
    for piece in taken:
        loss, parts = task.generator_loss(piece, task.make(piece) if made is None else made, playing)
        (loss / len(taken)).backward()
        for name, value in {"generator": loss, **parts}.items():
            share = value.detach() / len(taken)
            scalars[f"loss/{name}"] = scalars[f"loss/{name}"] + share if f"loss/{name}" in scalars else share
    task.discriminator.requires_grad_(True)
    norm = _finish(optimizer, parameters, config, ranks)
    task.settle()
    return {**scalars, "norm/generator": norm}


def _finish(optimizer: torch.optim.AdamW, parameters: list[nn.Parameter], config: OptimConfig, ranks: Ranks) -> Tensor:
    average_gradients(parameters, ranks)
    norm = clip_gradients(parameters, config.clip_norm or math.inf)
    optimizer.step()
    return norm


def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Makes every rank's gradients their mean over ranks; all must have gradients for the same parameters."""
    if ranks.world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= ranks.world
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))

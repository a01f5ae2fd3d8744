"""Checkpoints of a run: whole or not there, for any number of ranks, for one process, DDP and FSDP2 alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..ema.power import PowerEMA
from .distributed import Ranks


def save(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: Optimizer | None,
    ema: PowerEMA | None,
    extra: dict[str, Any],
    ranks: Ranks,
    keep: int = 3,
) -> Path:
    """Writes ``folder/step-000123``; ``extra`` are JSON values. All ranks must call."""
    raise NotImplementedError


def load(folder: Path, module: nn.Module, optimizer: Optimizer | None, ema: PowerEMA | None, ranks: Ranks) -> dict[str, Any]:
    """Fills module, optimiser and averages from the checkpoint ``folder`` (``.../step-000123``); returns ``extra``."""
    raise NotImplementedError


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in ``folder``."""
    raise NotImplementedError


def clean(folder: Path, ranks: Ranks) -> None:
    """Removes what killed runs left half-written; called once at the start, by all ranks."""
    raise NotImplementedError

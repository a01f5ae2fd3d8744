"""Snapshots of the averages, in the folder ``ema/`` of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..engine.distributed import Ranks
from .power import PowerEMA


def write_snapshots(
    folder: Path,
    step: int,
    ema: PowerEMA,
    ranks: Ranks,
    about: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> list[Path]:
    """Writes one file for each tracked width; all ranks must call. ``about``: JSON values that ``export`` hands on."""
    raise NotImplementedError

"""Snapshots of the averages while training goes on: the files that any width is later put together from.

One safetensors file for each step and tracked width, ``ema/step-00012000-0.05.safetensors``, under the parameters' names. The
metadata key ``mmaudio_ema`` holds ``{"format": 1, "step": ..., "sigma_rel": ..., "constants": [names], "about": {...}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.errors import WeightsError
from mmaudio_core.weights.safetensors_file import read_header, write_safetensors

from ..engine.distributed import Ranks, barrier, whole
from .power import PowerEMA

KEY = "mmaudio_ema"
FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """One file: the average of width ``sigma_rel`` after ``step`` updates; ``constants`` are tensors that were not averaged.

    about: what the run said of itself (JSON values).
    """

    path: Path
    step: int
    sigma_rel: float
    constants: frozenset[str]
    about: dict[str, Any]
    dtype: torch.dtype


def write_snapshots(
    folder: Path,
    step: int,
    ema: PowerEMA,
    ranks: Ranks,
    about: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> list[Path]:
    """Writes one file for each tracked width into ``folder``; all ranks must call, the first one writes.

    about: JSON values that ``export`` hands on: ``variant``, ``dataset`` (hash), ``licence``, ... Averages are written in
    ``dtype`` (float16 halves the space; the paper does so), what was not averaged stays as it is.

    Raises:
        WeightsError: when the folder cannot be written to.
    """
    paths = []
    for width in ema.sigma_rels:
        path = folder / f"step-{step:08d}-{width}.safetensors"
        tensors = {}
        for name, tensor in ema.tensors(width).items():
            full = whole(tensor)  # one after the other, so that only the first rank ever holds them all
            if ranks.first:
                tensors[name] = full.to("cpu", full.dtype if name in ema.constants else dtype)
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            values = {"step": step, "sigma_rel": width, "constants": sorted(ema.constants), "about": dict(about)}
            metadata = {"format": "pt", KEY: json.dumps({"format": FORMAT, **values}, sort_keys=True)}
            write_safetensors(path, tensors, metadata)
        paths.append(path)
    barrier(ranks)
    return paths


def find_snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots in ``folder``, by step and width; other files are passed over.

    Raises:
        WeightsError: for a damaged one.
    """
    found = [snapshot for path in sorted(folder.glob("*.safetensors")) if (snapshot := read_snapshot(path)) is not None]
    return sorted(found, key=lambda snapshot: (snapshot.step, snapshot.sigma_rel))


def read_snapshot(path: Path) -> Snapshot | None:
    """What the metadata of ``path`` say; None when it is no snapshot. No tensor is read."""
    header = read_header(path)
    if KEY not in header.metadata:
        return None
    try:
        values = json.loads(header.metadata[KEY])
        step, width, constants = int(values["step"]), float(values["sigma_rel"]), frozenset(values["constants"])
        dtype = next((entry.dtype for name, entry in header.entries.items() if name not in constants), torch.float32)
        return Snapshot(path, step, width, constants, dict(values["about"]), dtype)
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"The snapshot {path} has damaged metadata ({error}); remove it.") from error

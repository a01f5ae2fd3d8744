"""Checkpoints of a run: whole or not there, for any number of ranks, for one process, DDP and FSDP2 alike.

A checkpoint is the folder ``checkpoints/step-00012000``: what ``torch.distributed.checkpoint`` writes (weights, optimiser and
averages, each rank its share) and ``extra.json``. All ranks write into one hidden folder, which the first one renames when they
are done; with several machines the run's folder must be one that all of them see.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from mmaudio_core.errors import WeightsError

from .distributed import Ranks, any_rank, barrier
from .optimizers import settings_kept
from .safe_reader import SafeReader

EXTRA = "extra.json"
_NAME = re.compile(r"step-(\d+)")
_LEFT_OVER = re.compile(r"\.step-\d+\.(partial|old)")
_UNREADABLE = (dcp.api.CheckpointException, OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)
log = logging.getLogger("mmaudio")


class Averages(Protocol):
    """What is kept of averaged weights; ``ema.power.PowerEMA``."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def save(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: Optimizer | None,
    ema: Averages | None,
    extra: dict[str, Any],
    ranks: Ranks,
    keep: int = 3,
) -> Path:
    """Writes ``folder/step-00000123`` and removes all but the newest ``keep`` (0: keeps all). All ranks must call.

    module: as ``wrap`` gave it. extra: JSON values that ``load`` gives back. Killed at any moment, it leaves either this
    checkpoint or the ones before, and at most a hidden folder, which ``clean`` removes.

    Raises:
        WeightsError: on every rank, when one of them cannot write.
    """
    target, partial = folder / f"step-{step:08d}", folder / f".step-{step:08d}.partial"
    text = json.dumps(extra, indent=1, sort_keys=True)
    reason = ""
    try:
        if ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
    except OSError as error:
        reason = _first_line(error)
    # No rank may wait in the writing for one that gave up before it.
    if not any_rank(bool(reason), ranks):
        try:
            with _alone(ranks):
                dcp.save(_state(module, optimizer, ema), checkpoint_id=partial, no_dist=ranks.world == 1)
            if ranks.first:
                _write_whole(partial / EXTRA, text)
                _put(partial, target)
        except (dcp.api.CheckpointException, OSError) as error:
            reason = _first_line(error)
    if any_rank(bool(reason), ranks):
        if ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
        raise WeightsError(
            f"The checkpoint of step {step} could not be written to {folder} ({reason or 'another rank failed'}); "
            "the checkpoints before it are whole. Make room, or choose another folder."
        )
    if ranks.first and keep > 0:
        for old in checkpoints(folder)[:-keep]:
            if old != target:  # it can be the oldest, after a resume from before the others
                _remove(old)
    return target


def load(folder: Path, module: nn.Module, optimizer: Optimizer | None, ema: Averages | None, ranks: Ranks) -> dict[str, Any]:
    """Fills module, optimiser and averages from the checkpoint ``folder`` (``.../step-00000123``); returns ``extra``.

    The checkpoint may come from another number of ranks, and from "ddp" for "fsdp" or the other way round. What is None is
    left out. The optimiser's rates, betas, decay and the like stay its own. To be called before the first step. All ranks must
    call.

    Raises:
        WeightsError: when the checkpoint is damaged, or of another model, optimiser or other widths.
    """
    with settings_kept(optimizer) if optimizer is not None else nullcontext():
        extra = _load(folder, module, optimizer, ema, ranks)
    barrier(ranks)
    return extra


def _load(folder: Path, module: nn.Module, optimizer: Optimizer | None, ema: Averages | None, ranks: Ranks) -> dict[str, Any]:
    state = _state(module, optimizer, ema)
    try:
        extra = read_extra(folder)
        with _alone(ranks):
            dcp.load(state, storage_reader=SafeReader(folder), no_dist=ranks.world == 1)
    except _UNREADABLE as error:
        raise WeightsError(
            f"The checkpoint {folder} does not fit this run or is damaged ({_first_line(error)}). "
            "Resume with the settings it was written with, or start a new run folder."
        ) from error
    set_model_state_dict(module, state["model"])
    if optimizer is not None:
        set_optimizer_state_dict(module, optimizer, state["optimizer"])
    if ema is not None:
        ema.load_state_dict(state["ema"])
    return extra


def _state(module: nn.Module, optimizer: Optimizer | None, ema: Averages | None) -> dict[str, Any]:
    """Everything under names without wrappers; tensors share memory with the run's own."""
    state: dict[str, Any] = {"model": get_model_state_dict(module)}
    if optimizer is not None:
        state["optimizer"] = get_optimizer_state_dict(module, optimizer)
    if ema is not None:
        state["ema"] = ema.state_dict()
    return state


def read_extra(folder: Path) -> dict[str, Any]:
    """What ``save`` was given as ``extra``.

    Raises:
        WeightsError: when ``folder`` is no whole checkpoint.
    """
    try:
        return dict(json.loads((folder / EXTRA).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} is no whole checkpoint of this trainer ({_first_line(error)}).") from error


def read_tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix`` ("model.", "ema.0.05."), without it, in one process, on the CPU.

    Raises:
        WeightsError: when the checkpoint is damaged.
    """
    try:
        tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in _entries(folder).items()
            if name.startswith(prefix)
        }
        with _alone():
            dcp.load(tensors, storage_reader=SafeReader(folder), no_dist=True)
    except _UNREADABLE as error:
        raise WeightsError(f"The checkpoint {folder} is damaged ({_first_line(error)}); use the one before.") from error
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}


def tensor_names(folder: Path) -> list[str]:
    """The names of all tensors in the checkpoint: "model.", "optimizer.state." or "ema.0.05." and a parameter's name.

    Raises:
        WeightsError: when the checkpoint is damaged.
    """
    try:
        return list(_entries(folder))
    except _UNREADABLE as error:
        raise WeightsError(f"The checkpoint {folder} is damaged ({_first_line(error)}); use the one before.") from error


def _entries(folder: Path) -> dict[str, TensorStorageMetadata]:
    entries = SafeReader(folder).read_metadata().state_dict_metadata
    return {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint."""
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise WeightsError(f"{folder} is not the folder of a checkpoint; those are called step- and a number.")
    return int(match[1])


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in ``folder``, oldest step first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / EXTRA).is_file()]
    return sorted(found, key=step_of)


def latest(folder: Path) -> Path | None:
    """The whole checkpoint of the highest step in ``folder``, None when there is none."""
    found = checkpoints(folder)
    return found[-1] if found else None


def clean(folder: Path, ranks: Ranks) -> None:
    """Removes what killed runs left half-written; to be called once at the start, by all ranks, before ``latest``."""
    if ranks.first and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if _LEFT_OVER.fullmatch(path.name):
                whole = folder / path.name[1:].removesuffix(".old")
                if path.suffix == ".old" and not whole.exists():
                    os.replace(path, whole)  # killed between the two renames of _put
                else:
                    log.info("Removing the half-written checkpoint %s.", path)
                    shutil.rmtree(path, ignore_errors=True)
    barrier(ranks)


def _put(partial: Path, target: Path) -> None:
    """Gives ``partial`` its final name; one of that name (a run that was resumed before it) goes only then."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)


def _remove(folder: Path) -> None:
    # Renamed first: a removal that is killed halfway must not leave half a checkpoint under a checkpoint's name.
    hidden = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _alone(ranks: Ranks | None = None) -> Iterator[None]:
    """Without the warning that there is one process, where that is so."""
    with warnings.catch_warnings():
        if ranks is None or ranks.world == 1:
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _write_whole(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _first_line(error: BaseException) -> str:
    inner = getattr(error, "failures", None)  # of a CheckpointException: rank -> (error, its stack)
    if inner:
        error = next(iter(inner.values()))[0]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:240]

"""The training of a CLIP or Synchformer from its first or last step to its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.weights.detect import variant_of
from mmaudio_core.weights.metadata import encode_part
from mmaudio_core.weights.safetensors_file import write_safetensors

from ..config.tables import dump_toml, to_table
from ..data.report import write_report
from ..engine.distributed import Ranks, started
from ..engine.licence import licence_of_result
from ..engine.log import Log
from ..engine.optimizers import settings_kept
from ..engine.run_folder import RunFolder
from ..engine.signals import StopRequest
from ..engine.steps import Rhythm, Steps
from .clip import ClipTask
from .config import AnyConfig, ClipConfig
from .rows import Rows
from .step import Place, Task, make_optimizer, rate_of, update
from .sync import SyncTask

FIXED = ("model", "data", "augment", "train.seed", "train.batch")
"""What may not change when a run goes on, but for ``FREE`` of it."""
FREE = ("workers", "cache_mb", "held_out_split")
log = logging.getLogger("mmaudio")


def train(config: AnyConfig, resume: bool = False, quiet: bool = False) -> int:
    """Trains, writes ``<folder>/clip.safetensors`` or ``sync.safetensors``; returns the exit code (0, or a signal's).

    Raises:
        InputError: a folder that holds a run (without ``resume``), unusable data, more than one process.
        MMAudioError: when the loss stops being finite; the last checkpoint was made before.
    """
    with started(config.train.device) as ranks, StopRequest() as stop:
        _check_alone(ranks)
        folder = run_folder(config)
        task: Task = ClipTask(config, ranks.device) if isinstance(config, ClipConfig) else SyncTask(config, ranks.device)
        rows = task.rows(config.data.split)
        folder.open(resume)
        optimizer = make_optimizer(task, config.optim)
        found = folder.checkpoints()
        first = 0
        if found:
            first, state = folder.read(found[-1])
            task.model.load_state_dict(state["model"])
            task.others.load_state_dict(state["others"])
            with settings_kept(optimizer):
                optimizer.load_state_dict(state["optimizer"])
        folder.write_config()
        work = _Work(config, task, optimizer, rows, folder)
        rhythm = Rhythm(config.train.steps, config.log.every, config.log.measure_every, config.checkpoint.every)
        run = Steps(work, rhythm, folder.folder, ranks, quiet)
        steps = range(first + 1, config.train.steps + 1)
        batches = rows.batches(config.train.seed, steps, config.train.batch, config.data.workers)
        with closing(run), closing(batches):
            return run.to_the_end(first, batches, stop)


def run_folder(config: AnyConfig) -> RunFolder:
    """The folder that the configuration names."""
    table = to_table(config)
    fixed = [f"data.{key}" for key in table["data"] if key not in FREE]
    names = [name for name in FIXED if name != "data"] + fixed
    return RunFolder(Path(config.train.folder).expanduser(), table, dump_toml(table), names, config.checkpoint.keep)


def _check_alone(ranks: Ranks) -> None:
    if ranks.world > 1:
        raise InputError(
            f"{ranks.world} processes were started; clips are contrasted with all others of the batch, in one process. "
            "Start it without torchrun."
        )


class _Work:
    """See ``Work``."""

    def __init__(self, config: AnyConfig, task: Task, optimizer: torch.optim.AdamW, rows: Rows[Any], folder: RunFolder) -> None:
        self.config, self.task, self.optimizer, self.rows, self.folder = config, task, optimizer, rows, folder
        self.held_out: Sequence[Any] = []
        if config.log.measure_every:
            # Read before the training begins: what is wrong with the files must not end a run in its middle.
            held_out = task.rows(config.data.held_out_split or config.data.split, held_out=True)
            self.held_out = held_out.first(config.log.measure_clips, config.train.seed)

    def update(self, step: int, batch: Sequence[Any]) -> dict[str, Tensor]:
        rate = rate_of(step, self.config.train.steps, self.config.optim)
        return update(self.task, self.optimizer, self.config.optim, rate, batch, Place(self.config.train.seed, step))

    def rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def measure(self, step: int, log: Log) -> None:
        if self.held_out:
            log.scalars(step, self.task.measure(self.held_out))

    def save(self, step: int) -> None:
        modules = {"model": self.task.model.state_dict(), "others": self.task.others.state_dict()}
        self.folder.write(step, {**modules, "optimizer": self.optimizer.state_dict()})
        if self.rows.bad:
            write_report(sorted(self.rows.bad, key=lambda bad: bad.line), self.folder.folder / "bad.jsonl")

    def finish(self, step: int) -> Path:
        """The trained part under published names, as the core loads it; what was trained beside it lies beside it."""
        folder, task = self.folder.folder, self.task
        write_safetensors(folder / "training_only.safetensors", dict(task.others.state_dict()), {"format": "pt"})
        path = folder / f"{task.name}.safetensors"
        licence = licence_of_result(self.config.train.licence, self.config.model.base, task.spec.kind)
        extra = {"variant": variant_of(task.spec), "source_name": folder.name, "step": step, "licence": licence}
        write_safetensors(path, task.model.state_dict(), encode_part(task.spec, **extra))
        return path

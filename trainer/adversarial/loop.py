"""The training of a VAE or vocoder from its first or last step to its end."""

from __future__ import annotations

import logging
import math
from contextlib import closing
from pathlib import Path

from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.spec.audio import AUDIO_SPECS, AudioSpec

from ..data.report import write_report
from ..engine.distributed import Ranks, barrier, started
from ..engine.log import Log
from ..engine.signals import StopRequest
from ..engine.steps import Rhythm, Steps
from .config import AnyConfig, VAEConfig
from .segments import Segments
from .step import Places, Sides, Task, make_sides, update
from .store import Store
from .vae import VAETask
from .vocoder import VocoderTask

STATISTICS_BATCH = 16
log = logging.getLogger("mmaudio")


def train(config: AnyConfig, resume: bool = False, quiet: bool = False) -> int:
    """Trains, writes ``<folder>/vae.safetensors`` or ``vocoder.safetensors``; returns the exit code (0, or a signal's).

    Under torchrun every rank works on its share of the batch; results do not depend on the number of ranks beyond rounding.

    Raises:
        InputError: a folder that holds a run (without ``resume``), unusable data, a batch that does not divide.
        MMAudioError: when the loss stops being finite; the last checkpoint was made before.
    """
    with started(config.train.device) as ranks, StopRequest() as stop:
        check_share(config, ranks)
        store = Store(Path(config.train.folder).expanduser(), config)
        task: Task = VAETask(config, ranks.device) if isinstance(config, VAEConfig) else VocoderTask(config, ranks.device)
        sides = make_sides(task, config.optim)
        if ranks.first:
            store.open(resume)
        barrier(ranks)
        found = store.checkpoints()
        data = segments_of(config, config.data.split)
        first = store.load(found[-1], task, sides) if found else 0
        if ranks.first:
            store.write_config()
        if not found:
            _begin(config, task, data)
        work = _Work(config, task, sides, data, store, ranks)
        rhythm = Rhythm(config.train.steps, config.log.every, config.log.listen_every, config.checkpoint.every)
        run = Steps(work, rhythm, store.folder, ranks, quiet)
        steps = range(first + 1, config.train.steps + 1)
        batches = data.batches(config.train.seed, steps, work.positions, config.data.workers)
        with closing(run), closing(batches):
            return run.to_the_end(first, batches, stop)


def check_share(config: AnyConfig, ranks: Ranks) -> None:
    """Raises InputError when the batch does not divide into equal pieces for all ranks."""
    pieces = ranks.world * config.train.accumulation
    if config.train.batch % pieces:
        raise InputError(
            f"train.batch = {config.train.batch} does not divide into {ranks.world} ranks times train.accumulation = "
            f"{config.train.accumulation}; choose a multiple of {pieces}."
        )


def audio_of(config: AnyConfig) -> AudioSpec:
    """The audio format that the configuration names."""
    return AUDIO_SPECS[config.model.audio]


def segments_of(config: AnyConfig, split: str, duration_s: float | None = None) -> Segments:
    """The rows of ``split`` in training segments, or in longer ones of ``duration_s`` (cut to whole latents)."""
    audio, data = audio_of(config), config.data
    frames = data.segment_frames if duration_s is None else max(2, int(duration_s * audio.sample_rate_hz / audio.hop_samples))
    samples = frames // 2 * 2 * audio.hop_samples
    return Segments(Path(data.manifest).expanduser(), split, audio.sample_rate_hz, samples, data.cache_mb << 20)


def _begin(config: AnyConfig, task: Task, data: Segments) -> None:
    if isinstance(task, VAETask) and isinstance(config, VAEConfig) and not config.model.base:
        steps = range(-math.ceil(config.model.statistics_segments / STATISTICS_BATCH), 0)  # never those of a training step
        log.info("Measuring the mel of %d segments.", len(steps) * STATISTICS_BATCH)
        with closing(data.batches(config.train.seed, steps, range(STATISTICS_BATCH), config.data.workers)) as batches:
            task.measure_(batches)


class _Work:
    """See ``Work``."""

    def __init__(self, config: AnyConfig, task: Task, sides: Sides, data: Segments, store: Store, ranks: Ranks) -> None:
        self.config, self.task, self.sides, self.data = config, task, sides, data
        self.store, self.ranks = store, ranks
        share = config.train.batch // ranks.world
        self.positions = range(ranks.rank * share, (ranks.rank + 1) * share)
        self.listening = self._to_listen_to() if ranks.first and config.log.listen_every else None

    def update(self, step: int, batch: Tensor) -> dict[str, Tensor]:
        return update(self.task, self.sides, self.config.optim, self._pieces(batch.to(self.ranks.device), step), self.ranks)

    def rate(self) -> float:
        return float(self.sides.generator.param_groups[0]["lr"])

    def measure(self, step: int, log: Log) -> None:
        if self.listening is None:
            return
        measured, shown = self.task.listen(self.listening.to(self.ranks.device))
        rate_hz = audio_of(self.config).sample_rate_hz
        log.scalars(step, measured)
        log.shown(step, shown, rate_hz, self.listening.shape[1] / rate_hz)

    def save(self, step: int) -> None:
        self.store.save(self.task, self.sides, step)
        if self.data.bad:
            write_report(sorted(self.data.bad, key=lambda bad: bad.line), self.store.folder / "bad.jsonl")

    def finish(self, step: int) -> Path:
        return self.store.write_result(self.task, step)

    def _pieces(self, samples: Tensor, step: int) -> list[tuple[Tensor, Places]]:
        size = len(samples) // self.config.train.accumulation
        return [
            (part, Places(self.config.train.seed, step, tuple(self.positions[i * size : (i + 1) * size])))
            for i, part in enumerate(samples.split(size))
        ]

    def _to_listen_to(self) -> Tensor:
        # Drawn before the training begins: what is wrong with the files must not end a run in its middle.
        split = self.config.data.held_out_split or self.config.data.split
        held_out = segments_of(self.config, split, self.config.log.listen_s)
        return held_out.batch(self.config.train.seed, 0, range(self.config.log.listen_segments))

"""The training of a VAE or vocoder from its first or last step to its end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError, MMAudioError
from mmaudio_core.spec.audio import AUDIO_SPECS, AudioSpec

from ..data.report import write_report
from ..engine.distributed import Ranks, barrier, mean_over_ranks, started
from ..engine.signals import StopRequest
from .config import AnyConfig, VAEConfig
from .log import Log
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
        first = store.load(found[-1], task, sides, ranks.device) if found else 0
        if not found:
            _begin(config, task, data)
        run = _Run(config, task, sides, data, store, ranks, quiet)
        with closing(run):
            return run.to_the_end(first, stop)


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


class _Run:
    """One process's part of a run."""

    def __init__(
        self, config: AnyConfig, task: Task, sides: Sides, data: Segments, store: Store, ranks: Ranks, quiet: bool
    ) -> None:
        self.config, self.task, self.sides, self.data = config, task, sides, data
        self.store, self.ranks = store, ranks
        share = config.train.batch // ranks.world
        self.positions = range(ranks.rank * share, (ranks.rank + 1) * share)
        self.bars = Bars(quiet or not ranks.first)
        self.log: Log | None = None
        self.listening = self._to_listen_to() if ranks.first and config.log.listen_every else None
        self._waited_s = 0.0
        self._since_s = time.monotonic()

    def to_the_end(self, first: int, stop: StopRequest) -> int:
        config, step = self.config, first
        if self.ranks.first:
            self.log = Log(self.store.folder, first)
        for step, samples in self._samples(first):
            scalars = update(self.task, self.sides, config.optim, self._pieces(samples, step), self.ranks)
            last, stopping = step == config.train.steps, stop.agreed(self.ranks)
            saving = last or stopping or _due(step, config.checkpoint.every)
            if saving or _due(step, config.log.every):
                self._report(step, scalars)
            if last or _due(step, config.log.listen_every):
                self._listen(step)
            if saving:
                self._save(step)
            self.bars("train", step - first, config.train.steps - first)
            if stopping and not last:
                log.info("Stopped after step %d; go on with --resume.", step)
                return stop.exit_code
        if self.ranks.first:
            log.info("%s", self.store.write_result(self.task, step))
        barrier(self.ranks)
        return 0

    def close(self) -> None:
        self.bars.close()
        if self.log is not None:
            self.log.close()

    def _samples(self, first: int) -> Iterator[tuple[int, Tensor]]:
        steps, seed = range(first + 1, self.config.train.steps + 1), self.config.train.seed
        with closing(self.data.batches(seed, steps, self.positions, self.config.data.workers)) as batches:
            for step in steps:
                asked_s = time.monotonic()
                samples = next(batches).to(self.ranks.device)
                self._waited_s += time.monotonic() - asked_s
                yield step, samples

    def _pieces(self, samples: Tensor, step: int) -> list[tuple[Tensor, Places]]:
        size = len(samples) // self.config.train.accumulation
        return [
            (part, Places(self.config.train.seed, step, tuple(self.positions[i * size : (i + 1) * size])))
            for i, part in enumerate(samples.split(size))
        ]

    def _report(self, step: int, scalars: dict[str, Tensor]) -> None:
        names = sorted(scalars)
        values = mean_over_ranks(torch.stack([scalars[name].float() for name in names]), self.ranks).tolist()
        found = dict(zip(names, values, strict=True))
        if not all(map(math.isfinite, values)):
            worst = next(name for name, value in found.items() if not math.isfinite(value))
            raise MMAudioError(
                f"At step {step} {worst} is {found[worst]}. The last checkpoint was made before; go on from it with --resume "
                "and a lower optim.lr, or set optim.clip_norm."
            )
        now_s = time.monotonic()
        found["time/data_share"] = self._waited_s / max(1e-9, now_s - self._since_s)
        self._waited_s, self._since_s = 0.0, now_s
        found["rate"] = self.sides.generator.param_groups[0]["lr"]
        if self.log is not None:
            self.log.scalars(step, found)

    def _save(self, step: int) -> None:
        if self.ranks.first:
            self.store.save(self.task, self.sides, step)
            if self.data.bad:
                write_report(sorted(self.data.bad, key=lambda bad: bad.line), self.store.folder / "bad.jsonl")
        barrier(self.ranks)

    def _to_listen_to(self) -> Tensor:
        # Drawn before the training begins: what is wrong with the files must not end a run in its middle.
        split = self.config.data.held_out_split or self.config.data.split
        held_out = segments_of(self.config, split, self.config.log.listen_s)
        return held_out.batch(self.config.train.seed, 0, range(self.config.log.listen_segments))

    def _listen(self, step: int) -> None:
        if self.log is None or self.listening is None:
            return
        measured, shown = self.task.listen(self.listening.to(self.ranks.device))
        rate_hz = audio_of(self.config).sample_rate_hz
        self.log.scalars(step, measured)
        self.log.shown(step, shown, rate_hz, self.listening.shape[1] / rate_hz)


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0

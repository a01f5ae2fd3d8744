"""The run: steps, and what comes between them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.media.atomic import atomic_path

from ..config.folders import without_folders_in
from ..config.load import read_toml
from ..config.schema import RunConfig
from ..config.tables import dump_toml, from_table, to_table
from ..data.batch import Batch
from ..data.index import Index
from ..ema.snapshots import write_snapshots
from ..engine import checkpoint
from ..engine.distributed import Ranks, barrier, started, whole
from ..engine.health import Health, HealthRule
from ..engine.signals import StopRequest
from ..lora.file import lora_state, save_lora
from ..lora.inject import draw_dropout
from .feed import Feed
from .fixed import fixed_samples
from .initialise import licence_of_base
from .log import Log
from .objective import Draws, draws, without_captions
from .optim import learning_rate
from .preview import Preview
from .setup import check_steps, load_data, make_stream, make_trained, same_run
from .step import train_step
from .validate import Validation, bucket_names

log = logging.getLogger("mmaudio")
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def train(config: RunConfig, quiet: bool = False) -> int:
    """Trains as ``config`` says, going on from the last checkpoint in its folder where there is one; returns an exit code.

    0 when all steps were done, 130 or 143 when a signal ended it (after a checkpoint was saved). Under torchrun every process
    calls it.

    Raises:
        InputError, WeightsError, DownloadError, DependencyError: for what a user can mend.
        UnhealthyError: when the loss left the limits; see ``engine.health``.
        PeerError: when another process of the run ended.
    """
    device = None if config.train.device == "auto" else config.train.device
    with started(device) as ranks, StopRequest() as stop:
        if not ranks.first:
            log.setLevel(max(log.level, logging.WARNING))
        run = Run(config, ranks, quiet)
        with run.log, Feed(run.stream, run.draws, run.start, ranks.device) as feed:
            run.begin()
            for step in range(run.start, config.train.steps):
                run.step(step, feed)
                if stop.agreed(ranks):
                    run.save(step + 1)
                    log.info("Stopped after step %d; the same command goes on from there.", step + 1)
                    return stop.exit_code
            run.end()
    return 0


class Run:
    """One process's part of a run. ``start``: steps that were done before."""

    def __init__(self, config: RunConfig, ranks: Ranks, quiet: bool = False) -> None:
        self.config, self.ranks = config, ranks
        self.folder = Path(config.train.folder).expanduser()
        checkpoints = self.folder / "checkpoints"
        checkpoint.clean(checkpoints, ranks)
        last = checkpoint.latest(checkpoints)
        check_steps(config, checkpoint.step_of(last) if last is not None else 0)
        self.index, held_out = load_data(config)
        _write_config(config, self.folder, ranks, begun=last is not None)
        self.stream = make_stream(config, self.index, ranks)
        self._licence = licence_of_base(config.model)
        self.trained = make_trained(config, self.index, ranks, resumed=last is not None)
        self.health = Health(HealthRule(**asdict(config.health)), self.folder / "bad_batches.jsonl", ranks)
        self.start, ratio = self._resume(last)
        self.saved = self.start if last is not None else -1
        active = ranks.first
        self.log = Log(
            self.folder,
            self.start,
            config.train.steps,
            config.train.global_batch,
            active,
            config.log.wandb_project,
            quiet,
        )
        self.validation = self._make_validation(held_out, ratio)
        self.preview: Preview | None = None
        if config.preview.every and held_out is not None:
            clips = fixed_samples(held_out, config.preview.clips)
            folder, seed, captions = self.folder / "previews", config.train.seed, config.data.captions
            self.preview = Preview(config.preview, clips, folder, seed, ranks, self.log, captions)

    def draws(self, step: int, batch: Batch) -> Draws:
        """This batch's draws, on the CPU."""
        config = self.config
        latent, spec = self.index.widths.latent, self.trained.spec
        made = draws(config.train.seed, step, batch.positions, latent, spec, config.dropout, config.times)
        return without_captions(made, batch, config.data.captions)

    def begin(self) -> None:
        """What is measured before the first step of a new run."""
        self.log.event(self.start, "start", world=self.ranks.world, dataset=self.index.hash)
        if not self.start:
            self._validate(0)
            if self.preview is not None and self.config.model.base:
                self.preview.write(self.trained.module, 0)

    def step(self, step: int, feed: Feed) -> None:
        """Step ``step`` = 0, 1, ... and what is due after it."""
        config, trained, done = self.config, self.trained, step + 1
        rate = learning_rate(step, config.train.steps, config.optim)
        result = train_step(
            trained.module,
            trained.parameters,
            trained.optimizer,
            self._pieces(step, feed),
            config.train.accumulation,
            rate,
            config.train.clip_norm,
            self.ranks,
            partial(self.health.check, done),  # numbered as in log.jsonl and in the names of files
        )
        if trained.ema is not None:
            trained.ema.update(done)
        self.log.take(result)
        if _due(done, config.log.every):
            self.log.write(done, rate, feed.waited_s, self.ranks.device)
        self.log.pause()
        if _due(done, config.ema.snapshot_every):
            self._snapshot(done)
        if _due(done, config.checkpoint.every):
            self.save(done)
        if _due(done, config.validation.every):
            self._validate(done)
        if self.preview is not None and _due(done, config.preview.every):
            self.preview.write(trained.module, done)
        self.log.resume()

    def end(self) -> None:
        """The last checkpoint and snapshots of a run that did all its steps."""
        steps = self.config.train.steps
        if self.saved != steps:
            self.save(steps)
        if self.start < steps and not _due(steps, self.config.ema.snapshot_every):
            self._snapshot(steps)
        self.log.event(steps, "end", skipped=self.health.skipped)

    def save(self, done: int) -> None:
        """A checkpoint after ``done`` steps, and the LoRA's file where one is trained. All ranks must call."""
        trained = self.trained
        extra = {
            "step": done,
            "config": to_table(self.config),
            "dataset": self.index.hash,
            "world": self.ranks.world,
            "health": self.health.state_dict(),
            "first_ratio": self.validation.first_ratio if self.validation is not None else None,
            "about": self.about(),
        }
        folder = self.folder / "checkpoints"
        keep = self.config.checkpoint.keep
        checkpoint.save(folder, done, trained.module, trained.optimizer, trained.ema, extra, self.ranks, keep)
        self.saved = done
        if self.config.lora.rank:
            state = {name: whole(value) for name, value in lora_state(trained.network).items()}
            if self.ranks.first:
                (self.folder / "lora").mkdir(exist_ok=True)
                target = self.folder / "lora" / f"step-{done:08d}.safetensors"
                save_lora(trained.network, target, {"step": done, **self.about()}, state=state)
            barrier(self.ranks)

    def about(self) -> dict[str, Any]:
        """What files of this run say of themselves; LoRAs and snapshots are shared, so no folder of this machine."""
        return {
            "spec": self.trained.spec.to_dict(),
            "variant": self.trained.spec.variant,
            "dataset": self.index.hash,
            "licence": self._licence,
            "config": without_folders_in(to_table(self.config)),
        }

    def _pieces(self, step: int, feed: Feed) -> Any:
        for batch, drawn in feed.pieces():
            if self.config.lora.dropout:
                draw_dropout(self.trained.network, self.config.train.seed, step, batch.positions)
            yield batch, drawn

    def _resume(self, last: Path | None) -> tuple[int, float | None]:
        if last is None:
            return 0, None
        trained = self.trained
        extra = checkpoint.load(last, trained.module, trained.optimizer, trained.ema, self.ranks)
        self.health.load_state_dict(extra["health"])
        log.info("Going on after step %d, from %s.", extra["step"], last)
        if extra["dataset"] != self.index.hash:
            log.warning("The training data are not those of the checkpoint; their order begins anew at the same step number.")
        return int(extra["step"]), extra["first_ratio"]

    def _make_validation(self, held_out: Index | None, ratio: float | None) -> Validation | None:
        config = self.config.validation
        if not config.every or held_out is None:
            return None
        own, other = (fixed_samples(index, config.samples) for index in (self.index, held_out))
        validation = Validation(config, other, own, self.config.train.seed, self.ranks, self.config.data.captions)
        validation.first_ratio = ratio
        return validation

    def _validate(self, done: int) -> None:
        if self.validation is None:
            return
        found = self.validation.measure(self.trained.module)
        values = {"held_out": _mean(found.held_out), "training": _mean(found.training), "ratio": found.ratio}
        for name, losses in (("held_out", found.held_out), ("training", found.training)):
            values |= {f"{name}/t {bucket}": loss for bucket, loss in zip(bucket_names(), losses, strict=True)}
        self.log.points(done, "validation", values)
        log.info("step %d: held-out loss %.4f, training loss %.4f", done, values["held_out"], values["training"])
        if sentence := self.validation.parted(found):
            log.warning(sentence)
            self.log.event(done, "warning", text=sentence)

    def _snapshot(self, done: int) -> None:
        ema = self.config.ema
        if self.trained.ema is not None and ema.snapshot_every:
            dtype = DTYPES[ema.snapshot_dtype]
            write_snapshots(self.folder / "ema", done, self.trained.ema, self.ranks, self.about(), dtype)


def _write_config(config: RunConfig, folder: Path, ranks: Ranks, begun: bool) -> None:
    """``config.toml`` as it is used, after it was compared with that of a run that is gone on with."""
    path = folder / "config.toml"
    if begun and path.is_file():
        same_run(config, from_table(RunConfig, read_toml(path), str(path)))
    barrier(ranks)  # all have read what the first one is about to replace
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text("# What this run was started with.\n" + dump_toml(to_table(config)), encoding="utf-8")
    barrier(ranks)


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

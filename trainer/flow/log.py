"""What a run says of itself: log.jsonl, TensorBoard, a bar with rate and time left; written by the first rank."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.errors import DependencyError
from mmaudio_core.media.atomic import atomic_path
from mmaudio_core.pipeline.report import peak_bytes
from mmaudio_core.types import Audio

from .step import StepResult

log = logging.getLogger("mmaudio")


class Log:
    """Lines and points for steps ``start`` + 1 to ``steps``; to be used in a ``with`` block. Not ``active`` it does nothing.

    What a killed run had logged after ``start`` is taken back. folder: the run's. batch: samples of a step, for the rate.
    wandb_project: "" is none. quiet: no bar and no lines on the terminal.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        steps: int,
        batch: int,
        active: bool = True,
        wandb_project: str = "",
        quiet: bool = False,
    ) -> None:
        self._folder, self._start, self._steps, self._batch = folder, start, steps, batch
        self._active, self._project, self._quiet = active, wandb_project, quiet
        self._board: Any = None
        self._bar: Any = None
        self._wandb: Any = None
        self._results: list[StepResult] = []
        self._since_s = self._waited_s = self._paused_s = 0.0

    def __enter__(self) -> Log:
        self._since_s = time.perf_counter()
        if self._active:
            self._take_back()
            if self._project:
                self._wandb = _start_wandb(self._project, self._folder)
            self._board = _open_board(self._folder / "tensorboard", self._start)
            self._bar = self._make_bar()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._active:
            self._bar.close()
            self._board.close()
            if self._wandb is not None:
                self._wandb.finish()

    def event(self, step: int, event: str, **values: Any) -> None:
        """A line of log.jsonl that is no step: {"step", "event", ...}."""
        if self._active:
            self._line({"step": step, "event": event, **values})

    def take(self, result: StepResult) -> None:
        """Counts a step that was done."""
        self._results.append(result)
        if self._active:
            self._bar.update(1)

    def write(self, step: int, rate: float, waited_s: float, device: torch.device) -> None:
        """A line and points for the steps since the last one. rate: learning rate. waited_s: for data, since the start."""
        done, self._results = self._results, []
        now_s = time.perf_counter()
        took_s = max(now_s - self._since_s, 1e-9)
        waited_s, self._waited_s = waited_s - self._waited_s, waited_s
        self._since_s = now_s
        if not self._active or not done:
            return
        good = [result for result in done if result.taken] or done
        values = {
            "loss": sum(result.loss for result in good) / len(good),
            "grad_norm": sum(result.grad_norm for result in good) / len(good),
            "lr": rate,
            "samples_per_s": self._batch * len(done) / took_s,
            "step_s": took_s / len(done),
            "data_share": min(1.0, waited_s / took_s),
            "skipped": sum(not result.taken for result in done),
            "peak_bytes": peak_bytes(device),
        }
        self._line({"step": step, **values})
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        self._say(step, values)

    def pause(self) -> None:
        """Leaves out of the rates what was done since the last step: a validation, a checkpoint."""
        self._paused_s = time.perf_counter()

    def resume(self) -> None:
        """The end of what ``pause`` began."""
        self._since_s += time.perf_counter() - self._paused_s

    def points(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """A line of log.jsonl and points in TensorBoard under ``group``."""
        if self._active:
            self._line({"step": step, "event": group, **values})
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def sound(self, tag: str, sound: Audio, picture: Tensor, step: int) -> None:
        """A player and a mel picture (H, W, 3) in TensorBoard."""
        if self._active:
            self._board.add_audio(tag, sound.samples[0], step, sample_rate=sound.sample_rate_hz)
            self._board.add_image(f"{tag} mel", picture, step, dataformats="HWC")

    def _take_back(self) -> None:
        path = self._folder / "log.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        with atomic_path(path) as temporary:
            temporary.write_text("".join(line for line in lines if _step_of(line) <= self._start), encoding="utf-8")

    def _line(self, values: Mapping[str, Any]) -> None:
        text = json.dumps({name: _json(value) for name, value in values.items()}, ensure_ascii=False)
        with open(self._folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _make_bar(self) -> Any:
        from tqdm import tqdm

        # disable=None: silent where stderr is no terminal.
        return tqdm(total=self._steps, initial=self._start, desc="train", unit="step", disable=True if self._quiet else None)

    def _say(self, step: int, values: Mapping[str, float]) -> None:
        text = f"loss {values['loss']:.4f}, {values['samples_per_s']:.1f} samples/s, data {values['data_share']:.0%}"
        if self._bar.disable:
            left_s = (self._steps - step) * values["step_s"]
            log.info("step %d/%d: %s, lr %.2e, %s left", step, self._steps, text, values["lr"], _clock(left_s))
        else:
            self._bar.set_postfix_str(text)


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that was cut off by a kill."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _json(value: Any) -> Any:
    # JSON has no NaN and no infinity.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes else f"{seconds:.0f} s"


def _open_board(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # a broken protobuf below it raises more than ImportError
        raise DependencyError(
            f"The training log needs tensorboard, which cannot be imported ({error}); pip install tensorboard."
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)


def _start_wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise DependencyError(f'log.wandb_project asks for wandb, which cannot be imported ({error}); set it to "".') from error
    wandb.init(project=project, dir=str(folder), name=folder.name, sync_tensorboard=True)
    return wandb

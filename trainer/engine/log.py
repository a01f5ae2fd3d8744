"""The log of a run in steps: a line of JSON and TensorBoard's points, sounds and spectrograms."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmaudio_core.errors import DependencyError
from mmaudio_core.media.spectrogram import mel_picture
from mmaudio_core.types import Mel


class Log:
    """``log.jsonl`` and ``tensorboard/`` in a run's folder; what an interrupted run wrote after ``step`` is taken back.

    Raises:
        DependencyError: when tensorboard is missing or broken.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except Exception as error:
            raise DependencyError(
                f"The log needs tensorboard ({error}); install the package with the extra [train]."
            ) from error
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._path = folder / "log.jsonl"
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        temporary = self._path.with_name("log.jsonl.partial")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self._path)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def shown(self, step: int, shown: Mapping[str, Tensor], sample_rate_hz: int, duration_s: float) -> None:
        """Spectrograms of "mel ..." (B, M, F), sounds of "sound ..." (B, N)."""
        for name, values in shown.items():
            if name.startswith("mel"):
                pictures = mel_picture(Mel(values.float().cpu(), duration_s))
                for i, picture in enumerate(pictures):
                    self._writer.add_image(f"{i}/{name}", picture, step, dataformats="HWC")
                continue
            for i, sound in enumerate(values.float().cpu().clamp(-1, 1)):
                self._writer.add_audio(f"{i}/{name}", sound[None], step, sample_rate=sample_rate_hz)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the half line of a killed run

"""The loop of the trainings of parts: in which order a step's ends come."""

from __future__ import annotations

from contextlib import closing
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import MediaError
from trainer.engine.log import Log
from trainer.engine.signals import StopRequest
from trainer.engine.steps import Rhythm, Steps

from .helpers_ranks import ONE


class Work:
    """Notes what it is asked for; a measurement fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def update(self, step: int, batch: int) -> dict[str, Tensor]:
        self.asked.append(("update", step))
        return {"loss": torch.ones(())}

    def rate(self) -> float:
        return 1.0

    def measure(self, step: int, log: Log) -> None:
        self.asked.append(("measure", step))
        raise MediaError("gone")

    def save(self, step: int) -> None:
        self.asked.append(("save", step))

    def finish(self, step: int) -> Path:
        return Path()


@pytest.mark.parametrize("steps", [2, 9])
def test_a_step_is_saved_before_it_is_measured(tmp_path: Path, steps: int) -> None:
    work = Work()
    run = Steps(work, Rhythm(steps, 1, 2, 2), tmp_path, ONE, quiet=True)
    with StopRequest() as stop, closing(run), pytest.raises(MediaError, match="gone"):
        run.to_the_end(0, repeat(0), stop)
    assert work.asked == [("update", 1), ("update", 2), ("save", 2), ("measure", 2)]

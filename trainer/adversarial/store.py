"""What a run leaves on the disk: checkpoints to go on from, and the trained part as the core loads it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.media.atomic import atomic_path
from mmaudio_core.weights.detect import variant_of
from mmaudio_core.weights.metadata import encode_part
from mmaudio_core.weights.parts import open_raw_part
from mmaudio_core.weights.registry import LICENCES
from mmaudio_core.weights.safetensors_file import write_safetensors

from ..config.tables import dump_toml, to_table
from .config import AnyConfig
from .step import Sides, Task

NAME = re.compile(r"step-(\d{6,})\.pt")
UNSAID = "unspecified: that of its training data"
FIXED = ("model", "data.manifest", "data.split", "data.segment_frames", "discriminator", "train.seed", "train.batch")
"""What may not change when a run goes on."""


class Store:
    """The folder of one run: ``config.toml``, ``checkpoints/step-000123.pt`` and ``<kind>.safetensors``."""

    def __init__(self, folder: Path, config: AnyConfig) -> None:
        self.folder, self.config = folder, config
        self._checkpoints = folder / "checkpoints"

    def open(self, resume: bool) -> None:
        """Makes the folder and writes the configuration into it.

        Raises:
            InputError: when it holds a run already and ``resume`` is false.
        """
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        for leftover in self._checkpoints.glob(".step-*"):
            leftover.unlink(missing_ok=True)  # of a run that was killed while it wrote
        found = self.checkpoints()
        if found and not resume:
            raise InputError(
                f"{self.folder} holds a run at {found[-1].stem}; go on with --resume, or choose another train.folder."
            )
        with atomic_path(self.folder / "config.toml") as temporary:
            temporary.write_text(dump_toml(to_table(self.config)), encoding="utf-8")

    def checkpoints(self) -> list[Path]:
        """From the first to the last."""
        found = [(int(match[1]), path) for path in self._checkpoints.iterdir() if (match := NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def save(self, task: Task, sides: Sides, step: int) -> Path:
        """Writes the checkpoint of ``step``, whole or not at all, then removes all but the last ``checkpoint.keep``."""
        state = {
            "step": step,
            "config": to_table(self.config),
            "generator": task.generator.state_dict(),
            "discriminator": task.discriminator.state_dict(),
            "generator_optimizer": sides.generator.state_dict(),
            "discriminator_optimizer": sides.discriminator.state_dict(),
        }
        path = self._checkpoints / f"step-{step:06d}.pt"
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
        for old in self.checkpoints()[: -self.config.checkpoint.keep]:
            old.unlink(missing_ok=True)
        return path

    def load(self, path: Path, task: Task, sides: Sides, device: torch.device) -> int:
        """Fills both sides from a checkpoint; returns its step.

        Raises:
            WeightsError: when the file is damaged.
            InputError: when the run was begun with another model, other data or another batch.
        """
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            begun, step = state["config"], int(state["step"])
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise WeightsError(f"The checkpoint {path} is damaged; remove it to go on from the one before.") from error
        now = to_table(self.config)
        for name in FIXED:
            if _at(begun, name) != _at(now, name):
                raise InputError(
                    f"The run in {self.folder} was begun with another {name} ({_at(begun, name)} instead of {_at(now, name)}); "
                    "set it back or choose another train.folder."
                )
        task.generator.load_state_dict(state["generator"])
        task.discriminator.load_state_dict(state["discriminator"])
        sides.generator.load_state_dict(state["generator_optimizer"])
        sides.discriminator.load_state_dict(state["discriminator_optimizer"])
        return step

    def write_result(self, task: Task, step: int) -> Path:
        """Writes the trained part under published names with its metadata; the core loads it as it is."""
        path = self.folder / f"{task.spec.kind}.safetensors"
        extra = {"variant": variant_of(task.spec), "source_name": self.folder.name, "step": step, "licence": self._licence()}
        write_safetensors(path, task.result(), encode_part(task.spec, **extra))
        return path

    def _licence(self) -> str:
        base, kind = self.config.model.base, "vae" if hasattr(self.config.loss, "kl") else "vocoder"
        if self.config.train.licence or not base:
            return self.config.train.licence or UNSAID
        return open_raw_part(base, kind).values.get("licence") or LICENCES[kind]


def _at(table: Any, name: str) -> Any:
    for key in name.split("."):
        table = table.get(key) if isinstance(table, dict) else None
    return table

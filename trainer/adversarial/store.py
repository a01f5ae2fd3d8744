"""What a run leaves on the disk: checkpoints to go on from, and the trained part as the core loads it."""

from __future__ import annotations

from pathlib import Path

from mmaudio_core.weights.detect import variant_of
from mmaudio_core.weights.metadata import encode_part
from mmaudio_core.weights.safetensors_file import write_safetensors

from ..config.tables import dump_toml, to_table
from ..engine.licence import licence_of_result
from ..engine.optimizers import settings_kept
from ..engine.run_folder import RunFolder
from .config import AnyConfig
from .step import Sides, Task

FIXED = ("model", "data.manifest", "data.split", "data.segment_frames", "discriminator", "train.seed", "train.batch")
"""What may not change when a run goes on."""


class Store(RunFolder):
    """The folder of one run, and in it ``<kind>.safetensors``."""

    def __init__(self, folder: Path, config: AnyConfig) -> None:
        table = to_table(config)
        super().__init__(folder, table, dump_toml(table), FIXED, config.checkpoint.keep)
        self.config = config

    def save(self, task: Task, sides: Sides, step: int) -> Path:
        """Writes the checkpoint of ``step``, whole or not at all, then removes all but the last ``checkpoint.keep``."""
        state = {
            "generator": task.generator.state_dict(),
            "discriminator": task.discriminator.state_dict(),
            "generator_optimizer": sides.generator.state_dict(),
            "discriminator_optimizer": sides.discriminator.state_dict(),
        }
        return self.write(step, state)

    def load(self, path: Path, task: Task, sides: Sides) -> int:
        """Fills both sides from a checkpoint; returns its step.

        Raises:
            WeightsError: when the file is damaged.
            InputError: when the run was begun with another model, other data or another batch.
        """
        step, state = self.read(path)
        task.generator.load_state_dict(state["generator"])
        task.discriminator.load_state_dict(state["discriminator"])
        with settings_kept(sides.generator), settings_kept(sides.discriminator):
            sides.generator.load_state_dict(state["generator_optimizer"])
            sides.discriminator.load_state_dict(state["discriminator_optimizer"])
        return step

    def write_result(self, task: Task, step: int) -> Path:
        """Writes the trained part under published names with its metadata; the core loads it as it is."""
        path = self.folder / f"{task.spec.kind}.safetensors"
        licence = licence_of_result(self.config.train.licence, self.config.model.base, task.spec.kind)
        extra = {"variant": variant_of(task.spec), "source_name": self.folder.name, "step": step, "licence": licence}
        write_safetensors(path, task.result(), encode_part(task.spec, **extra))
        return path

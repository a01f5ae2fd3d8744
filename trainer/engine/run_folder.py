"""What a run in steps leaves on the disk: its configuration, and checkpoints to go on from, each one file."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.media.atomic import atomic_path

from .safe_reader import refusal

NAME = re.compile(r"step-(\d{6,})\.pt")


class RunFolder:
    """``config.toml`` and ``checkpoints/step-000123.pt`` in ``folder``, of a run that is held by one process.

    table, text: the configuration, as it is compared and as it is written. fixed: dotted names of what may not change when
    the run goes on. keep: how many of the last checkpoints stay.
    """

    def __init__(self, folder: Path, table: Mapping[str, Any], text: str, fixed: Sequence[str], keep: int) -> None:
        self.folder = folder
        self._table, self._text, self._fixed, self._keep = table, text, fixed, keep
        self._checkpoints = folder / "checkpoints"

    def open(self, resume: bool) -> None:
        """Makes the folder; ``write_config`` follows once it is clear that the run may go on.

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

    def write_config(self) -> None:
        """Writes the configuration, in place of the one that the run was begun with."""
        with atomic_path(self.folder / "config.toml") as temporary:
            temporary.write_text(self._text, encoding="utf-8")

    def checkpoints(self) -> list[Path]:
        """From the first to the last."""
        found = [(int(match[1]), path) for path in self._checkpoints.iterdir() if (match := NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def write(self, step: int, state: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of ``step``, whole or not at all, then removes all but the last ones."""
        path = self._checkpoints / f"step-{step:06d}.pt"
        with atomic_path(path) as temporary:
            torch.save({"step": step, "config": dict(self._table), **state}, temporary)
        for old in self.checkpoints()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def read(self, path: Path) -> tuple[int, dict[str, Any]]:
        """The step and the state of a checkpoint, on the CPU: what is filled from it takes each tensor where it belongs.

        Raises:
            WeightsError: when the file is damaged, or holds code.
            InputError: when the run was begun with other values of what is fixed.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            begun, step = state["config"], int(state["step"])
        except pickle.UnpicklingError as error:
            raise WeightsError(f"The checkpoint {path} cannot be read: {refusal(path.name, error)}.") from error
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"The checkpoint {path} is damaged; remove it to go on from the one before.") from error
        for name in self._fixed:
            was, now = _at(begun, name), _at(self._table, name)
            if was != now:
                raise InputError(
                    f"The run in {self.folder} was begun with another {name} ({was} instead of {now}); "
                    "set it back or choose another train.folder."
                )
        return step, state


def _at(table: Any, name: str) -> Any:
    for key in name.split("."):
        table = table.get(key) if isinstance(table, Mapping) else None
    return table

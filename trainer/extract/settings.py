"""What extraction was asked for, kept beside the shards so that all of a data set is made alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.spec.timing import check_duration

FORMAT = 1
SETTINGS_NAME = "settings.json"
EVERY_SPLIT = "all"
_WORDS = {
    "manifest_sha256": "the manifest's content",
    "excluded_sha256": "the lists of excluded ids",
    "encoders": "the encoders' weights",
    "dtype": "the encoders' dtype",
}
"""What is said of settings whose values are no use in a message."""


@dataclass(frozen=True)
class ExtractSettings:
    """What the content of the shards depends on, beside the encoders.

    rows_per_shard: consecutive rows of the manifest that become one shard. split: the rows to take; "all" takes every one.
    video, text: whether CLIP and Synchformer, and CLIP's text tower, are run; latents are always made.
    """

    duration_s: float = 8.0
    rows_per_shard: int = 64
    split: str = "train"
    video: bool = True
    text: bool = True

    def __post_init__(self) -> None:
        check_duration(self.duration_s)
        if self.rows_per_shard < 1:
            raise InputError(f"{self.rows_per_shard} rows per shard were asked for; 1 or more are needed.")


@dataclass(frozen=True)
class Ranks:
    """This process's number among those of ``torchrun``; blocks are shared out by it."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Ranks:
        """Of ``torchrun``'s RANK and WORLD_SIZE; alone without them."""
        return cls(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)))


def describe(
    settings: ExtractSettings,
    manifest_sha256: str,
    excluded_sha256: list[str],
    audio: str,
    dtype: str,
    encoders: Mapping[str, str],
) -> dict[str, Any]:
    """All that shards of one folder must share, as plain JSON values.

    dtype: what CLIP and Synchformer compute in. encoders: SHA-256 of the weights of each.
    """
    return {
        "format": FORMAT,
        **asdict(settings),
        "audio": audio,
        "dtype": dtype,
        "manifest_sha256": manifest_sha256,
        "excluded_sha256": sorted(excluded_sha256),
        "encoders": dict(encoders),
    }


def claim(folder: Path, said: Mapping[str, Any], ranks: Ranks) -> None:
    """Makes ``folder`` one of shards with the settings ``said``, or checks that it is.

    Raises:
        InputError: when shards were made there with other settings, encoders or another manifest.
        MediaError: when the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"The folder {folder} cannot be made: {error.strerror}. Choose another one.") from error
    path = folder / SETTINGS_NAME
    if not path.exists():
        if any(folder.glob("shard-*.safetensors")):
            raise InputError(f"{folder} holds shards but no {SETTINGS_NAME}; choose another folder.")
        write_text(path, json.dumps(said, indent=1) + "\n", ranks)
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in {**there, **said} if there.get(name) != said.get(name)]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); choose another folder.") from error
    if differing:
        listed = ", ".join(
            _WORDS.get(name, f"{name} ({there.get(name)} there, {said.get(name)} now)") for name in sorted(differing)
        )
        raise InputError(f"{folder} was begun with other settings: {listed}. Use the same again, or another folder.")


def write_text(path: Path, text: str, ranks: Ranks) -> None:
    """Writes a small file whole or not at all; the temporary name is the rank's own, and its next run takes it away.

    Raises:
        MediaError: when the folder cannot be written to.
    """
    partial = path.with_name(f"{path.name}.{ranks.rank}.partial")
    try:
        with open(partial, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(f"{path} could not be written: {error.strerror}. Check the space and the permissions.") from error


def remove_stale(folder: Path, ranks: Ranks) -> None:
    """Removes what a killed run of this rank left of small files; rank 0 also does it for ranks that there are no more.

    A half-written shard needs no care: the same name is written anew.
    """
    for partial in folder.glob("*.*.partial"):
        mark = partial.name.split(".")[-2]
        if mark.isdigit() and (int(mark) == ranks.rank or (ranks.rank == 0 and int(mark) >= ranks.world)):
            partial.unlink(missing_ok=True)

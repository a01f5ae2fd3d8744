"""What ``generate`` returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..types import Audio
from .report import Report

AUDIO_ENDINGS = (".flac", ".wav")
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv")


@dataclass(frozen=True)
class Take:
    """One generated sound: ``audio`` (1, 1, N), with the prompt and seed that made it."""

    audio: Audio
    prompt: str
    seed: int


def takes_of(audio: Audio, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Take, ...]:
    """``audio`` (B, 1, N) as B takes, with the prompt and seed of each."""
    rows = zip(audio.samples, prompts, seeds, strict=True)
    return tuple(Take(Audio(row[None], audio.sample_rate_hz), prompt, seed) for row, prompt, seed in rows)


@dataclass(frozen=True)
class Result:
    """Every take, in the order prompt by prompt and within a prompt seed by seed.

    duration_s: seconds of sound; shorter than asked where the video ended early.
    video: the file that the sound belongs to, with ``start_s``; ``None`` for text, images and frame tensors.
    whole_video: no duration was asked for, so a muxed file keeps every video packet.
    """

    takes: tuple[Take, ...]
    duration_s: float
    variant: str
    report: Report
    video: Path | None = None
    start_s: float = 0.0
    whole_video: bool = False

    @property
    def audio(self) -> Audio:
        """The first take."""
        return self.takes[0].audio

    def paths(self, path: Path) -> list[Path]:
        """What ``save`` writes for ``path``, take by take."""
        return [path] if len(self.takes) == 1 else [path.with_stem(f"{path.stem}_{i}") for i in range(1, len(self.takes) + 1)]

    def save(self, path: str | os.PathLike[str], original_audio: Literal["replace", "keep"] = "replace") -> list[Path]:
        """Writes every take and returns the paths; several takes become ``name_1.flac``, ``name_2.flac``, ...

        The ending chooses: .flac, .wav, or .mp4 (.mov, .mkv) for the source video with its packets copied and the new sound.

        Raises:
            InputError: for another ending, or a video ending where there is no source video file.
            MediaError: when writing fails; nothing half-written remains.
        """
        path = Path(path)
        check_target(path, self.video, original_audio)
        paths = self.paths(path)
        with self.report.stage("write"):
            for take, target in zip(self.takes, paths, strict=True):
                self._write(take.audio, target, original_audio)
        return paths

    def _write(self, audio: Audio, target: Path, original_audio: Literal["replace", "keep"]) -> None:
        if target.suffix.lower() in AUDIO_ENDINGS:
            from ..media.audio_out import save_audio

            save_audio(audio, target)
            return
        from ..media.mux import mux_audio

        assert self.video is not None
        duration_s = None if self.whole_video else self.duration_s
        mux_audio(self.video, audio, target, duration_s=duration_s, start_s=self.start_s, original_audio=original_audio)


def check_target(path: Path, video: Path | None, original_audio: str = "replace") -> None:
    """Says before any work is done that ``path`` cannot be written.

    Raises:
        InputError: for an ending that cannot be written, a folder that does not exist, or sound to be kept in a file that
            holds no video.
        MediaError: when ``video`` cannot be read, or its pictures or the sound to be kept cannot go into such a file.
    """
    ending = path.suffix.lower()
    if original_audio == "keep" and ending in AUDIO_ENDINGS:
        raise InputError(
            f"The original sound can only be kept in a video; {path.name} is none. Use {', '.join(VIDEO_ENDINGS)}."
        )
    if ending in VIDEO_ENDINGS and video is None:
        raise InputError(f"{path.name} is a video file and no video was given; use {' or '.join(AUDIO_ENDINGS)} for the sound.")
    if ending not in (*AUDIO_ENDINGS, *VIDEO_ENDINGS):
        raise InputError(f"{path.name} has the ending {ending!r}; use one of {', '.join((*AUDIO_ENDINGS, *VIDEO_ENDINGS))}.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} for {path.name} does not exist; create it first.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"The folder {path.parent} for {path.name} cannot be written to; choose another one.")
    if ending in VIDEO_ENDINGS and video is not None:
        from ..media.mux import check_mux

        check_mux(video, path, "keep" if original_audio == "keep" else "replace")

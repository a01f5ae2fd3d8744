"""A row of the manifest to the crops that the encoders take: pixels, and sound at its level (spec section 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.errors import DependencyError, MediaError
from mmaudio_core.media.resample import resample
from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.media.video import read_video
from mmaudio_core.spec.audio import AudioSpec
from mmaudio_core.spec.timing import SYNC_TOKENS_PER_SEGMENT, SequenceLengths, segment_frames

from ..data.crops import Crop, Kind, crops_of
from ..data.guard import Guard
from ..data.manifest import Row, resolve
from ..data.probe import SILENT_PEAK, probe
from ..data.report import BadRow, Reason
from ..data.shards import Record

PEAK = 0.95
"""The largest sample of a training clip, whatever it was recorded at."""


@dataclass(frozen=True)
class Clip:
    """One crop before the encoders.

    samples: float32 (N,), mono, N = the samples of L latent tokens, peak 0.95.
    clip_frames: uint8 (V, 3, size, size). sync_frames: uint8 (8 segments + 8, 3, size, size). Both None without pictures.
    """

    record: Record
    samples: Tensor
    clip_frames: Tensor | None = None
    sync_frames: Tensor | None = None


@dataclass(frozen=True)
class ClipReader:
    """Rows to clips, for one data set; made to be called from several threads.

    manifest: the file that relative paths count from. lengths: tokens of a clip. clip_size, sync_size: pixels of a side.
    video: read pictures. guard: ids that must not be in the data. workers: threads per video file.
    """

    manifest: Path
    audio: AudioSpec
    lengths: SequenceLengths
    clip_size: int
    sync_size: int
    video: bool = True
    guard: Guard | None = None
    workers: int | None = None

    def read(self, row: Row | BadRow) -> list[Clip | BadRow]:
        """The row's crops in order, and what is wrong with the row or with single crops of it.

        Raises:
            DependencyError: a package is missing. Nothing that is wrong with one file is raised.
        """
        if isinstance(row, BadRow):
            return [row]
        if self.guard is not None and (name := self.guard.find(row)):
            return [_bad(row, "overlap", f"The excluded ids name {name}.")]
        path = resolve(row, self.manifest)
        if not path.is_file():
            return [_bad(row, "missing", "There is no such file.")]
        try:
            return self._read(row, path)
        except (DependencyError, MemoryError):
            raise
        except MediaError as error:
            return [_bad(row, "unreadable", str(error))]
        except Exception as error:  # among a million files some fail as none did before, and the others must go on
            return [_bad(row, "unreadable", f"{path.name}: {type(error).__name__}: {error}")]

    def _read(self, row: Row, path: Path) -> list[Clip | BadRow]:
        found = probe(path)
        if not found.has_sound:
            return [_bad(row, "no sound", f"{path.name} holds no sound track.")]
        sound = load_sound(path)
        mono = sound.samples[0].mean(dim=0)
        if not torch.isfinite(mono).all():
            return [_bad(row, "unreadable", f"{path.name} holds samples that are no numbers.")]
        # A recording's length is what was decoded; a video's is that of its pictures, which are decoded below.
        heard_s = mono.shape[0] / sound.sample_rate_hz
        length_s = found.duration_s if found.has_video and found.duration_s is not None else heard_s
        crops = crops_of(found.kind, length_s, row.start_s, row.end_s, self.lengths.duration_s)
        if not crops:
            return [_bad(row, "too short", f"{length_s:.2f} s; {self.lengths.duration_s:g} s are needed.")]
        return [self._clip(row, path, found.kind, crop, len(crops) > 1, mono, sound.sample_rate_hz) for crop in crops]

    def _clip(self, row: Row, path: Path, kind: Kind, crop: Crop, several: bool, mono: Tensor, rate_hz: int) -> Clip | BadRow:
        name = f"{row.id}@{crop.start_s:g}" if several else row.id
        samples = crop_samples(mono, rate_hz, crop.start_s, self.audio, self.lengths.latent)
        peak = float(samples.abs().max())
        if peak < SILENT_PEAK:
            return _bad(
                row, "silent", f"The largest sample is {peak:.1e} of full scale; below {SILENT_PEAK:g} is silence.", name
            )
        record = Record(name, kind, row.caption, row.path, crop.start_s, crop.duration_s)
        clip = Clip(record, samples * (PEAK / peak))
        if kind == "at" or not self.video:
            return clip
        frames = read_video(
            path,
            crop.duration_s,
            start_s=crop.start_s,
            clip_size=self.clip_size,
            sync_size=self.sync_size,
            hold_last=True,
            workers=self.workers,
        )
        wanted = sync_frames_of(self.lengths)
        if frames.sync is None or len(frames.clip) < self.lengths.clip or len(frames.sync) < wanted:
            return _bad(row, "too short", f"Its pictures end after {frames.duration_s:.2f} s.", name)
        return Clip(record, clip.samples, frames.clip[: self.lengths.clip], frames.sync[:wanted])


def crop_samples(mono: Tensor, rate_hz: int, start_s: float, audio: AudioSpec, latent_tokens: int) -> Tensor:
    """(N',) at ``rate_hz`` -> (N,) from ``start_s`` on at the format's rate, as many as L latent tokens stand for.

    Sound beyond the crop's end is used where L tokens reach further, silence where there is none.
    """
    wanted = audio.samples_of_latents(latent_tokens)
    first = round(start_s * rate_hz)
    piece = mono[first : first + math.ceil(wanted * rate_hz / audio.sample_rate_hz)]
    if not piece.shape[0]:
        return mono.new_zeros(wanted)
    piece = resample(piece, rate_hz, audio.sample_rate_hz)[:wanted]
    return F.pad(piece, (0, wanted - piece.shape[0]))


def sync_frames_of(lengths: SequenceLengths) -> int:
    """Frames that the segments of S sync tokens cover."""
    return segment_frames(lengths.sync // SYNC_TOKENS_PER_SEGMENT)


def _bad(row: Row, reason: Reason, detail: str, name: str | None = None) -> BadRow:
    return BadRow(row.line, row.id if name is None else name, row.path, reason, detail)

"""The world as files: clips with sound, sounds alone, stills and silent videos, with a manifest and the truth."""

from __future__ import annotations

import hashlib
import json
import wave
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from mmaudio_core.errors import InputError
from mmaudio_core.media.atomic import atomic_path
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.opening import import_av

from ..data.manifest import Row, write_manifest
from .clip import HELD_OUT_SEED, WorldClip, make_clip
from .unseen import make_sound

ENCODING = {"crf": "14", "preset": "veryfast", "mbtree": "0", "threads": "1"}
"""With x264's macroblock tree the same pictures became different files from one time to the next, and what it writes depends
on its threads; without both a clip is always the same file."""
MANIFEST, TRUTH = "data.tsv", "events.jsonl"
Given = tuple[Path, "Job", int]
Run = Callable[[Iterable[Given]], Iterator[dict[str, object]]]


@dataclass(frozen=True)
class WorldFiles:
    """How much of the world to write.

    clips: videos with sound. sounds: recordings without pictures. val, test: videos of held-out seeds, splits of those names.
    silent, stills: videos without sound and single pictures of further held-out seeds, which are in no manifest.
    seed: the first; clips take the seeds from it on, and so do sounds, whose seeds mean something else.
    """

    clips: int
    sounds: int = 0
    val: int = 0
    test: int = 0
    silent: int = 0
    stills: int = 0
    seed: int = 0
    sample_rate_hz: int = 16_000

    def __post_init__(self) -> None:
        counts = (self.clips, self.sounds, self.val, self.test, self.silent, self.stills)
        if min(counts) < 0 or not sum(counts):
            raise InputError(
                f"{counts} clips, sounds, val, test, silent and stills were asked for; one or more is needed, none below 0."
            )
        if not 0 <= self.seed <= HELD_OUT_SEED - max(self.clips, self.sounds):
            raise InputError(
                f"The seed {self.seed} was given; 0 to {HELD_OUT_SEED} less the clips is needed: those above are held out."
            )


@dataclass(frozen=True)
class Job:
    """One file to make."""

    kind: str
    seed: int
    split: str
    name: str


def jobs_of(given: WorldFiles) -> list[Job]:
    """Every file, in the order of the manifest."""
    out = [Job("clip", given.seed + k, "train", f"clips/clip_{given.seed + k:09d}.mkv") for k in range(given.clips)]
    out += [Job("sound", given.seed + k, "train", f"sounds/sound_{given.seed + k:09d}.wav") for k in range(given.sounds)]
    first = HELD_OUT_SEED + given.seed
    for kind, split, count in (
        ("clip", "val", given.val),
        ("clip", "test", given.test),
        ("silent", "", given.silent),
        ("still", "", given.stills),
    ):
        ending = "png" if kind == "still" else "mp4" if kind == "silent" else "mkv"
        out += [Job(kind, first + k, split, f"{split or kind}/{split or kind}_{first + k:010d}.{ending}") for k in range(count)]
        first += count
    return out


def write_world(folder: Path, given: WorldFiles, workers: int = 1) -> Iterator[int]:
    """Writes what is missing; yields the number of files that are there, after each one. A killed run goes on where it was.

    The manifest and the truth come last, so a folder with a manifest is whole.
    """
    settings = folder / "world.json"
    said = json.dumps(asdict(given), sort_keys=True)
    if settings.exists() and settings.read_text(encoding="utf-8") != said:
        raise InputError(
            f"{folder} holds another world ({settings.read_text(encoding='utf-8')}); give another folder or the same numbers."
        )
    jobs = jobs_of(given)
    for job in jobs:
        (folder / job.name).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(settings) as temporary:
        temporary.write_text(said, encoding="utf-8")
    todo = [(folder, job, given.sample_rate_hz) for job in jobs]
    truths: list[dict[str, object]] = []
    with _pool(workers) as run:
        for done, truth in enumerate(run(todo), 1):
            truths.append(truth)
            yield done
    with atomic_path(folder / TRUTH) as temporary:
        temporary.write_text("".join(json.dumps(t) + "\n" for t in truths), encoding="utf-8")
    rows = (
        Row(str(t["id"]), job.name, str(t["caption"]), split=job.split)
        for job, t in zip(jobs, truths, strict=True)
        if job.split
    )
    write_manifest(rows, folder / MANIFEST)


def world_hash(folder: Path) -> str:
    """SHA-256 of the truth, which holds that of every sound: the same everywhere; videos depend on the encoder's version."""
    text = (folder / TRUTH).read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def make_one(given: Given) -> dict[str, object]:
    """Makes a file unless it is there; returns its truth, which needs no pictures."""
    folder, job, rate_hz = given
    path = folder / job.name
    name = Path(job.name).stem
    if job.kind == "sound":
        sound = make_sound(job.seed, rate_hz)
        if not path.exists():
            _write_wave(sound.samples, rate_hz, path)
        return _truth(name, job, sound.kind, sound.captions, [], sound.samples)
    clip = make_clip(job.seed, rate_hz, pictures=not path.exists())
    if not path.exists():
        _write_pictures(clip, job.kind, path)
    events = [asdict(e) for e in clip.events]
    return _truth(name, job, clip.scene, clip.captions, events, clip.samples)


def _truth(
    name: str, job: Job, scene: str, captions: tuple[str, ...], events: list[dict[str, object]], samples: np.ndarray
) -> dict[str, object]:
    return {
        "id": name,
        "kind": job.kind,
        "seed": job.seed,
        "scene": scene,
        "caption": captions[0],
        "captions": captions,
        "events": events,
        "sound": hashlib.sha256(np.rint(samples * 32768).astype("<i2").tobytes()).hexdigest(),
    }


def _write_pictures(clip: WorldClip, kind: str, path: Path) -> None:
    if kind == "silent":
        write_silent_video(clip.frames, clip.fps, path, options=ENCODING)
    elif kind == "still":
        write_silent_video(clip.frames[len(clip.frames) // 2 :][:1], clip.fps, path, codec="png", pix_fmt="rgb24")
    else:
        write_clip(clip, path)


def write_clip(clip: WorldClip, path: Path) -> None:
    """Pictures in H.264 and the exact sound in FLAC, as Matroska; the same bytes each time with the same encoder."""
    av = import_av()
    options = {"fflags": "bitexact"}  # else the file carries random numbers
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="matroska", options=options) as container:
        video = container.add_stream(
            "libx264" if "libx264" in av.codecs_available else "mpeg4", rate=clip.fps, options=ENCODING
        )
        video.height, video.width, video.pix_fmt = clip.frames.shape[1], clip.frames.shape[2], "yuv420p"
        sound = container.add_stream("flac", rate=clip.sample_rate_hz, layout="mono")
        for image in clip.frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        whole = np.rint(clip.samples * 32768).astype(np.int16)[None]
        block = sound.codec_context.frame_size or 4096
        for first in range(0, whole.shape[1], block):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(whole[:, first : first + block]), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = clip.sample_rate_hz, first
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def _write_wave(samples: np.ndarray, rate_hz: int, path: Path) -> None:
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.rint(samples * 32768).astype("<i2").tobytes())


@contextmanager
def _pool(workers: int) -> Iterator[Run]:
    """A map over jobs, in order; with more than one worker in processes that start anew."""
    if workers <= 1:
        yield lambda items: map(make_one, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield lambda items: _mapped(pool, items)


def _mapped(pool: ProcessPoolExecutor, items: Iterable[Given]) -> Iterator[dict[str, object]]:
    return pool.map(make_one, items, chunksize=8)

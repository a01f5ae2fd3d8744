"""VIDEO and IMAGE of ComfyUI to the frames that the encoders see, and sound back under a video."""

from __future__ import annotations

import inspect
import uuid
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ...mmaudio_core.errors import InputError, MediaError
from ...mmaudio_core.features.room import available_bytes
from ...mmaudio_core.media.frames import frames_to_video, image_to_video_frames
from ...mmaudio_core.media.mix import combine_sounds
from ...mmaudio_core.media.mux import check_mux, mux_audio
from ...mmaudio_core.media.soundtrack import load_sound
from ...mmaudio_core.media.video import probe_video, read_video
from ...mmaudio_core.types import Audio, VideoFrames
from .sounds import to_audio, to_host
from .source import file_of


def frames_of_video(
    video: Any, sizes: dict[str, int], start_s: float, duration_s: float | None, progress: Any = None
) -> VideoFrames:
    """The frames of a VIDEO from ``start_s`` on; a file is read as a stream, so memory does not grow with it.

    Raises:
        InputError, MediaError: for a start beyond the end, too short a video, an unreadable file.
    """
    with file_of(video) as path:
        if path is not None:
            options = {"progress": progress, "most_bytes": available_bytes(), **sizes}
            return read_video(path, duration_s, start_s=start_s, hold_last=True, **options)
    parts = video.get_components()
    return frames_of_images(parts.images, parts.frame_rate, sizes, start_s, duration_s, progress)


def frames_of_images(
    images: Any,
    fps: float | Fraction,
    sizes: dict[str, int],
    start_s: float = 0.0,
    duration_s: float | None = None,
    progress: Any = None,
) -> VideoFrames:
    """The frames of an IMAGE batch (N, H, W, 3) shown at ``fps``.

    Raises:
        InputError: when fps is 0, which the widget's default is: it is never guessed.
        MediaError: for no frames, or too few.
    """
    if images is None or not images.shape[0]:
        raise MediaError("The images hold no frames; connect a node that gives some.")
    if not fps:
        raise InputError(
            f"{images.shape[0]} images were given with fps 0; set fps to the rate at which they are shown (Wan 16, LTX 24 or "
            "25, Hunyuan 24; GetVideoComponents has an fps output). It is never guessed."
        )
    return frames_to_video(images, fps, duration_s, start_s=start_s, progress=progress, **sizes)


def frames_of_picture(image: Any, sizes: dict[str, int]) -> VideoFrames:
    """One IMAGE (1, H, W, 3) as a still: a CLIP frame and nothing to synchronise with."""
    return image_to_video_frames(image, sizes["clip_size"])


def sizes_for(encoders: Any) -> dict[str, int]:
    """The frame sizes of the chosen encoders; those of the published ones where one is missing."""
    sizes = {"clip_size": 384, "sync_size": 224}
    if encoders.has("clip"):
        sizes["clip_size"] = encoders.clip_spec.image_size
    if encoders.has("synchformer"):
        sizes["sync_size"] = encoders.synchformer_spec.image_size
    return sizes


def with_sound(
    video: Any, new: Audio, mode: str, new_gain_db: float, original_gain_db: float, duck_db: float, start_s: float = 0.0
) -> tuple[Any, float]:
    """``video`` with ``new`` sound from ``start_s`` on, and the dB by which the sum was lowered so as not to clip (0: not).

    A file keeps its pictures byte for byte: only the sound is encoded.

    Raises:
        InputError, MediaError: for unusable sound, a start beyond the end or a file that cannot be written.
    """
    if mode == "keep":
        return video, 0.0
    with file_of(video) as path:
        if path is not None:
            info = probe_video(path)
            duration_s = info.duration_s or float(video.get_duration())
            original = load_sound(path) if info.has_audio and mode != "replace" else None
            sound = _combined(new, original, duration_s, mode, new_gain_db, original_gain_db, duck_db, start_s)
            return _muxed(path, sound.audio), sound.scaled_db
    parts = video.get_components()
    duration_s = float(Fraction(parts.images.shape[0]) / Fraction(parts.frame_rate))
    original = None if parts.audio is None or mode == "replace" else to_audio(parts.audio)
    sound = _combined(new, original, duration_s, mode, new_gain_db, original_gain_db, duck_db, start_s)
    return _encoded_like(video, replace(parts, audio=to_host(sound.audio))), sound.scaled_db


def video_of(images: torch.Tensor, fps: float | Fraction, audio: Audio) -> Any:
    """A VIDEO of ``images`` (N, H, W, 3 or more channels, of which the first are shown) at ``fps`` with ``audio``."""
    from comfy_api.latest import InputImpl, Types

    rate = Fraction(fps).limit_denominator(1_000_000)
    parts = Types.VideoComponents(images=images[..., :3], audio=to_host(audio), frame_rate=rate)
    return InputImpl.VideoFromComponents(parts)


def _encoded_like(video: Any, parts: Any) -> Any:
    """A VIDEO of ``parts`` that the host will write in the depth and colours of ``video``, where it knows of such things."""
    from comfy_api.latest import InputImpl

    known = inspect.signature(InputImpl.VideoFromComponents).parameters
    asked = {name: getattr(video, f"get_{name}", None) for name in ("bit_depth", "color_space")}
    said = {name: ask() for name, ask in asked.items() if ask is not None and name in known}
    return InputImpl.VideoFromComponents(parts, **{name: value for name, value in said.items() if value != "auto"})


def _combined(new: Audio, original: Audio | None, duration_s: float, mode: Any, *gains: float) -> Any:
    *gains_db, start_s = gains
    if not 0 <= start_s < duration_s:
        raise InputError(f"The sound was to begin at {start_s:g} s of a video of {duration_s:g} s; begin within it.")
    if start_s:
        silence = new.samples.new_zeros(*new.samples.shape[:-1], round(start_s * new.sample_rate_hz))
        new = Audio(torch.cat((silence, new.samples), dim=-1), new.sample_rate_hz)
    return combine_sounds(new, original, duration_s, mode, *gains_db)


def _muxed(path: Path, audio: Audio) -> Any:
    import folder_paths
    from comfy_api.latest import InputImpl

    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"mmaudio_{uuid.uuid4().hex[:12]}.mp4"
    try:
        check_mux(path, target)
    except MediaError:
        target = target.with_suffix(".mkv")  # holds what mp4 does not, such as VP8 pictures
    return InputImpl.VideoFromFile(str(mux_audio(path, audio, target)))

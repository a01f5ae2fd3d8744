"""The whole model: video, frames, an image or text in, sound out; and each stage by itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..sampling.noise import check_seeds
from ..spec.audio import AudioSpec
from ..spec.timing import check_duration, sync_frames
from ..types import Audio, Features, Latents, Mel, VideoFrames
from .device import choose_device, choose_dtype
from .files import ModelFiles, find_files
from .parts import Parts
from .report import Report
from .result import Result, Take
from .sample import SampleSettings, sample_latents

log = logging.getLogger("mmaudio")

DEFAULT_DURATION_S = 8.0
"""The duration that the published networks were trained on; used where no video says otherwise."""
LONG_DURATION_S = 12.0
StageProgress = Callable[[str, int, int], None]
"""(stage, done, in all; 0 while unknown); raise in it to stop."""


def load(
    variant: str | None = None,
    weights: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    progress: StageProgress | None = None,
    keep_parts: bool = True,
) -> MMAudio:
    """A model ready to generate; parts are read from disk when a stage first needs them.

    variant: a published name, "tiny" for the embedded model, or None for the best whose files are present, else "tiny".
    weights: folder or folders with weights; None means those of ``MMAUDIO_WEIGHTS``, else ``~/.cache/mmaudio-graph/weights``.
    device, dtype: None leaves the choice to us; it is logged.
    keep_parts: False lets each network go when its stage is done: memory holds one at a time, and every call loads anew.

    Raises:
        WeightsError: for an unknown variant, or when its files are missing.
        InputError: for a device or dtype that cannot be used.
    """
    folders = [weights] if isinstance(weights, (str, os.PathLike)) else weights
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    return MMAudio(find_files(variant, folders, chosen_dtype), chosen_device, chosen_dtype, progress, keep_parts)


class MMAudio:
    """One variant on one device. ``report`` collects the cost of every stage."""

    def __init__(
        self,
        files: ModelFiles,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        progress: StageProgress | None = None,
        keep_parts: bool = True,
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.variant = files.variant
        self.report = Report(self.device)
        self.parts = Parts(files, self.device, self.dtype, self.report, progress)
        self._progress = progress
        self._keep_parts = keep_parts
        for note in files.notes:
            log.warning(note)
        log.info("Variant %s on %s in %s.", self.variant, self.device, str(self.dtype).removeprefix("torch."))

    @property
    def audio(self) -> AudioSpec:
        """The format of the sound that comes out."""
        return self.parts.flow_spec.audio

    def read_video(self, path: str | os.PathLike[str], duration_s: float | None = None, start_s: float = 0.0) -> VideoFrames:
        """The frames of a file that the encoders see; ``duration_s`` None means to the end.

        The last frame stays until its own end, so that 8 s of video give 8 s of sound.

        Raises:
            MediaError, InputError: see ``media.video.read_video``.
        """
        from ..media.video import read_video

        with self.report.stage("read video"):
            return read_video(
                path, duration_s, start_s=start_s, hold_last=True, progress=self._of("read video"), **self._frame_sizes()
            )

    def read_frames(self, frames: Any, fps: float | Fraction, duration_s: float | None = None) -> VideoFrames:
        """The same for frames shown at ``fps``: (N, H, W, 3) or (N, 3, H, W), uint8 or float in [0, 1], or an iterable of them.

        Raises:
            MediaError, InputError: see ``media.frames.frames_to_video``.
        """
        from ..media.frames import frames_to_video

        with self.report.stage("read video"):
            return frames_to_video(frames, fps, duration_s, progress=self._of("read video"), **self._frame_sizes())

    def read_image(self, image: Any) -> VideoFrames:
        """A still image, from a path or as (H, W, 3): one CLIP frame, nothing to synchronise with.

        Raises:
            MediaError: when it cannot be read.
        """
        from ..media.frames import image_to_video_frames

        with self.report.stage("read image"):
            return image_to_video_frames(image, self.parts.clip_spec.image_size)

    def encode_frames(self, frames: VideoFrames) -> Features:
        """CLIP and Synchformer features of frames; a still image gives one CLIP token and no sync tokens."""
        with self.report.stage("CLIP image"):
            clip = self.parts.clip_image().encode_image(frames.clip, progress=self._of("CLIP image"))
        self._done_with("clip image")
        if frames.sync is None:
            return Features(clip=clip)
        with self.report.stage("Synchformer"):
            sync = self.parts.synchformer().encode(frames.sync, progress=self._of("Synchformer"))
        self._done_with("synchformer")
        return Features(clip=clip, sync=sync, duration_s=frames.duration_s)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """CLIP text features (len(prompts), T, text width); an empty prompt takes the checkpoint's stored empty feature."""
        with self.report.stage("CLIP text"):
            rows: dict[str, Tensor] = {}
            if written := [p for p in dict.fromkeys(prompts) if p]:
                rows.update(zip(written, self.parts.clip_text().encode_text(written), strict=True))
            self._done_with("clip text")
            if len(written) < len(set(prompts)):
                rows[""] = self.parts.flow().empty_string_feat.to(self.device, torch.float32)
            return torch.stack([rows[p] for p in prompts])

    def sample(
        self,
        features: Features,
        duration_s: float,
        seeds: Sequence[int],
        negative_text: Tensor | None = None,
        settings: SampleSettings | None = None,
    ) -> Latents:
        """Features to latents, one sample per seed; see ``pipeline.sample.sample_latents``."""
        with self.report.stage("sampling"):
            net = self.parts.flow()
            latents = sample_latents(net, features, duration_s, seeds, negative_text, settings, self._of("sampling"))
        self._done_with("flow")
        return latents

    def decode(self, latents: Latents) -> Mel:
        """Latents (B, L, C) to the log-mel spectrogram (B, M, 2 L)."""
        from .sound import decode_latents

        with self.report.stage("VAE decode"):
            mel = decode_latents(self.parts.vae(), latents)
        self._done_with("vae")
        return mel

    def vocode(self, mel: Mel) -> Audio:
        """Log-mel to samples (B, 1, N), cut to the duration: N = round(duration * rate)."""
        from .sound import vocode_mel

        with self.report.stage("vocoder"):
            audio = vocode_mel(self.parts.vocoder(), mel, self._of("vocoder"))
        self._done_with("vocoder")
        return audio

    def generate(
        self,
        video: str | os.PathLike[str] | None = None,
        prompt: str | Sequence[str] = "",
        *,
        frames: Any = None,
        fps: float | Fraction | None = None,
        image: Any = None,
        negative_prompt: str = "",
        duration_s: float | None = None,
        start_s: float = 0.0,
        seed: int = 0,
        count: int = 1,
        settings: SampleSettings | None = None,
    ) -> Result:
        """Sound for a video file, for frames shown at ``fps``, for a still image, or for text alone.

        prompt: one or several; each gets ``count`` takes with the seeds seed, seed + 1, ... over one encoding of the video.
        duration_s: None means the whole video, or 8 s where there is none. Beyond the video's end it is cut, with a word.

        Raises:
            InputError, MediaError, WeightsError: with what was given, what was expected and what to do.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if count < 1 or not prompts:
            raise InputError(f"{count} takes of {len(prompts)} prompts were asked for; 1 or more of each are needed.")
        if duration_s is not None:
            check_duration(duration_s)
        if start_s and video is None:
            raise InputError(f"A start of {start_s:g} s was given without a video file; only a file can be entered later.")
        seeds = [seed + i for _ in prompts for i in range(count)]
        check_seeds(seeds)
        features = self._visual_features(video, frames, fps, image, duration_s, start_s)
        covered_s = features.duration_s or duration_s or DEFAULT_DURATION_S
        self._tell(duration_s, covered_s)

        # One row of text per sample; a run without any prompt needs no text encoder at all.
        negative = None
        if any(prompts) or negative_prompt:
            text = self.encode_text([*prompts, negative_prompt] if negative_prompt else prompts)
            negative = text[len(prompts) :] if negative_prompt else None
            if any(prompts):
                features = replace(features, text=text[: len(prompts)].repeat_interleave(count, dim=0))
        audio = self.vocode(self.decode(self.sample(features, covered_s, seeds, negative, settings)))
        labels = [p for p in prompts for _ in range(count)]
        takes = (Take(Audio(a[None], audio.sample_rate_hz), p, s) for a, p, s in zip(audio.samples, labels, seeds, strict=True))
        return Result(
            takes=tuple(takes),
            duration_s=covered_s,
            variant=self.variant,
            report=self.report,
            video=Path(video) if video is not None else None,
            start_s=start_s,
            whole_video=duration_s is None,
        )

    def _visual_features(
        self, video: Any, frames: Any, fps: float | Fraction | None, image: Any, duration_s: float | None, start_s: float
    ) -> Features:
        given = [name for name, value in (("video", video), ("frames", frames), ("image", image)) if value is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} were given together; give one of them.")
        if frames is not None and fps is None:
            raise InputError("Frames were given without fps; give the frame rate they are shown at, it is never guessed.")
        if frames is None and fps is not None:
            raise InputError("fps was given without frames; a video file brings its own time stamps.")
        if video is not None:
            return self.encode_frames(self.read_video(video, duration_s, start_s))
        if frames is not None and fps is not None:
            return self.encode_frames(self.read_frames(frames, fps, duration_s))
        if image is not None:
            return self.encode_frames(self.read_image(image))
        return Features()

    def _tell(self, asked_s: float | None, covered_s: float) -> None:
        if asked_s is not None and sync_frames(covered_s) < sync_frames(asked_s):
            log.warning("The video ends after %.2f s; the sound is cut to that (%.2f s were asked for).", covered_s, asked_s)
        if covered_s > LONG_DURATION_S:
            log.warning("%.1f s are far beyond the 8 s that the published networks were trained on; expect less.", covered_s)

    def _frame_sizes(self) -> dict[str, Any]:
        return {"clip_size": self.parts.clip_spec.image_size, "sync_size": self.parts.synchformer_spec.image_size}

    def _done_with(self, name: str) -> None:
        if not self._keep_parts:
            self.parts.release(name)

    def _of(self, stage: str) -> Callable[[int, int], None]:
        progress = self._progress
        return (lambda done, total: progress(stage, done, total)) if progress else (lambda done, total: None)

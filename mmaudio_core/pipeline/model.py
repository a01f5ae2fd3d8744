"""The whole model: video, frames, an image or text in, sound out; and each stage by itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..features.segments import frames_to_encode
from ..sampling.noise import check_seeds
from ..spec.audio import AudioSpec
from ..spec.timing import SyncTiming, check_sync_timing
from ..types import Audio, Features, Latents, Mel, VideoFrames
from .accelerate import Accelerator, Speed
from .device import choose_device
from .files import ModelFiles, find_files
from .inputs import DEFAULT_DURATION_S, check_given, tell_duration
from .parts import Parts
from .plan import Memory
from .planner import Planner
from .precision import Precision, choose_precision
from .report import Report
from .result import Result, takes_of
from .sample import SampleSettings, sample_latents
from .stages import Run, fuses_attention

log = logging.getLogger("mmaudio")

StageProgress = Callable[[str, int, int], None]
"""(stage, done, in all; 0 while unknown); raise in it to stop."""


def load(
    variant: str | None = None,
    weights: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    progress: StageProgress | None = None,
    keep_parts: bool = True,
    memory: Memory = "auto",
    stage_dtypes: Mapping[str, str | torch.dtype] | None = None,
    weights_storage: str | None = None,
    published_time_features: bool = False,
    speed: Speed | None = None,
) -> MMAudio:
    """A model ready to generate; parts are read from disk when a stage first needs them.

    variant: a published name, "tiny" for the embedded model, or None for the best whose files are present, else "tiny".
    weights: folder or folders with weights; None means those of ``MMAUDIO_WEIGHTS``, else ``~/.cache/mmaudio-graph/weights``.
    device, dtype: None leaves the choice to us; it is logged.
    keep_parts: False lets each network go when its stage is done: memory holds one at a time, and every call loads anew.
    memory: "auto" keeps what fits into the device's free memory and works in smaller pieces where it must; "resident" keeps
        all, "staged" none, "chunked" takes the least memory there is; a number is a budget in bytes, without the CUDA context.
    stage_dtypes: dtypes for single stages ("clip", "synchformer", "flow", "vae", "vocoder"), such as {"vocoder": "float32"}.
    weights_storage: "fp8" keeps the large weights of flow network, CLIP and Synchformer in 8 bits: less memory, less exact.
    published_time_features: rounds the flow network's time in half precision as the published program does.
    speed: kernels, attention and CUDA graphs to compute with; None leaves the choice to us.

    Raises:
        WeightsError: for an unknown variant, or when its files are missing.
        InputError: for a device, dtype, storage, kernels or use of memory that cannot be had.
    """
    folders = [weights] if isinstance(weights, (str, os.PathLike)) else weights
    chosen_device = choose_device(device)
    precision = choose_precision(chosen_device, dtype, stage_dtypes, weights_storage, published_time_features)
    files = find_files(variant, folders, precision.dtype)
    return MMAudio(files, chosen_device, precision, progress, keep_parts, memory, speed)


class MMAudio:
    """One variant on one device. ``report`` adds up the costs of every run."""

    def __init__(
        self,
        files: ModelFiles,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | Precision | None = None,
        progress: StageProgress | None = None,
        keep_parts: bool = True,
        memory: Memory = "auto",
        speed: Speed | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.precision = dtype if isinstance(dtype, Precision) else choose_precision(self.device, dtype)
        self.dtype = self.precision.dtype
        self.variant = files.variant
        self.report = Report(self.device)
        self._accelerator = Accelerator(speed)
        self.parts = Parts(files, self.device, self.precision, self.report, progress, self._accelerator)
        self._progress = progress
        self._planner = Planner(self.parts, memory, keep_parts)
        for note in files.notes:
            log.warning(note)
        log.info("Variant %s on %s in %s.", self.variant, self.device, self.precision.sentence())

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
        from ..features.room import available_bytes
        from ..media.video import read_video

        options = {"progress": self._of("read video"), "most_bytes": available_bytes(), **self._frame_sizes()}
        with self.report.stage("read video"):
            return read_video(path, duration_s, start_s=start_s, hold_last=True, **options)

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
        """CLIP and Synchformer features of frames; a still image gives one CLIP token and no sync tokens.

        The last frame is held for the few segments more that "steady" sync timing may need.
        """
        with self.report.stage("CLIP image"):
            size = self._planner.now.frames_per_chunk
            clip = self.parts.clip_image().encode_image(
                frames.clip, size, progress=self._of("CLIP image"), plain=self._accelerator.plain
            )
        self._planner.done_with("clip image")
        if frames.sync is None:
            return Features(clip=clip)
        with self.report.stage("Synchformer"):
            size = self._planner.now.segments_per_chunk
            sync = self.parts.synchformer().encode(
                frames_to_encode(frames.sync, frames.duration_s),
                size,
                progress=self._of("Synchformer"),
                plain=self._accelerator.plain,
            )
        self._planner.done_with("synchformer")
        return Features(clip=clip, sync=sync, duration_s=frames.duration_s)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """CLIP text features (len(prompts), T, text width); an empty prompt takes the checkpoint's stored empty feature."""
        with self.report.stage("CLIP text"):
            rows: dict[str, Tensor] = {}
            if written := [p for p in dict.fromkeys(prompts) if p]:
                rows.update(zip(written, self.parts.clip_text().encode_text(written), strict=True))
            self._planner.done_with("clip text")
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
        settings, most = settings or SampleSettings(), self._planner.now.batch_size
        if most is not None and most < settings.batch_size:
            settings = replace(settings, batch_size=most)
        with self.report.stage("sampling"):
            given = features, duration_s, seeds, negative_text, settings, self._of("sampling")
            latents = sample_latents(self.parts.flow(), *given, accelerator=self._accelerator)
        self._planner.done_with("flow")
        return latents

    def decode(self, latents: Latents) -> Mel:
        """Latents (B, L, C) to the log-mel spectrogram (B, M, 2 L)."""
        from .sound import decode_latents

        with self.report.stage("VAE decode"):
            mel = decode_latents(self.parts.vae(), latents, plain=self._accelerator.plain)
        self._planner.done_with("vae")
        return mel

    def vocode(self, mel: Mel) -> Audio:
        """Log-mel to samples (B, 1, N), cut to the duration: N = round(duration * rate)."""
        from .sound import vocode_mel

        with self.report.stage("vocoder"):
            size = self._planner.now.mel_frames_per_chunk
            audio = vocode_mel(self.parts.vocoder(), mel, self._of("vocoder"), self._accelerator.plain, size)
        self._planner.done_with("vocoder")
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
        sync_timing: SyncTiming | None = None,
    ) -> Result:
        """Sound for a video file, for frames shown at ``fps``, for a still image, or for text alone.

        prompt: one or several; each gets ``count`` takes with the seeds seed, seed + 1, ... over one encoding of the video.
        duration_s: None means the whole video, or 8 s where there is none. Beyond the video's end it is cut, with a word.
        sync_timing: how what Synchformer saw is laid over the sound where that is not 8 s long: "stretched" as published,
            "steady" at the pace of 8 s (``spec.timing.sequence_lengths``); None leaves it to the network.

        Raises:
            InputError, MediaError, WeightsError: with what was given, what was expected and what to do.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if count < 1 or not prompts:
            raise InputError(f"{count} takes of {len(prompts)} prompts were asked for; 1 or more of each are needed.")
        check_given(video, frames, fps, image, duration_s, start_s)
        check_sync_timing(sync_timing)
        seeds = [seed + i for _ in prompts for i in range(count)]
        check_seeds(seeds)
        with self.report.run() as own:
            pictures = self._pictures(video, frames, fps, image, duration_s, start_s)
            moving = pictures is not None and pictures.sync is not None
            covered_s = (pictures.duration_s if pictures is not None and moving else duration_s) or DEFAULT_DURATION_S
            tell_duration(duration_s, covered_s, moving)
            batch = min(len(seeds), (settings or SampleSettings()).batch_size)
            texts = len({p for p in (*prompts, negative_prompt) if p})
            fused = fuses_attention(self.device)
            self._planner.decide(Run(covered_s, batch, texts, moving, pictures is not None and not moving, fused))
            features = Features() if pictures is None else self.encode_frames(pictures)
            del pictures  # 7 MB a second, not needed while sampling and decoding
            text, negative = self._texts(prompts, negative_prompt, count)
            features = replace(features, text=text, sync_timing=sync_timing)
            audio = self.vocode(self.decode(self.sample(features, covered_s, seeds, negative, settings)))
        return Result(
            takes=takes_of(audio, [p for p in prompts for _ in range(count)], seeds),
            duration_s=covered_s,
            variant=self.variant,
            report=own,
            video=Path(video) if video is not None else None,
            start_s=start_s,
            whole_video=duration_s is None,
        )

    def _texts(self, prompts: list[str], negative_prompt: str, count: int) -> tuple[Tensor | None, Tensor | None]:
        """One row per sample, and the negative one; without any prompt no text encoder is needed at all."""
        if not any(prompts) and not negative_prompt:
            return None, None
        text = self.encode_text([*prompts, negative_prompt] if negative_prompt else prompts)
        rows = text[: len(prompts)].repeat_interleave(count, dim=0) if any(prompts) else None
        return rows, text[len(prompts) :] if negative_prompt else None

    def _pictures(
        self, video: Any, frames: Any, fps: float | Fraction | None, image: Any, duration_s: float | None, start_s: float
    ) -> VideoFrames | None:
        if video is not None:
            return self.read_video(video, duration_s, start_s)
        if frames is not None and fps is not None:
            return self.read_frames(frames, fps, duration_s)
        return None if image is None else self.read_image(image)

    def _frame_sizes(self) -> dict[str, Any]:
        return {"clip_size": self.parts.clip_spec.image_size, "sync_size": self.parts.synchformer_spec.image_size}

    def _of(self, stage: str) -> Callable[[int, int], None]:
        progress = self._progress
        return (lambda done, total: progress(stage, done, total)) if progress else (lambda done, total: None)

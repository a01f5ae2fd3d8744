"""Clips to samples: VAE, CLIP and Synchformer over whole batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.pipeline.files import ModelFiles
from mmaudio_core.pipeline.parts import Parts
from mmaudio_core.pipeline.precision import Precision
from mmaudio_core.pipeline.report import Report
from mmaudio_core.spec.timing import SYNC_SEGMENT_STRIDE, SYNC_TOKENS_PER_SEGMENT, sequence_lengths
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.parts import open_part

from ..data.shards import Sample, Widths
from .clips import Clip, sync_frames_of
from .settings import ExtractSettings

CPU_FRAMES, CPU_SEGMENTS = 8, 4
GPU_FRAMES, GPU_SEGMENTS = 64, 16
"""Frames of CLIP, and segments of Synchformer, that go through together; of any number of clips."""
TEXTS = 32
"""Captions that go through CLIP together."""
_DECODER = "decoder."


class Encoders:
    """The encoders of one variant; each is loaded when first used.

    dtype: what CLIP and Synchformer compute in. The VAE computes in float32 everywhere, since training aims at what it says.

    Raises:
        WeightsError: when a file is wrong, or VAE and flow network are of different formats.
    """

    def __init__(self, files: ModelFiles, device: torch.device, dtype: torch.dtype, settings: ExtractSettings) -> None:
        self.device, self.dtype, self._files = device, dtype, files
        # Batches differ in size, so that a CUDA graph would be made for each. And a backend of attention that is chosen by
        # measurement may be another one in the next process, or on the next rank.
        accelerator = Accelerator(Speed(attention="sdpa", graphs=False))
        self._parts = Parts(files, device, Precision(dtype), Report(device), accelerator=accelerator)
        self._settings = settings
        self.audio = self._parts.flow_spec.audio
        self.lengths = sequence_lengths(settings.duration_s, self.audio)
        clip, sync = self._parts.clip_spec, self._parts.synchformer_spec
        self.clip_size, self.sync_size = clip.image_size, sync.image_size
        self.widths = Widths(
            latent=(self.lengths.latent, self.audio.latent_dim),
            clip=(self.lengths.clip, clip.embed_dim),
            sync=(self.lengths.sync, sync.width),
            text=(clip.context_length, clip.text_width),
        )
        self._vae: VAE | None = None
        self._mel = MelAnalysis(self.audio)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weights of each encoder that is used; the same for the same weights in another file."""
        kinds = ["vae"]
        if self._settings.video:
            kinds.append("synchformer")
        if self._settings.video or self._settings.text:
            kinds.append("clip")
        return {kind: weights_sha256(self._files.paths[kind], kind) for kind in sorted(kinds)}

    @torch.no_grad()
    def encode(self, clips: Sequence[Clip]) -> list[Sample]:
        """Samples of ``clips``, without text."""
        vae = self._loaded_vae()
        # Float32 on the CPU, as the published program analyses sound.
        mel = self._mel(torch.stack([clip.samples for clip in clips]))
        found = vae.encode(mel.to(self.device))
        means, stds = found.mean.float().cpu(), found.std.float().cpu()
        features = iter(self._video([clip for clip in clips if clip.clip_frames is not None]))
        samples = []
        for clip, mean, std in zip(clips, means, stds, strict=True):
            frames, sync = next(features) if clip.clip_frames is not None else (None, None)
            record = clip.record
            samples.append(Sample(record.id, record.kind, record.caption, mean, std, frames, sync))
        return samples

    def encode_texts(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Caption -> float16 (T, text width); each distinct one once, empty ones not at all."""
        distinct = [caption for caption in dict.fromkeys(captions) if caption]
        features: dict[str, Tensor] = {}
        for first in range(0, len(distinct), TEXTS):
            some = distinct[first : first + TEXTS]
            # Plain: in one batch, and nothing is kept from before, which would make the bits depend on it.
            encoded = self._parts.clip_text().encode_text(some, plain=True)
            features.update(zip(some, encoded.half().cpu(), strict=True))
        return features

    def _video(self, clips: Sequence[Clip]) -> list[tuple[Tensor, Tensor]]:
        """(CLIP, Synchformer) features, float16 (V, D) and (S, D), of clips that have frames."""
        if not clips:
            return []
        on_gpu = self.device.type != "cpu"
        frames = torch.cat([_there(clip.clip_frames) for clip in clips])
        seen = self._parts.clip_image().encode_image(frames, GPU_FRAMES if on_gpu else CPU_FRAMES)[0]
        clip_features = seen.half().cpu().split(self.lengths.clip)
        # Clips behind each other: the one segment between two of them belongs to none and is left out.
        frames = torch.cat([_there(clip.sync_frames) for clip in clips])
        tokens = self._parts.synchformer().encode(frames, GPU_SEGMENTS if on_gpu else CPU_SEGMENTS)[0].half().cpu()
        stride = sync_frames_of(self.lengths) // SYNC_SEGMENT_STRIDE * SYNC_TOKENS_PER_SEGMENT
        sync_features = [tokens[i * stride : i * stride + self.lengths.sync] for i in range(len(clips))]
        return list(zip(clip_features, sync_features, strict=True))

    def _loaded_vae(self) -> VAE:
        if self._vae is None:
            module, _ = load_part(self._files.paths["vae"], "vae", dtype=torch.float32, device=self.device)
            vae = cast("VAE", module)
            del vae.decoder
            self._vae = vae
        return self._vae


def weights_sha256(path: Path, kind: str) -> str:
    """Of names, shapes, formats and values of a part's tensors; of a VAE only what encodes.

    Raises:
        WeightsError: when the file is not what belongs there.
    """
    digest = hashlib.sha256()
    part = open_part(path, kind)
    for name in sorted(part.tensors):
        if kind == "vae" and name.startswith(_DECODER):
            continue
        tensor = part.tensors[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    part.file.release()
    return digest.hexdigest()


def _there(frames: Tensor | None) -> Tensor:
    assert frames is not None
    return frames

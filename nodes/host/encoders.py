"""CLIP and Synchformer, each loaded when it is first needed, with the features of recent videos kept by content."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ...mmaudio_core.errors import InputError
from ...mmaudio_core.features.segments import frames_to_encode
from ...mmaudio_core.pipeline.memory import clip_image_bytes, clip_text_bytes, synchformer_bytes
from ...mmaudio_core.spec.model import CLIPSpec, SynchformerSpec
from ...mmaudio_core.types import Features, VideoFrames
from ...mmaudio_core.weights.build import load_part
from ...mmaudio_core.weights.parts import open_raw_part
from .memory import Placed, precision_dtype

REMEMBERED_VIDEOS = 8
CLIP_CHUNK, SYNC_CHUNK = 8, 4


class Encoders:
    """The encoders that a loader chose. Nothing is read but headers until a node needs a tower.

    Features are remembered by the content of the frames, so that the same pictures from another node, or beside a new prompt,
    are not encoded again.
    """

    def __init__(self, clip: Path | None, synchformer: Path | None, precision: str) -> None:
        self._files = {"clip": clip, "synchformer": synchformer}
        self.dtype = precision_dtype(precision)
        self._specs: dict[str, Any] = {}
        self._placed: dict[str, Placed] = {}
        self._remembered: OrderedDict[bytes, Features] = OrderedDict()
        for kind, path in self._files.items():
            if path is not None:
                self._specs[kind] = open_raw_part(path, kind).detected.spec

    @property
    def clip_spec(self) -> CLIPSpec:
        """Raises InputError when no CLIP was chosen."""
        return cast(CLIPSpec, self._spec("clip"))

    @property
    def synchformer_spec(self) -> SynchformerSpec:
        """Raises InputError when no Synchformer was chosen."""
        return cast(SynchformerSpec, self._spec("synchformer"))

    def has(self, kind: str) -> bool:
        """Whether the loader chose a file for "clip" or "synchformer"."""
        return self._files[kind] is not None

    def loaded(self) -> tuple[str, ...]:
        """The towers that have been needed so far."""
        return tuple(self._placed)

    def encode_frames(self, frames: VideoFrames, progress: Any = None) -> Features:
        """Features of a video's frames, or of one picture; a modality without an encoder is left out."""
        key = self._key(frames)
        if key in self._remembered:
            self._remembered.move_to_end(key)
            return self._remembered[key]
        clip = sync = None
        if self.has("clip"):
            needed = clip_image_bytes(self.clip_spec, CLIP_CHUNK, self.dtype)
            tower = self._tower("clip image", "clip", text=False, progress=progress).use(needed)
            clip = tower.encode_image(frames.clip, CLIP_CHUNK, progress).cpu()
        if frames.sync is not None and self.has("synchformer"):
            needed = synchformer_bytes(self.synchformer_spec, SYNC_CHUNK, self.dtype)
            tower = self._tower("synchformer", "synchformer", progress=progress).use(needed)
            seen = frames_to_encode(frames.sync, frames.duration_s)
            sync = tower.encode(seen, SYNC_CHUNK, progress).float().cpu()
        if clip is None and sync is None:
            raise InputError("No encoder was loaded for the pictures; choose a CLIP file in 'MMAudio: Load Encoders'.")
        features = Features(clip=clip, sync=sync, duration_s=None if frames.sync is None else frames.duration_s)
        self._remembered[key] = features
        while len(self._remembered) > REMEMBERED_VIDEOS:
            self._remembered.popitem(last=False)
        return features

    def encode_text(self, prompts: list[str], progress: Any = None) -> Tensor:
        """CLIP text features (len(prompts), T, width) of prompts that are not empty."""
        tower = self._tower("clip text", "clip", image=False, progress=progress)
        if not tower.module.remembers(prompts):
            tower.use(clip_text_bytes(self.clip_spec, len(prompts), self.dtype))
        return cast(Tensor, tower.module.encode_text(prompts).cpu())

    def _spec(self, kind: str) -> Any:
        if kind not in self._specs:
            name = {"clip": "CLIP", "synchformer": "Synchformer"}[kind]
            raise InputError(f"This needs {name} and the loader chose none; choose a file for it in 'MMAudio: Load Encoders'.")
        return self._specs[kind]

    def _tower(self, name: str, kind: str, progress: Any = None, **towers: bool) -> Placed:
        if name not in self._placed:
            self._spec(kind)
            path = cast(Path, self._files[kind])
            module, _ = load_part(path, kind, dtype=self.dtype, progress=progress, **towers)
            self._placed[name] = Placed(module)
        return self._placed[name]

    def _key(self, frames: VideoFrames) -> bytes:
        digest = hashlib.blake2b(digest_size=20)
        digest.update(repr((frames.clip.shape, frames.duration_s)).encode())
        for pixels in (frames.clip, frames.sync):
            if pixels is not None:
                digest.update(pixels.contiguous().numpy().data)
        return digest.digest()

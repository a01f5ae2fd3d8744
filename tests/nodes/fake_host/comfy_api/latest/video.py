"""VIDEO: a file, or frames with a rate and sound."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import torch


@dataclass
class VideoComponents:
    images: torch.Tensor
    frame_rate: Fraction
    audio: Any = None
    metadata: Any = None


class VideoFromFile:
    def __init__(self, file: str | io.BytesIO) -> None:
        self._file = file

    def get_stream_source(self) -> str | io.BytesIO:
        if isinstance(self._file, io.BytesIO):
            self._file.seek(0)
        return self._file

    def get_duration(self) -> float:
        import av

        with av.open(self.get_stream_source()) as container:
            return container.duration / av.time_base

    def get_components(self) -> VideoComponents:
        import av

        with av.open(self.get_stream_source()) as container:
            rate = Fraction(container.streams.video[0].average_rate)
            frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        return VideoComponents(torch.stack(frames).float() / 255, rate)


class VideoFromComponents:
    def __init__(self, components: VideoComponents) -> None:
        self._components = components

    def get_components(self) -> VideoComponents:
        return self._components

    def get_duration(self) -> float:
        return float(self._components.images.shape[0] / self._components.frame_rate)


InputImpl = SimpleNamespace(VideoFromFile=VideoFromFile, VideoFromComponents=VideoFromComponents)
Types = SimpleNamespace(VideoComponents=VideoComponents)

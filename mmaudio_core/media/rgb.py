"""Decoded PyAV frames of any pixel format to 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .opening import import_av
from .rotation import Matrix, apply_matrix

_PROPERTIES = ("width", "height", "colorspace", "color_range", "color_trc", "color_primaries")
"""What makes a converter's settings; PyAV 16 keeps those of the frame before where they change."""


class RgbConverter:
    """What ``frame.to_rgb()`` gives, from converters that are kept; several threads may call it at once.

    A frame of its own knows no converter yet and sets one up, with threads of its own in newer PyAV, which costs more than
    the conversion.
    """

    def __init__(self) -> None:
        import_av()
        from av.video.reformatter import VideoReformatter

        self._new = VideoReformatter
        # A converter serves one thread at a time. Taking from a list and adding to it are atomic.
        self._idle: list[tuple[tuple[Any, ...], Any]] = []
        self._options: dict[str, int] = {"threads": 1}

    def __call__(self, frame: Any) -> Any:
        """``frame`` as a PyAV frame in rgb24."""
        kind = (frame.format.name, *(getattr(frame, name, None) for name in _PROPERTIES))
        converter = self._take(kind)
        try:
            converted = converter.reformat(frame, format="rgb24", **self._options)
        except TypeError:  # PyAV before 17 has no such option and always takes one thread
            self._options = {}
            converted = converter.reformat(frame, format="rgb24")
        self._idle.append((kind, converter))
        return converted

    def _take(self, kind: tuple[Any, ...]) -> Any:
        while self._idle:
            try:
                known, converter = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if known == kind:
                return converter
        return self._new()


def frame_pixels(frame: Any, matrix: Matrix, to_rgb: RgbConverter | None = None) -> Tensor:
    """A decoded PyAV frame of any pixel format as uint8 RGB (3, H, W), turned by its display ``matrix``.

    High bit depths are reduced to 8 bits and alpha is dropped, as FFmpeg's converter does it with the frame's own colour
    matrix; HDR curves are not tone-mapped (neither were they for the published program).

    to_rgb: for many frames; the result is the same.
    """
    converted = frame.to_rgb() if to_rgb is None else to_rgb(frame)
    image: np.ndarray = apply_matrix(converted.to_ndarray(), matrix)
    return torch.from_numpy(image).permute(2, 0, 1)

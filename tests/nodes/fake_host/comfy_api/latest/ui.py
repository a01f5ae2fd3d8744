"""Previews: they check their value and name a file, and write none."""

from __future__ import annotations

from typing import Any


def _named(count: int, ending: str) -> list[dict[str, str]]:
    return [{"filename": f"temp_{index}.{ending}", "subfolder": "", "type": "temp"} for index in range(count)]


class PreviewAudio:
    def __init__(self, audio: Any, cls: Any = None) -> None:
        waveform = audio["waveform"]
        assert waveform.ndim == 3
        assert waveform.device.type == "cpu"
        self.values = _named(waveform.shape[0], "flac")

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.values}


class PreviewImage:
    def __init__(self, image: Any, animated: bool = False, cls: Any = None) -> None:
        assert image.ndim == 4
        assert image.shape[3] == 3
        assert 0 <= image.min() <= image.max() <= 1
        self.values, self.animated = _named(image.shape[0], "png"), animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (self.animated,)}

"""The file behind a VIDEO of ComfyUI, where the VIDEO shows the whole of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...mmaudio_core.media.video import probe_video


@contextmanager
def file_of(video: Any) -> Iterator[Path | None]:
    """The file behind a VIDEO; None where there is none, or where the VIDEO is a part of it in time or of its pictures."""
    from comfy_api.latest import InputImpl

    if not isinstance(video, InputImpl.VideoFromFile) or _is_trimmed(video):
        yield None
        return
    source = video.get_stream_source()
    if isinstance(source, (str, os.PathLike)):
        yield None if _is_cropped(video, Path(source)) else Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        path.write_bytes(source.getbuffer())
        yield None if _is_cropped(video, path) else path


def _is_trimmed(video: Any) -> bool:
    window = getattr(video, "get_active_trim_window", None)
    if window is not None:
        return any(window())
    # The first hosts that trim say it nowhere, and their durations are of another clock than those of the pictures.
    return any(getattr(video, f"_VideoFromFile__{name}", 0) for name in ("start_time", "duration"))


def _is_cropped(video: Any, path: Path) -> bool:
    if not hasattr(video, "as_cropped"):
        return False
    info = probe_video(path)
    # Sorted, since hosts differ in whether the sides are those before or after rotation; a crop makes one of them smaller.
    return sorted(video.get_dimensions()) != sorted((info.width, info.height))

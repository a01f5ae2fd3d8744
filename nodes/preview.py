"""Sound and spectrogram shown on a node, with the page's own player and picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from . import sockets


def player_input() -> Any:
    """The input that makes the page show a sound player; it carries nothing and needs no connection."""
    return sockets.AudioPlayer.Input("audioUI", optional=True)


def preview(cls: type[io.ComfyNode], audio: dict[str, Any], picture: Any) -> dict[str, Any]:
    """The ``ui`` of a node that made ``audio`` (AUDIO) and ``picture`` (IMAGE)."""
    return {**ui.PreviewAudio(audio, cls=cls).as_dict(), **ui.PreviewImage(picture, cls=cls).as_dict()}

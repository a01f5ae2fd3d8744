"""What the nodes take from here: io, ui, InputImpl, Types, ComfyExtension."""

from __future__ import annotations

from . import io, ui
from .video import InputImpl, Types

__all__ = ["ComfyExtension", "InputImpl", "Types", "io", "ui"]


class ComfyExtension:
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        raise NotImplementedError

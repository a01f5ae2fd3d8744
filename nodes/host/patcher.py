"""A ModelPatcher for modules made of plain torch layers, which work only when all of them are on the device."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher

UNLIMITED = 1e32


class WholePatcher(comfy.model_patcher.ModelPatcher):
    """Loads whole or not at all.

    Under --novram the host allows a model no weights on the device even where a full load was asked for, and brings each layer
    there at use; that works for its own layers only. Ours here are small and go one after the other.
    """

    def partially_load(self, device_to: Any, extra_memory: float = 0, force_patch_weights: bool = False) -> Any:
        return super().partially_load(device_to, max(extra_memory, UNLIMITED), force_patch_weights=force_patch_weights)

    def partially_unload(self, *_: Any, **__: Any) -> int:
        """Frees nothing, so that the host unloads the whole: of a layer alone the fast path's copies would stay behind."""
        return 0

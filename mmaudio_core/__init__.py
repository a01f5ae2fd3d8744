"""MMAudio (arXiv 2412.15322) in plain PyTorch: video and/or text to synchronised sound.

    import mmaudio_core
    model = mmaudio_core.load()
    model.generate("clip.mp4", "rain on a tin roof").save("out.mp4")

Importing this package imports nothing heavy; the names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .errors import MMAudioError
    from .pipeline.model import MMAudio, load
    from .pipeline.result import Result
    from .pipeline.sample import SampleSettings

_HOMES = {
    "MMAudio": ".pipeline.model",
    "MMAudioError": ".errors",
    "Result": ".pipeline.result",
    "SampleSettings": ".pipeline.sample",
    "load": ".pipeline.model",
}
__all__ = ["MMAudio", "MMAudioError", "Result", "SampleSettings", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What may be done with a trained part."""

from __future__ import annotations

from pathlib import Path

from mmaudio_core.weights.parts import open_raw_part
from mmaudio_core.weights.registry import licence_of

UNSAID = "unspecified: that of its training data"


def licence_of_result(said: str, base: str, kind: str) -> str:
    """``said``, else that of the file ``base`` from which the training of the part ``kind`` began, else ``UNSAID``."""
    if said or not base:
        return said or UNSAID
    return licence_of(open_raw_part(Path(base).expanduser(), kind).values, kind)

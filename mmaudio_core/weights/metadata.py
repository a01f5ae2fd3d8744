"""What our own safetensors files say about themselves: one JSON text under the metadata key ``mmaudio_graph``.

A part: ``{"format": 1, "kind": "vae", "spec": {...}, "variant": "44k", "source_name": "v1-44.pth", "licence": "..."}``.
A family (several parts in one file, names prefixed ``flow.``, ``vae.``, ...): ``{"format": 1, "kind": "family", "parts":
{"flow": {...spec...}, "vae": {...}}, ...}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import WeightsError
from ..spec.model import PART_KINDS, PartSpec

KEY = "mmaudio_graph"
FORMAT = 1
FAMILY = "family"


def encode(values: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a safetensors file holding ``values`` (JSON values); the same values always give the same text."""
    text = json.dumps({"format": FORMAT, **values}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {"format": "pt", KEY: text}


def encode_part(spec: PartSpec, **extra: Any) -> dict[str, str]:
    """Metadata of a file with one part."""
    return encode({"kind": spec.kind, "spec": spec.to_dict(), **extra})


def decode(metadata: Mapping[str, str], where: str = "This file") -> dict[str, Any]:
    """Our values in a file's metadata, or {} where it is not ours.

    Raises:
        WeightsError: when the text is damaged or of a newer format than this version knows.
    """
    if KEY not in metadata:
        return {}
    try:
        values = json.loads(metadata[KEY])
        number = int(values["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{where} has damaged metadata under {KEY!r} ({error}).") from error
    if number > FORMAT:
        raise WeightsError(f"{where} was written in format {number}; this version reads up to {FORMAT}. Update the package.")
    return values


def family_parts(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind -> spec values of a family file's metadata; {} for any other file."""
    parts = values.get("parts") if values.get("kind") == FAMILY else None
    return {kind: dict(parts[kind]) for kind in PART_KINDS if kind in parts} if isinstance(parts, dict) else {}

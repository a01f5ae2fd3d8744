"""Any readable part file, or several parts, into one self-describing safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from ..spec.model import PART_KINDS, PartSpec
from .detect import variant_of
from .keymaps import fold_weight_norm, full_synchformer_names, module_names
from .metadata import FAMILY, encode, encode_part
from .parts import RawPart, open_raw_part
from .registry import licence_of
from .safetensors_file import ByteProgress, write_safetensors


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    *,
    kind: str | None = None,
    overwrite: bool = False,
    progress: ByteProgress | None = None,
) -> Path:
    """Writes the part in ``src`` to the safetensors file ``dst``: published names, weight norm folded, with metadata.

    ``dtype`` None keeps every number as it is, bit for bit; else floating tensors are converted. ``kind`` picks a part out of a
    family file. Of Synchformer everything is kept (visual tower, audio tower, offset head) under the published names. The same
    file gives the same bytes each time, and ``dst`` appears complete or not at all. ``progress`` gets (bytes written, in all).

    Raises:
        WeightsError: when ``src`` is no part of MMAudio, ``dst`` exists and ``overwrite`` is false, or it cannot be written.
    """
    src, dst = Path(src), Path(dst)
    check_target(dst, overwrite, src)
    part = open_raw_part(src, kind)
    detected = part.detected
    licence = licence_of(part.values, detected.kind)
    metadata = encode_part(detected.spec, variant=detected.variant, source_name=src.name, licence=licence)
    tensors = _published(part)
    # Folded weights are in memory by now; the mapped rest is converted while it is written.
    part.file.release()
    write_safetensors(dst, tensors, metadata, dtype=dtype, release=part.file.release, progress=progress)
    return dst


def check_target(dst: Path, overwrite: bool, src: Path | None = None) -> None:
    """Whether ``dst`` may be written.

    Raises:
        WeightsError: when it is a folder, is the source itself, exists without ``overwrite``, or its folder does not exist.
    """
    if dst.is_dir():
        raise WeightsError(f"{dst} is a folder; give the name of the file to write, for instance {dst / 'part.safetensors'}.")
    if not dst.parent.is_dir():
        raise WeightsError(f"The folder {dst.parent} does not exist; create it first.")
    if src is not None and dst.exists() and src.exists() and dst.samefile(src):
        raise WeightsError(f"{dst} would be written over itself; choose another name.")
    if dst.exists() and not overwrite:
        raise WeightsError(f"{dst} exists; remove it, choose another name, or ask to overwrite it.")


def write_family(
    parts: Mapping[str, tuple[PartSpec, Mapping[str, torch.Tensor]]],
    path: str | os.PathLike[str],
    extra: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Writes several parts into one file: kind -> (spec, tensors under our modules' names).

    ``extra`` are further metadata values (JSON), for instance ``variant``, ``source_name``, ``licence``. The parts are read
    again by ``open_part(path, kind)`` and ``load_part(path, kind)``.

    Raises:
        WeightsError: for an unknown kind, tensors that do not fit their spec's kind, or a target that cannot be written.
    """
    path = Path(path)
    check_target(path, overwrite)
    tensors: dict[str, torch.Tensor] = {}
    specs: dict[str, Any] = {}
    for kind, (spec, state) in parts.items():
        if kind not in PART_KINDS or spec.kind != kind:
            raise WeightsError(f"A part called {kind!r} was given with the configuration of {spec.kind!r}.")
        specs[kind] = spec.to_dict()
        tensors |= {f"{kind}.{name}": tensor for name, tensor in state.items()}
    flow = parts.get("flow")
    values = {"variant": variant_of(flow[0]) if flow else "", "source_name": path.name, "licence": "", **(extra or {})}
    write_safetensors(path, tensors, encode({**values, "kind": FAMILY, "parts": specs}))
    return path


def _published(part: RawPart) -> dict[str, torch.Tensor]:
    kind = part.detected.kind
    names = full_synchformer_names(part.tensors) if kind == "synchformer" else module_names(part.tensors, kind)
    return fold_weight_norm({new: part.tensors[old] for old, new in names.items()})

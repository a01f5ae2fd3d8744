"""One part of the model out of a file: recognised, under our names, memory-mapped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from .carried import with_carried
from .detect import Detected, detect, detect_kind, read_spec, shapes_of, variant_of
from .files import TensorFile, open_tensors
from .keymaps import normalise
from .metadata import decode, family_parts
from .registry import PHRASES, belongs


@dataclass(frozen=True)
class RawPart:
    """A part as it stands in its file: original names; ``values`` are our metadata, {} in other people's files."""

    file: TensorFile
    detected: Detected
    tensors: Mapping[str, torch.Tensor]
    values: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part under our modules' names, weight norm folded, unused entries left out."""

    file: TensorFile
    detected: Detected
    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


class _Prefixed(Mapping[str, torch.Tensor]):
    """The tensors of a family file under one prefix, still lazy."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix
        self._names = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[self._prefix + name]

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def split_parts(shapes: Mapping[str, Any], metadata: Mapping[str, str], where: str) -> dict[str, tuple[Detected, str]]:
    """Kind -> (what it is, prefix of its names) for every part in a file, from shapes and metadata alone.

    Raises:
        WeightsError: when the file holds no part of MMAudio or contradicts itself.
    """
    sizes = shapes_of(shapes)
    parts = family_parts(decode(metadata, where))
    if not parts:
        detected = detect(sizes, metadata, where)
        return {detected.kind: (detected, "")}
    result = {}
    for kind, said in parts.items():
        prefix = f"{kind}."
        inner = {name[len(prefix) :]: size for name, size in sizes.items() if name.startswith(prefix)}
        if detect_kind(inner) != kind:
            raise WeightsError(f"{where} says that it holds {PHRASES[kind]}, but its tensors under {prefix} are none.")
        spec = read_spec(kind, inner, said, where)
        result[kind] = (Detected(kind, spec, variant_of(spec)), prefix)
    return result


def open_raw_part(path: str | os.PathLike[str], kind: str | None = None) -> RawPart:
    """Opens the part ``kind`` of a file (None: the only part of the file) under the names in the file.

    Raises:
        WeightsError: one sentence, when the file is not what belongs there.
    """
    path = Path(path)
    file = open_tensors(path, kind)
    try:
        metadata = with_carried(file.metadata, file.tensors, str(path))
        parts = split_parts(file.tensors, metadata, str(path))
    except WeightsError as error:
        raise WeightsError(f"{str(error).rstrip('.')}; {belongs(kind)}.") from error
    if kind is None and len(parts) > 1:
        raise WeightsError(f"{path} holds several parts ({', '.join(parts)}); say which one is wanted.")
    wanted = kind if kind is not None else next(iter(parts))
    if wanted not in parts:
        there = " and ".join(detected.phrase for detected, _ in parts.values())
        raise WeightsError(f"{path} is {there}; {belongs(wanted)}.")
    detected, prefix = parts[wanted]
    tensors = _Prefixed(file.tensors, prefix) if prefix else file.tensors
    return RawPart(file, detected, tensors, decode(metadata, str(path)))


def open_part(path: str | os.PathLike[str], kind: str | None = None) -> Part:
    """Opens the part ``kind`` ("flow", "vae", "vocoder", "synchformer", "clip") of a file, also out of a family file.

    Returns tensors under our modules' names, as views of the mapped file; only folded weight-norm weights are in memory.

    Raises:
        WeightsError: one sentence, when the file is wrong or damaged.
    """
    raw = open_raw_part(path, kind)
    try:
        tensors = normalise(raw.tensors, raw.detected.kind)
    except WeightsError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    raw.file.release()
    return Part(raw.file, raw.detected, tensors, raw.values)

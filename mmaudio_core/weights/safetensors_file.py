"""Reading and writing the safetensors format: a length, a JSON list of tensors, then their bytes.

Read here and not through the package of that name, for three reasons: the list can be read without touching the data, tensors
are views of one private mapping (nothing is copied before it is used), and what is written is the same byte for byte every
time (the package stores the metadata in the order of a hash table).
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import WeightsError
from .sniff import size_text, wrong

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
ByteProgress = Callable[[int, int], None]
"""(bytes done, bytes in all); raise in it to stop."""
RELEASE_EVERY = 256 << 20
"""Bytes written before the pages of the source are let go."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the list; ``start`` and ``end`` count bytes from the beginning of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The list of a safetensors file; ``data`` is where in the file the tensors' bytes begin."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    data: int


def read_header(path: str | os.PathLike[str], kind: str | None = None) -> Header:
    """The list of tensors and the metadata; no tensor is read.

    Raises:
        WeightsError: when the list is damaged, or the file is shorter than the list says.
    """
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        raw = file.read(length)
        size = os.fstat(file.fileno()).st_size
    return parse_header(raw, size, path, kind)


def parse_header(raw: bytes, size: int, path: str | os.PathLike[str], kind: str | None = None) -> Header:
    """The same from ``raw``, the JSON list of a file of ``size`` bytes, wherever that lies; ``path`` names it in messages."""
    length = len(raw)
    try:
        values = json.loads(raw)
        metadata = values.pop("__metadata__", None) or {}
        entries = {name: _entry(name, value) for name, value in values.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise wrong(path, f"is a safetensors file with a damaged list of tensors ({error}); download it again", kind) from error
    needed = 8 + length + max((entry.end for entry in entries.values()), default=0)
    if needed > size:
        raise wrong(path, f"is cut off: {size_text(size)} of {size_text(needed)} are there; download it again", kind)
    return Header(entries, {str(k): str(v) for k, v in metadata.items()}, 8 + length)


def _entry(name: str, value: dict[str, Any]) -> Entry:
    if value["dtype"] not in DTYPES:
        raise ValueError(f"{name} has the number format {value['dtype']}, which is not supported")
    dtype, shape = DTYPES[value["dtype"]], tuple(int(n) for n in value["shape"])
    start, end = (int(n) for n in value["data_offsets"])
    if min(shape, default=0) < 0 or start < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {end - start} bytes for the shape {shape}")
    return Entry(dtype, shape, start, end)


class HeldTensors(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file as views of its bytes, a uint8 tensor (size of the file), made when asked for."""

    def __init__(self, data: torch.Tensor, header: Header) -> None:
        self._header, self._bytes = header, data

    def __getitem__(self, name: str) -> torch.Tensor:
        entry = self._header.entries[name]
        flat = self._bytes[self._header.data + entry.start : self._header.data + entry.end]
        if flat.storage_offset() % entry.dtype.itemsize:
            flat = flat.clone()  # some writers do not align; a view of another type must be
        return flat.view(entry.dtype).view(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header.entries)

    def __len__(self) -> int:
        return len(self._header.entries)


class MappedTensors(HeldTensors):
    """The same of a file on disk, as views of one private mapping."""

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        size = os.stat(path).st_size
        super().__init__(torch.from_file(os.fspath(path), shared=False, size=size, dtype=torch.uint8), header)


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    *,
    dtype: torch.dtype | None = None,
    release: Callable[[], None] | None = None,
    progress: ByteProgress | None = None,
) -> None:
    """Writes ``tensors`` (any device) to ``path``: first to ``path`` + ".partial", then renamed.

    Floating tensors are written in ``dtype`` (None: as they are). The same tensors and metadata always give the same bytes.
    A run that is killed leaves at most the ".partial" file, which the next run overwrites; ``path`` is either absent (or old)
    or complete. ``release()`` is called every 256 MB, to let go of what was read. ``progress`` gets (bytes written, in all).

    Raises:
        WeightsError: when the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    # Widest numbers first, as the package does, so that every tensor is aligned to its own type.
    formats = {name: dtype if dtype and tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (-formats[name].itemsize, name))
    try:
        with open(partial, "wb") as file:
            file.write(_header_bytes(tensors, {name: formats[name] for name in order}, metadata))
            _write_data(file, tensors, {name: formats[name] for name in order}, release, progress)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WeightsError(f"{path} could not be written ({error.strerror or error}); nothing was left behind.") from error
        raise


def _header_bytes(
    tensors: Mapping[str, torch.Tensor], formats: Mapping[str, torch.dtype], metadata: Mapping[str, str]
) -> bytes:
    values: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name, dtype in formats.items():
        if dtype not in NAMES:
            raise WeightsError(f"The tensor {name} has the number format {dtype}, which safetensors cannot hold.")
        size = tensors[name].numel() * dtype.itemsize
        values[name] = {"dtype": NAMES[dtype], "shape": list(tensors[name].shape), "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(values, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def _write_data(
    file: BinaryIO,
    tensors: Mapping[str, torch.Tensor],
    formats: Mapping[str, torch.dtype],
    release: Callable[[], None] | None,
    progress: ByteProgress | None,
) -> None:
    total = sum(tensors[name].numel() * dtype.itemsize for name, dtype in formats.items())
    written = unreleased = 0
    for name, dtype in formats.items():
        raw = tensors[name].detach().to("cpu", dtype).contiguous().reshape(-1).view(torch.uint8)
        file.write(raw.numpy().data)
        written += raw.numel()
        unreleased += tensors[name].numel() * tensors[name].element_size()
        if release is not None and unreleased >= RELEASE_EVERY:
            release()
            unreleased = 0
        if progress is not None:
            progress(written, total)

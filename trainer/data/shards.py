"""Shards: safetensors files that hold what a block of the manifest became (latents, features), and what it was.

Tensors of sample i are ``000000.latent_mean`` and ``.latent_std`` float32 (L, C), ``.clip`` float16 (V, clip width),
``.sync`` float16 (S, sync width), ``.text`` float16 (T, text width); what a sample lacks is absent. Latents are raw: training
normalises them. The metadata's ``mmaudio_shard`` is JSON: the format's number, a record per sample, the block's bad rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from threading import Event
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from mmaudio_core.errors import DownloadError, InputError, MMAudioError, WeightsError
from mmaudio_core.weights.inspect import file_digest
from mmaudio_core.weights.safetensors_file import Header, HeldTensors, MappedTensors, parse_header, write_safetensors

from .crops import Kind
from .report import BadRow
from .source import is_remote, read_bytes

FORMAT = 1
METADATA_KEY = "mmaudio_shard"
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its list, as one 64-bit number."""
STORED: dict[str, torch.dtype] = {
    "latent_mean": torch.float32,
    "latent_std": torch.float32,
    "clip": torch.float16,
    "sync": torch.float16,
    "text": torch.float16,
}
NEEDED = ("latent_mean", "latent_std")
_DAMAGED, _OTHER_BYTES = "it is damaged or cut off", "its bytes are not those that the index lists"


@dataclass(frozen=True)
class Widths:
    """Shapes of one sample's inputs: (tokens, width) of latents, CLIP, Synchformer and text features."""

    latent: tuple[int, int]
    clip: tuple[int, int]
    sync: tuple[int, int]
    text: tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """One crop as it is trained on; shapes and formats as in this module's own words, ``None`` what it lacks.

    id: the row's, with @ and the crop's start behind it where a row gave several.
    kind: "av" for the crop of a video, "at" for that of a recording.
    """

    id: str
    kind: Kind
    caption: str
    latent_mean: Tensor
    latent_std: Tensor
    clip: Tensor | None = None
    sync: Tensor | None = None
    text: Tensor | None = None


@dataclass(frozen=True)
class Record:
    """Where a sample came from: ``duration_s`` seconds of ``path`` (as in the manifest) from ``start_s`` on."""

    id: str
    kind: Kind
    caption: str
    path: str
    start_s: float
    duration_s: float


def write_shard(
    path: str | os.PathLike[str], samples: Sequence[Sample], records: Sequence[Record], bad: Sequence[BadRow] = ()
) -> None:
    """Writes samples with their records, and the block's bad rows; the file appears whole or not at all.

    The same content always gives the same bytes. A killed run leaves at most ``path`` + ".partial", which the next overwrites.

    Raises:
        InputError: when samples and records are not of the same clips.
        WeightsError: when the folder cannot be written to.
    """
    pairs = [(sample.id, sample.kind, sample.caption) for sample in samples]
    if pairs != [(record.id, record.kind, record.caption) for record in records]:
        raise InputError(f"{path}: its {len(samples)} samples and {len(records)} records are not of the same clips.")
    tensors = {
        f"{i:06d}.{name}": value.to("cpu", dtype)
        for i, sample in enumerate(samples)
        for name, dtype in STORED.items()
        if (value := getattr(sample, name)) is not None
    }
    said = {"format": FORMAT, "samples": [asdict(record) for record in records], "bad": [asdict(row) for row in bad]}
    # Names of files may hold bytes that are no Unicode; escaped, they can be written.
    write_safetensors(path, tensors, {METADATA_KEY: json.dumps(said, separators=(",", ":"))})


class Shard:
    """The samples of a shard, by number; tensors are views of the mapped file, or of the one buffer that came from an address.

    location: a path, or an address (HTTP, or anything that fsspec knows), which is read as a whole.
    size_bytes, sha256: what the index says of it. The size is always compared, the hash where it is given.
    stop: once set, an address that fails is not asked again.

    Raises:
        InputError: a shard on disk that is missing, damaged or no shard.
        DownloadError: the same behind an address, when trying again did not help.
    """

    records: tuple[Record, ...]
    bad: tuple[BadRow, ...]

    def __init__(
        self,
        location: str | os.PathLike[str],
        size_bytes: int | None = None,
        sha256: str | None = None,
        stop: Event | None = None,
    ) -> None:
        self.location = os.fspath(location)
        try:
            if is_remote(self.location):
                self._tensors, metadata = self._remote(read_bytes(self.location, size_bytes, stop), sha256)
            else:
                self._tensors, metadata = self._local(sha256)
            self.records, self.bad = _read_metadata(metadata)
            self._check(size_bytes)
        except DownloadError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            kind: type[MMAudioError] = DownloadError if is_remote(self.location) else InputError
            what = error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")
            raise kind(f"The shard {self.location} cannot be used: {what}. Copy or extract it again.") from error

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> Sample:
        record = self.records[row]
        values = {name: self._tensors.get(f"{row:06d}.{name}") for name in STORED}
        return Sample(record.id, record.kind, record.caption, **cast("dict[str, Any]", values))

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))

    def _local(self, sha256: str | None) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        with open(self.location, "rb") as file:
            header = _read_header(file, os.fstat(file.fileno()).st_size, self.location)
        if sha256 is not None and file_digest(self.location, "sha256") != sha256:
            raise ValueError(_OTHER_BYTES)
        return (MappedTensors(self.location, header) if header.entries else {}), header.metadata

    def _remote(self, raw: np.ndarray, sha256: str | None) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        if sha256 is not None and hashlib.sha256(raw.data).hexdigest() != sha256:
            raise ValueError(_OTHER_BYTES)
        header = _read_header(BytesIO(_start_of(raw)), len(raw), self.location)
        return (HeldTensors(torch.from_numpy(raw), header) if header.entries else {}), header.metadata

    def _check(self, size_bytes: int | None) -> None:
        if size_bytes is not None and not is_remote(self.location) and os.stat(self.location).st_size != size_bytes:
            raise ValueError(f"the index lists {size_bytes} bytes, and it has {os.stat(self.location).st_size}")
        names = set(self._tensors)
        for i in range(len(self)):
            if lacking := [name for name in NEEDED if f"{i:06d}.{name}" not in names]:
                raise ValueError(f"its sample {i} has no {' and no '.join(lacking)}")


def _start_of(raw: np.ndarray) -> bytes:
    """The length and the list of tensors, as far as they are there; the rest is not copied."""
    length = int.from_bytes(raw[:LENGTH_BYTES].tobytes(), "little")
    return raw[: LENGTH_BYTES + min(length, len(raw))].tobytes()


def _read_header(file: BinaryIO, size: int, location: str) -> Header:
    start = file.read(LENGTH_BYTES)
    length = struct.unpack("<Q", start)[0] if len(start) == LENGTH_BYTES else size
    if LENGTH_BYTES + length > size:
        raise ValueError(_DAMAGED)
    try:
        return parse_header(file.read(length), size, location)
    except WeightsError as error:
        raise ValueError(_DAMAGED) from error


def _read_metadata(metadata: Mapping[str, str]) -> tuple[tuple[Record, ...], tuple[BadRow, ...]]:
    if METADATA_KEY not in metadata:
        raise ValueError("it is a safetensors file of another kind")
    said = json.loads(metadata[METADATA_KEY])
    if said["format"] != FORMAT:
        raise ValueError(f"its format has the number {said['format']} and this program reads {FORMAT}")
    return tuple(Record(**values) for values in said["samples"]), tuple(BadRow(**values) for values in said["bad"])

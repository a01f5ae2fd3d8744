"""The list of a data set's shards: ``index.json`` in their folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Any

from mmaudio_core.errors import DownloadError, InputError
from mmaudio_core.spec.audio import AUDIO_SPECS, AudioSpec

from .crops import Kind
from .shards import Shard, Widths
from .source import beside, is_remote, read_bytes

FORMAT = 1
INDEX_NAME = "index.json"


@dataclass(frozen=True)
class ShardInfo:
    """What the index says of one shard.

    location: path or address. size_bytes, sha256: of the file. kinds: runs of samples of one kind, in order. bad: left out.
    """

    location: str
    size_bytes: int
    sha256: str
    kinds: tuple[tuple[Kind, int], ...]
    bad: int = 0

    def __len__(self) -> int:
        return sum(count for _, count in self.kinds)

    def count(self, kind: Kind) -> int:
        """Samples of ``kind``."""
        return sum(count for found, count in self.kinds if found == kind)

    def rows(self, kind: Kind) -> list[int]:
        """The numbers of the samples of ``kind``."""
        every = [found for found, count in self.kinds for _ in range(count)]
        return [row for row, found in enumerate(every) if found == kind]

    def open(self, verify: bool = False, stop: Event | None = None) -> Shard:
        """The shard; ``verify`` also compares its hash. ``stop``: once set, an address that fails is not asked again.

        Raises:
            InputError, DownloadError: see ``Shard``.
        """
        return Shard(self.location, self.size_bytes, self.sha256 if verify else None, stop)


@dataclass(frozen=True)
class Index:
    """A data set.

    audio: format of the sound that the latents stand for. duration_s: of every sample. widths: shapes of a sample's inputs.
    encoders: SHA-256 of each encoder's weights. settings: how it was extracted. hash: SHA-256 that changes with any of it.
    """

    shards: tuple[ShardInfo, ...]
    audio: AudioSpec
    duration_s: float
    widths: Widths
    encoders: Mapping[str, str]
    settings: Mapping[str, Any]
    hash: str

    @classmethod
    def load(cls, location: str | Path) -> Index:
        """The index of a folder, or of an address that has ``index.json`` below it; the file itself may be named too.

        Raises:
            InputError: when there is none, or it is damaged or of another format.
            DownloadError: the same for an address.
        """
        base = str(location)
        base = base[: -len(INDEX_NAME)].rstrip("/\\") or "." if base.endswith(INDEX_NAME) else base
        where = beside(base, INDEX_NAME)
        try:
            raw = bytes(read_bytes(where)) if is_remote(where) else Path(where).read_bytes()
            return _read(raw, base)
        except OSError as error:
            if isinstance(error, DownloadError):
                raise
            raise InputError(
                f"{where} cannot be read ({error.strerror or error}); the index is written last, so run mmaudio-train extract "
                "into that folder to its end."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{where} is damaged or no index of shards ({error}); delete it and run extract again.") from error

    @property
    def counts(self) -> Counter[str]:
        """Samples by kind: "av" and "at"."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            for kind, count in shard.kinds:
                counts[kind] += count
        return counts

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def size_bytes(self) -> int:
        return sum(shard.size_bytes for shard in self.shards)


def join(indexes: Sequence[Index]) -> Index:
    """Several data sets as one, in this order.

    Raises:
        InputError: for none at all, or where they were extracted with other encoders or durations.
    """
    if not indexes:
        raise InputError("No data set was given; give the folder or address of at least one.")
    first = indexes[0]
    for other in indexes[1:]:
        for name in ("audio", "duration_s", "widths"):
            if getattr(other, name) != getattr(first, name):
                raise InputError(
                    f"Two data sets differ in {name}: {getattr(first, name)} and {getattr(other, name)}; extract both alike."
                )
        shared = set(first.encoders) & set(other.encoders)
        if differing := sorted(name for name in shared if first.encoders[name] != other.encoders[name]):
            raise InputError(f"Two data sets were extracted with different encoders: {', '.join(differing)}; use the same.")
    if len(indexes) == 1:
        return first
    shards = tuple(shard for index in indexes for shard in index.shards)
    digest = hashlib.sha256("".join(index.hash for index in indexes).encode()).hexdigest()
    return Index(shards, first.audio, first.duration_s, first.widths, first.encoders, first.settings, digest)


def shard_info(path: Path, sha256: str) -> tuple[ShardInfo, Shard]:
    """What the index will say of the shard at ``path``; and the shard."""
    shard = Shard(path)
    runs = groupby(record.kind for record in shard.records)
    kinds = tuple((kind, len(list(group))) for kind, group in runs)
    return ShardInfo(str(path), path.stat().st_size, sha256, kinds, len(shard.bad)), shard


def index_text(
    shards: Iterable[ShardInfo],
    audio: AudioSpec,
    duration_s: float,
    widths: Widths,
    encoders: Mapping[str, str],
    settings: Mapping[str, Any],
) -> str:
    """The content of ``index.json`` of shards that lie beside it."""
    listed = list(shards)
    values = {
        "format": FORMAT,
        "audio": audio.name,
        "duration_s": duration_s,
        "widths": asdict(widths),
        "encoders": dict(encoders),
        "settings": dict(settings),
        "totals": {
            "samples": sum(map(len, listed)),
            "av": sum(shard.count("av") for shard in listed),
            "at": sum(shard.count("at") for shard in listed),
            "bad": sum(shard.bad for shard in listed),
            "bytes": sum(shard.size_bytes for shard in listed),
        },
        "shards": [
            {
                "name": Path(shard.location).name,
                "bytes": shard.size_bytes,
                "sha256": shard.sha256,
                "samples": len(shard),
                "kinds": shard.kinds,
                "bad": shard.bad,
            }
            for shard in listed
        ],
    }
    return json.dumps(values, indent=1) + "\n"


def _read(raw: bytes, base: str) -> Index:
    values = json.loads(raw)
    if values["format"] != FORMAT:
        raise ValueError(f"its format has the number {values['format']} and this program reads {FORMAT}")
    shards = tuple(
        ShardInfo(
            beside(base, item["name"]),
            int(item["bytes"]),
            item["sha256"],
            tuple((kind, int(count)) for kind, count in item["kinds"]),
            int(item["bad"]),
        )
        for item in values["shards"]
    )
    widths = Widths(**{field.name: tuple(values["widths"][field.name]) for field in fields(Widths)})
    return Index(
        shards,
        AUDIO_SPECS[values["audio"]],
        float(values["duration_s"]),
        widths,
        values["encoders"],
        values["settings"],
        hashlib.sha256(raw).hexdigest(),
    )

"""The work of one rank: its missing blocks to shards; and the index, once all shards are there."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmaudio_core.media.in_order import InOrder
from mmaudio_core.weights.inspect import file_digest

from ..data.index import INDEX_NAME, ShardInfo, index_text, shard_info
from ..data.report import BadRow
from ..data.shards import Record, Sample, write_shard
from .blocks import Block, count_rows, missing_blocks, read_blocks, shard_name
from .clips import Clip, ClipReader
from .encoders import Encoders
from .settings import ExtractSettings, Ranks, claim, describe, remove_stale, write_text

log = logging.getLogger("mmaudio")

BAD_NAME = "bad.jsonl"
_HASHERS = 4
"""Threads that read shards for the index."""
Progress = Callable[[int, int], None]
"""(rows done, rows in all)."""


@dataclass(frozen=True)
class Task:
    """What to extract, into where.

    excluded: files of the guard's ids. batch_size: clips that are encoded together. workers: files that are read together.
    """

    manifest: Path
    folder: Path
    settings: ExtractSettings
    excluded: tuple[Path, ...] = ()
    batch_size: int = 8
    workers: int = 4


@dataclass(frozen=True)
class Done:
    """What one rank did.

    samples: made, by kind. bad: rows and crops left out, by reason. index: None while shards of other ranks are missing.
    """

    samples: Counter[str]
    bad: Counter[str]
    index: Path | None


class _Assembly:
    """One block on its way: clips gather until a batch is full, and the shard is written when the last row is in."""

    def __init__(self, encoders: Encoders, settings: ExtractSettings, batch_size: int) -> None:
        self._encoders, self._settings, self._batch_size = encoders, settings, batch_size
        self._waiting: list[Clip] = []
        self.samples: list[Sample] = []
        self.records: list[Record] = []
        self.bad: list[BadRow] = []

    def add(self, items: list[Clip | BadRow]) -> None:
        for item in items:
            if isinstance(item, BadRow):
                self.bad.append(item)
                continue
            self._waiting.append(item)
            if len(self._waiting) == self._batch_size:
                self._encode()

    def write(self, path: Path) -> None:
        self._encode()
        if self._settings.text:
            texts = self._encoders.encode_texts([sample.caption for sample in self.samples])
            self.samples = [replace(sample, text=texts.get(sample.caption)) for sample in self.samples]
        write_shard(path, self.samples, self.records, self.bad)

    def _encode(self) -> None:
        if self._waiting:
            self.samples += self._encoders.encode(self._waiting)
            self.records += [clip.record for clip in self._waiting]
            self._waiting = []


def extract(task: Task, encoders: Encoders, reader: ClipReader, ranks: Ranks, progress: Progress) -> Done:
    """Makes this rank's missing shards, and the index where no shard is missing any more.

    Safe to be killed at any moment and to be started again, with any number of ranks; what is there is not made again.

    Raises:
        InputError: when the folder was begun with other settings, encoders or another manifest.
        MediaError, WeightsError: when the folder cannot be written to.
    """
    rows = count_rows(task.manifest, task.settings.split)
    hashes = encoders.hashes()
    said = describe(
        task.settings,
        file_digest(task.manifest, "sha256"),
        [file_digest(path, "sha256") for path in task.excluded],
        encoders.audio.name,
        str(encoders.dtype).removeprefix("torch."),
        hashes,
    )
    claim(task.folder, said, ranks)
    remove_stale(task.folder, ranks)
    total = -(-rows // task.settings.rows_per_shard)
    missing = missing_blocks(task.folder, total, ranks)
    if missing:
        # A shard that was deleted comes again; until then the index would promise too much.
        (task.folder / INDEX_NAME).unlink(missing_ok=True)
    own_rows = sum(min(task.settings.rows_per_shard, rows - number * task.settings.rows_per_shard) for number in missing)
    samples, bad = _extract_blocks(task, encoders, reader, missing, lambda done: progress(done, own_rows))
    index = finish(task.folder, total, encoders, said, ranks, bool(missing))
    return Done(samples, bad, index)


def _extract_blocks(
    task: Task, encoders: Encoders, reader: ClipReader, missing: list[int], progress: Callable[[int], None]
) -> tuple[Counter[str], Counter[str]]:
    samples: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    done = 0
    assembly = _Assembly(encoders, task.settings, task.batch_size)

    def deliver(found: tuple[Block, bool, list[Clip | BadRow]]) -> None:
        nonlocal assembly, done
        block, last, items = found
        assembly.add(items)
        done += 1
        if last:
            assembly.write(task.folder / shard_name(block.number))
            samples.update(sample.kind for sample in assembly.samples)
            bad.update(row.reason for row in assembly.bad)
            assembly = _Assembly(encoders, task.settings, task.batch_size)
        progress(done)

    def read(block: Block, place: int) -> tuple[Block, bool, list[Clip | BadRow]]:
        return block, place == len(block.rows) - 1, reader.read(block.rows[place])

    with InOrder(deliver, task.workers) as jobs:
        for block in _wanted(task, set(missing)):
            for place in range(len(block.rows)):
                jobs.submit(partial(read, block, place))
        jobs.drain()
    return samples, bad


def _wanted(task: Task, numbers: set[int]) -> Iterator[Block]:
    if numbers:
        last = max(numbers)
        for block in read_blocks(task.manifest, task.settings):
            if block.number in numbers:
                yield block
            if block.number == last:
                return


def finish(folder: Path, total: int, encoders: Encoders, said: dict[str, Any], ranks: Ranks, changed: bool) -> Path | None:
    """Writes ``bad.jsonl`` and then ``index.json`` when all ``total`` shards are there; None while they are not.

    Whoever finds all shards writes: two ranks that finish together write the same. ``changed``: also where an index is.
    """
    paths = [folder / shard_name(number) for number in range(total)]
    index = folder / INDEX_NAME
    if not all(path.exists() for path in paths):
        return None
    if index.exists() and not changed:
        return index
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = pool.map(lambda path: file_digest(path, "sha256"), paths)
        infos: list[ShardInfo] = []
        lines: list[str] = []
        for path, digest in zip(paths, digests, strict=True):
            info, shard = shard_info(path, digest)
            infos.append(info)
            lines += [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in shard.bad]
    write_text(folder / BAD_NAME, "".join(lines), ranks)
    settings = {name: value for name, value in said.items() if name not in ("format", "encoders")}
    text = index_text(infos, encoders.audio, encoders.lengths.duration_s, encoders.widths, said["encoders"], settings)
    write_text(index, text, ranks)
    return index

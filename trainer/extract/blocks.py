"""The manifest in blocks: block k is always the same rows and becomes shard k, whoever extracts it and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mmaudio_core.errors import InputError

from ..data.manifest import Row, read_manifest
from ..data.report import BadRow
from .settings import EVERY_SPLIT, ExtractSettings, Ranks


@dataclass(frozen=True)
class Block:
    """Consecutive rows of the manifest, in order."""

    number: int
    rows: tuple[Row | BadRow, ...]


def shard_name(number: int) -> str:
    """The file that block ``number`` becomes."""
    return f"shard-{number:06d}.safetensors"


def count_rows(manifest: Path, split: str) -> int:
    """Rows of ``split``, with those that cannot be read: what all blocks hold together.

    Raises:
        InputError: when there is none, or the manifest cannot be read.
    """
    splits: Counter[str] = Counter()
    count = 0
    for row in read_manifest(manifest):
        count += _belongs(row, split)
        splits[row.split if isinstance(row, Row) else ""] += 1
    if not any(splits[name] for name in splits if name and split in (name, EVERY_SPLIT)):
        there = ", ".join(f"{name} ({number})" for name, number in sorted(splits.items()) if name) or "no row that can be read"
        raise InputError(f"{manifest} has no rows of the split {split!r}; it has {there}.")
    return count


def read_blocks(manifest: Path, settings: ExtractSettings) -> Iterator[Block]:
    """All blocks, one after the other."""
    rows = (row for row in read_manifest(manifest) if _belongs(row, settings.split))
    number = 0
    while block := tuple(islice(rows, settings.rows_per_shard)):
        yield Block(number, block)
        number += 1


def missing_blocks(folder: Path, total: int, ranks: Ranks) -> list[int]:
    """The numbers of this rank's blocks, of ``total``, whose shards are not there yet."""
    return [number for number in range(ranks.rank, total, ranks.world) if not (folder / shard_name(number)).exists()]


def _belongs(row: Row | BadRow, split: str) -> bool:
    """Rows that cannot be read are of no split; they are reported with every one."""
    return isinstance(row, BadRow) or split in (row.split, EVERY_SPLIT)

"""From what a data set names to rows that can be trained on: found, opened, checked, in order, a bounded number at a time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

from mmaudio_core.errors import DependencyError, InputError, MediaError
from mmaudio_core.media.in_order import InOrder

from .crops import CROP_S, Kind, crops_of
from .guard import Guard
from .layouts import Wanted
from .manifest import Row, unwritable
from .probe import SILENT_PEAK, measure, probe
from .report import BadRow, Reason, Report


@dataclass(frozen=True)
class ScanSettings:
    """What a row must be.

    manifest: the file that is to be written; media below its folder is named relative to it.
    duration_s: seconds of a crop; a file that gives none is too short.
    deep: decode the sound, to find silence and lengths that headers do not tell.
    need_video, need_caption: refuse rows without.
    fractions: shares of the rows of split "train" that go to other splits, by a hash of the id.
    guard: ids that must not be in the manifest.
    workers: threads that open files; 0 opens them one after the other in the caller's.
    """

    manifest: Path
    duration_s: float = CROP_S
    deep: bool = False
    need_video: bool = False
    need_caption: bool = False
    fractions: dict[str, float] = field(default_factory=dict)
    guard: Guard = field(default_factory=Guard)
    workers: int = 4


@dataclass(frozen=True)
class Good:
    """A row for the manifest, its kind, and the crops that it gives (0: its header does not tell its length)."""

    row: Row
    kind: Kind
    crops: int


class Unusable(Exception):
    """Why a file cannot be trained on; ``scan`` turns it into a ``BadRow``."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class Tally:
    """What went into a manifest."""

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self.splits: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.crops = 0

    def add(self, good: Good) -> None:
        self.splits[good.row.split] += 1
        self.kinds[good.kind] += 1
        self.crops += good.crops

    def summary(self) -> str:
        """Such as "12 rows (train 10, val 2; 8 with video, 4 sound alone), 0.04 h in 20 crops of 8 s"."""
        splits = ", ".join(f"{name} {count}" for name, count in sorted(self.splits.items()))
        rows = self.splits.total()
        hours = self.crops * self._duration_s / 3600
        return (
            f"{rows} row{'s' * (rows != 1)} ({splits}; {self.kinds['av']} with video, {self.kinds['at']} sound alone), "
            f"{hours:.2f} h in {self.crops} crops of {self._duration_s:g} s"
        )


def check_fractions(fractions: dict[str, float]) -> dict[str, float]:
    """``fractions`` themselves.

    Raises:
        InputError: a share outside 0 to 1, shares of more than 1 together, or one for "train", which gets the rest.
    """
    if "train" in fractions or any(not 0 < share < 1 for share in fractions.values()) or sum(fractions.values()) >= 1:
        given = ", ".join(f"{name}={share:g}" for name, share in fractions.items())
        raise InputError(f"The shares {given} were given; each must be above 0, all together below 1, and train gets the rest.")
    return fractions


def split_of(row: Row, fractions: dict[str, float]) -> str:
    """The row's split, after a part of "train" went to other splits; the same on every machine and in every order.

    All captions of one clip ("name#1", "name#2") go the same way.
    """
    if row.split != "train":
        return row.split
    name = row.id.partition("#")[0] or row.id
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for split, share in fractions.items():
        if place < share:
            return split
        place -= share
    return row.split


def scan(
    items: Iterable[Wanted | BadRow],
    settings: ScanSettings,
    report: Report,
    progress: Callable[[int], None] = lambda files: None,
) -> Iterator[Good]:
    """The rows of ``items`` that can be trained on, in their order; the others go to ``report``.

    Holds the ids seen so far and a few files per worker. ``progress`` gets the number of files looked at.

    Raises:
        InputError: what ``items`` raises of a list that is not of its layout.
        DependencyError: PyAV is missing. Nothing that is wrong with one file is raised.
    """
    check_fractions(settings.fractions)
    ready: deque[list[Good | BadRow]] = deque()
    seen: set[str] = set()
    looked = 0
    with InOrder(ready.append, settings.workers) as jobs:
        for item in chain(items, (None,)):
            if item is None:
                jobs.drain()
            else:
                jobs.submit(partial(_look, item, settings))
            while ready:
                looked += 1
                yield from _accepted(ready.popleft(), seen, report)
                progress(looked)


def _accepted(results: list[Good | BadRow], seen: set[str], report: Report) -> Iterator[Good]:
    for result in results:
        if isinstance(result, BadRow):
            report.add(result)
        elif result.row.id in seen:
            row = result.row
            report.add(BadRow(row.line, row.id, row.path, "duplicate id", "An earlier row has this id."))
        else:
            seen.add(result.row.id)
            yield result


def _look(item: Wanted | BadRow, settings: ScanSettings) -> list[Good | BadRow]:
    """Everything about one file; [] for one that is no media file and need not be."""
    if isinstance(item, BadRow):
        return [item]
    found = next((file for file in item.files if os.path.isfile(file)), None)
    if found is None:
        home, name = os.path.split(item.files[0])
        others = f" (or {len(item.files) - 1} other names)" if len(item.files) > 1 else ""
        detail = f"There is no file {name}{others} in {home}."
        return [BadRow(row.line, row.id, item.files[0], "missing", detail) for row in item.rows]
    path = Path(found)
    rows = [replace(row, path=manifest_path(path, settings.manifest)) for row in item.rows]
    results = [_forbidden(row, settings) for row in rows]
    if all(results):
        return [bad for bad in results if bad]
    try:
        kind, crops = _examine(path, rows[0], settings)
    except Unusable as why:
        if why.reason in ("unreadable", "no sound") and not item.sure:
            return []
        return [BadRow(row.line, row.id, row.path, why.reason, why.detail) for row in rows]
    return [bad or _good(row, kind, crops, settings) for row, bad in zip(rows, results, strict=True)]


def manifest_path(path: Path, manifest: Path) -> str:
    """``path`` as a manifest names it: from its folder on where it lies below, else absolute; with slashes on every system."""
    file, home = Path(os.path.abspath(path)), Path(os.path.abspath(manifest)).parent
    return (file.relative_to(home) if file.is_relative_to(home) else file).as_posix()


def _forbidden(row: Row, settings: ScanSettings) -> BadRow | None:
    if problem := unwritable(row, settings.manifest):
        return BadRow(row.line, row.id, row.path, "malformed", problem)
    if name := settings.guard.find(row):
        return BadRow(row.line, row.id, row.path, "overlap", f"The excluded ids name {name}.")
    return None


def _good(row: Row, kind: Kind, crops: int, settings: ScanSettings) -> Good | BadRow:
    if settings.need_caption and not row.caption:
        return BadRow(row.line, row.id, row.path, "no caption")
    return Good(replace(row, split=split_of(row, settings.fractions)), kind, crops)


def _examine(path: Path, row: Row, settings: ScanSettings) -> tuple[Kind, int]:
    """(kind, number of crops) of a file.

    Raises:
        Unusable: with the reason.
        DependencyError: PyAV is missing.
    """
    try:
        found = probe(path)
        if not found.has_sound:
            raise Unusable("no sound", f"{path.name} holds no sound track.")
        if settings.need_video and not found.has_video:
            raise Unusable("no video", f"{path.name} holds only sound, no pictures.")
        loudness = measure(path) if settings.deep else None
    except (Unusable, DependencyError):
        raise
    except MediaError as error:
        raise Unusable("unreadable", str(error)) from error
    except Exception as error:  # among a million files some fail as none did before, and the others must go on
        raise Unusable("unreadable", f"{path.name}: {type(error).__name__}: {error}") from error
    if loudness is not None:
        found = replace(found, sound_s=loudness.duration_s)
    length_s = found.duration_s
    if length_s is None:
        return found.kind, 0
    crops = crops_of(found.kind, length_s, row.start_s, row.end_s, settings.duration_s)
    if not crops:
        raise Unusable("too short", f"{length_s:.2f} s; {settings.duration_s:g} s are needed.")
    if loudness is not None and (peak := max(loudness.peak(crop) for crop in crops)) < SILENT_PEAK:
        raise Unusable("silent", f"The largest sample is {peak:.1e} of full scale; {SILENT_PEAK:g} and less is silence.")
    return found.kind, len(crops)

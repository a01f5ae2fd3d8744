"""Rows that cannot be used, with the reason, and the file that lists them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal, get_args

from mmaudio_core.errors import InputError
from mmaudio_core.media.atomic import atomic_path

Reason = Literal[
    "missing",
    "unreadable",
    "no sound",
    "silent",
    "too short",
    "no video",
    "no caption",
    "malformed",
    "duplicate id",
    "overlap",
]
REASONS: tuple[str, ...] = get_args(Reason)


@dataclass(frozen=True)
class BadRow:
    """A row that was left out.

    line: where it stood in the source; 0 where that has no lines (a folder).
    id, path: as far as they could be read.
    reason: one of ``REASONS``.
    detail: a sentence or a few words more.
    """

    line: int
    id: str
    path: str
    reason: Reason
    detail: str = ""


class Report:
    """Counts bad rows by reason and, where it has a stream, writes each as one line of JSON."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream
        self.counts: Counter[str] = Counter()

    def add(self, bad: BadRow) -> None:
        self.counts[bad.reason] += 1
        if self._stream is not None:
            self._stream.write(json.dumps(asdict(bad), ensure_ascii=False) + "\n")

    def summary(self) -> str:
        """Such as "3 bad rows: 2 missing, 1 silent", in the order of ``REASONS``; "" when there are none."""
        total = self.counts.total()
        if not total:
            return ""
        listed = ", ".join(f"{self.counts[reason]} {reason}" for reason in REASONS if self.counts[reason])
        return f"{total} bad row{'s' * (total != 1)}: {listed}"


@contextmanager
def report_to(path: Path | None) -> Iterator[Report]:
    """A ``Report`` that writes to the JSONL file ``path``, which appears when the block ends well; ``None`` only counts.

    Raises:
        MediaError: when the file's folder does not exist or cannot be written to.
    """
    if path is None:
        yield Report()
        return
    # Names of files may hold bytes that are no UTF-8; a report must be able to name them.
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        yield Report(stream)


def write_report(rows: Iterable[BadRow], path: Path) -> Report:
    """Writes ``rows`` to the JSONL file ``path``, whole or not at all."""
    with report_to(path) as report:
        for row in rows:
            report.add(row)
    return report


def read_report(path: Path) -> list[BadRow]:
    """The rows of a file that ``report_to`` or ``write_report`` wrote.

    Raises:
        InputError: when it is no such file.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            return [BadRow(**json.loads(line)) for line in stream]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a report of bad rows: {error}.") from error

"""The rows of a manifest's split as they are read, and which of them turn out to be of no use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mmaudio_core.errors import InputError, MediaError

from .manifest import Row, read_manifest, resolve
from .report import BadRow, Reason

MAX_DRAWS = 64
"""Rows that are drawn for one place of a batch before a manifest is given up as unusable."""
T = TypeVar("T")
log = logging.getLogger("mmaudio")


class UselessError(Exception):
    """A row cannot be used."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.detail = detail


class UsableRows:
    """The rows of one split. Several threads may read at once; what cannot be used is listed in ``bad``, each row once.

    Raises:
        InputError: a manifest that cannot be read, or without the split.
    """

    def __init__(self, manifest: Path, split: str) -> None:
        self.manifest = manifest
        self.bad: list[BadRow] = []
        self._rows: list[Row] = []
        self._useless: set[int] = set()
        self._lock = threading.Lock()
        for row in read_manifest(manifest):
            if isinstance(row, BadRow):
                self.bad.append(row)
            elif row.split == split:
                self._rows.append(row)
        if not self._rows:
            raise InputError(f"The manifest {manifest} has no rows of the split {split!r}; name one that it has.")

    def __len__(self) -> int:
        """Rows of the split, usable or not."""
        return len(self._rows)

    def read(self, number: int, read: Callable[[Row, Path], T]) -> T | None:
        """What ``read`` makes of a row and its file; None where it raises ``UselessError`` or ``MediaError``, or did before."""
        with self._lock:
            if number in self._useless:
                return None
        row = self._rows[number]
        path = resolve(row, self.manifest)
        try:
            if not path.is_file():
                raise UselessError("missing", "There is no such file.")
            return read(row, path)
        except UselessError as problem:
            bad = BadRow(row.line, row.id, row.path, problem.reason, problem.detail)
        except MediaError as error:
            bad = BadRow(row.line, row.id, row.path, "unreadable", str(error))
        self._leave_out(number, bad)
        return None

    def last_bad(self) -> str:
        """In brackets, for the end of a sentence; "" where all could be used."""
        if not self.bad:
            return ""
        bad = self.bad[-1]
        return f" ({bad.path}: {bad.reason}{f'. {bad.detail}' if bad.detail else ''})"

    def _leave_out(self, number: int, bad: BadRow) -> None:
        with self._lock:
            if number in self._useless:
                return
            self._useless.add(number)
            self.bad.append(bad)
        # Recordings in a manifest for everything are no fault worth a line each.
        level = logging.DEBUG if bad.reason == "no video" else logging.INFO
        log.log(level, "%s is left out: %s. %s", bad.path, bad.reason, bad.detail)

"""Clips that must not enter training, such as those of test sets (arXiv 2412.15322, appendix E: data sets overlap)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from mmaudio_core.errors import InputError

from .endings import without_media_ending
from .manifest import Row

_YOUTUBE = r"[A-Za-z0-9_-]{11}"
_WITH_START = re.compile(rf"({_YOUTUBE})_\d{{1,6}}")
"""VGGSound's names: the YouTube id and the second at which the clip starts."""
_WITH_Y = re.compile(rf"Y({_YOUTUBE})")
"""WavCaps' names of AudioSet clips."""


class Guard:
    """A set of forbidden ids. Two names that share one YouTube id are the same clip, wherever in the video they begin.

    ids: of clips as their data sets write them: "abc", "abc.wav", or for YouTube "0B4dYTMsgHA", "0B4dYTMsgHA_000130",
        "Y0B4dYTMsgHA".
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._keys = {key for name in ids for key in _keys(name)}

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> Guard:
        """Reads text files with one id a line; empty lines are passed over.

        Raises:
            InputError: a file that cannot be read or names nothing, which would guard against nothing.
        """
        return cls(name for path in paths for name in _ids_of(path))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, row: Row) -> str | None:
        """The forbidden name that the row's id or its file's name has; ``None`` for a row that may be trained on."""
        # A manifest may come from another system, so both kinds of path count.
        stem = PurePosixPath(PureWindowsPath(row.path).as_posix()).stem
        for name in (row.id, stem):
            for key in _keys(name):
                if key in self._keys:
                    return key
        return None


def _ids_of(path: Path) -> Iterator[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"The list of ids {path} cannot be read: {error}.") from error
    if not any(names):
        raise InputError(f"The list of ids {path} is empty; give a text file with one id a line.")
    yield from filter(None, names)


def _keys(name: str) -> Iterator[str]:
    """All that ``name`` may be called elsewhere: without the caption's number ("#2"), folder, ending, start second."""
    yield name
    bare = name.partition("#")[0] or name
    bare = without_media_ending(bare)
    yield bare
    last = bare.rpartition("/")[2]
    yield last
    for pattern in (_WITH_START, _WITH_Y):
        if match := pattern.fullmatch(last):
            yield match[1]

"""The list of what to train on: one row per clip, as TSV or JSONL.

TSV has a header line that names its columns; values hold no tabs or line breaks and nothing is quoted, so that a quotation
mark in a caption means itself. JSONL holds one object per line with the same names. Both are UTF-8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmaudio_core.errors import InputError
from mmaudio_core.media.atomic import atomic_path

from .report import BadRow

COLUMNS = ("id", "path", "caption", "start_s", "end_s", "split")
REQUIRED = ("id", "path")
ENDINGS = (".tsv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One clip, or one recording that gives several crops.

    id: unique in the manifest. Several captions of one sound are rows of their own: ``name#1``, ``name#2``.
    path: media file, absolute or relative to the manifest's folder.
    caption: "" means without text.
    start_s, end_s: the part of the file to use; ``None`` is the file's start and end.
    split: any word; "train", "val" and "test" are usual.
    line: where it stood, for reports.
    """

    id: str
    path: str
    caption: str = ""
    start_s: float | None = None
    end_s: float | None = None
    split: str = "train"
    line: int = 0


def read_manifest(path: Path) -> Iterator[Row | BadRow]:
    """The rows of a .tsv or .jsonl file, one after the other; a row that cannot be read comes as a ``BadRow``.

    Holds nothing but the ids seen so far. Empty lines are passed over.

    Raises:
        InputError: another ending, no such file, or a TSV header with an unknown or missing column.
    """
    as_jsonl = _ending(path) == ".jsonl"
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"The manifest {path} cannot be read: {error.strerror}. Make one with: mmaudio-train scan.") from error
    with stream:
        parse, first = (_from_json, 1) if as_jsonl else (_tsv_parser(stream, path), 2)
        seen: set[str] = set()
        # Lines are decoded one by one: bytes that are no UTF-8 spoil one row, not the file.
        for line, raw in enumerate(stream, first):
            if not raw.strip():
                continue
            item = _parsed(raw, line, parse)
            if isinstance(item, Row):
                if item.id in seen:
                    item = BadRow(line, item.id, item.path, "duplicate id", "An earlier row has this id.")
                else:
                    seen.add(item.id)
            yield item


def write_manifest(rows: Iterable[Row], path: Path) -> int:
    """Writes ``rows`` as they come to a .tsv or .jsonl file, which appears whole or not at all; returns their number.

    Raises:
        InputError: another ending, or a row that the format cannot hold (``unwritable``).
        MediaError: when the file's folder does not exist or cannot be written to.
    """
    as_jsonl = _ending(path) == ".jsonl"
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        if not as_jsonl:
            stream.write("\t".join(COLUMNS) + "\n")
        for row in rows:
            if problem := unwritable(row, path):
                raise InputError(f"The row {row.id!r} cannot be written to {path.name}: {problem}")
            stream.write((_json_line(row) if as_jsonl else _tsv_line(row)) + "\n")
            count += 1
    return count


def unwritable(row: Row, path: Path) -> str:
    """Why ``row`` cannot stand in the manifest ``path``, as a sentence; "" when it can. Captions are no hindrance."""
    if not row.id or not row.path:
        return "It has no id or no path."
    texts = (row.id, row.path, row.split)
    try:
        "".join((*texts, row.caption)).encode()
    except UnicodeEncodeError:
        return "Its name is not valid Unicode; rename the file."
    if path.suffix.lower() == ".tsv" and any(sign in text for text in texts for sign in "\t\n\r"):
        return "Its id, path or split holds a tab or line break; write a .jsonl manifest or rename the file."
    return ""


def resolve(row: Row, manifest: Path) -> Path:
    """The row's media file; a relative path counts from the manifest's folder."""
    return manifest.parent / row.path


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"A manifest ends in {' or '.join(ENDINGS)}; {path.name} was given.")
    return ending


def _tsv_parser(stream: IO[bytes], path: Path) -> Callable[[str], dict[str, Any]]:
    """Reads the header line and gives a function from a line to its values."""
    names = stream.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t")
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in names]
    if unknown or missing or len(set(names)) != len(names):
        raise InputError(
            f"The first line of {path} names the columns {', '.join(map(repr, names))}; it must name, each once and separated "
            f"by tabs, {' and '.join(REQUIRED)}, and may name {', '.join(n for n in COLUMNS if n not in REQUIRED)}."
        )

    def parse(text: str) -> dict[str, Any]:
        values = text.split("\t")
        if len(values) != len(names):
            raise ValueError(f"{len(values)} values stand where the header names {len(names)} columns.")
        return dict(zip(names, values, strict=True))

    return parse


def _from_json(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("A line must be a JSON object.")
    if unknown := [name for name in values if name not in COLUMNS]:
        raise ValueError(f"Unknown names: {', '.join(map(repr, unknown))}; known are {', '.join(COLUMNS)}.")
    return values


def _parsed(raw: bytes, line: int, parse: Callable[[str], dict[str, Any]]) -> Row | BadRow:
    values: dict[str, Any] = {}
    try:
        values = parse(raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n"))
        return _row(values, line)
    except ValueError as error:  # of the decoding and of JSON too
        known = [values.get(name) for name in REQUIRED]
        known_id, known_path = (text if isinstance(text, str) else "" for text in known)
        return BadRow(line, known_id, known_path, "malformed", str(error))


def _row(values: dict[str, Any], line: int) -> Row:
    texts = {name: values.get(name) or "" for name in ("id", "path", "caption", "split")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name} is {text!r}; a text is needed.")
        if name in REQUIRED and not text.strip():
            raise ValueError(f"The {name} is missing.")
    start_s, end_s = (_seconds(values.get(name), name) for name in ("start_s", "end_s"))
    if end_s is not None and end_s <= (start_s or 0.0):
        raise ValueError(f"end_s is {end_s:g} and start_s {start_s or 0:g}; the end must be later.")
    return Row(texts["id"], texts["path"], texts["caption"].strip(), start_s, end_s, texts["split"].strip() or "train", line)


def _seconds(value: Any, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{name} is {value!r}; seconds of 0 or more are needed.")
    return seconds


def _json_line(row: Row) -> str:
    values = {name: getattr(row, name) for name in COLUMNS}
    return json.dumps({name: value for name, value in values.items() if value not in ("", None)}, ensure_ascii=False)


def _tsv_line(row: Row) -> str:
    caption = " ".join(row.caption.split())
    seconds = ("" if value is None else repr(float(value)) for value in (row.start_s, row.end_s))
    return "\t".join((row.id, row.path, caption, *seconds, row.split))

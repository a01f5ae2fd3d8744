"""How data sets name their clips: folders, and the lists of VGGSound, AudioCaps, Clotho and WavCaps."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mmaudio_core.errors import InputError

from .endings import MEDIA_ENDINGS, OTHER_ENDINGS, SOUND_ENDINGS, VIDEO_ENDINGS, without_media_ending
from .json_items import json_items
from .manifest import Row
from .report import BadRow

Captions = Literal["txt", "json", "folder", "none"]
CAPTIONS: tuple[str, ...] = get_args(Captions)
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "development", "dev"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_CLOTHO_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


@dataclass(frozen=True)
class Wanted:
    """The rows of one media file that has yet to be found and opened.

    rows: without path.
    files: where it may lie, the likeliest first.
    sure: whether it must be a media file; another one that does not open is passed over.
    """

    rows: tuple[Row, ...]
    files: tuple[str, ...]
    sure: bool = True


Items = Iterator[Wanted | BadRow]


def folder(source: Path, captions: Captions = "txt", split: str = "train") -> Items:
    """Every file below ``source`` that may hold sound, in the order of names; an id is the path from there without ending.

    captions: from ``name.txt`` beside ``name.mp4``, from ``{"caption": ...}`` in ``name.json``, from the name of the folder
        below ``source`` in which the file lies, or none. Where the text is missing the clip goes without.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder; the layout 'folder' needs one.")
    for at, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in sorted((Path(at, name) for name in names if not name.startswith(".")), key=_videos_first):
            if path.suffix.lower() in OTHER_ENDINGS:
                continue
            name = without_media_ending(path.relative_to(source).as_posix())
            try:
                caption = _caption(path, source, captions)
            except (OSError, ValueError) as error:
                yield BadRow(0, name, str(path), "malformed", f"Its caption cannot be read: {error}.")
                continue
            yield Wanted((Row(name, "", caption, split=split),), (str(path),), path.suffix.lower() in MEDIA_ENDINGS)


def vggsound(source: Path, media: Path, split: str | None = None) -> Items:
    """VGGSound's list (arXiv 2004.14368): YouTube id, start second, label, split; the clip is ``ID_000123.mp4``."""
    for line, values in _lines(source):
        if isinstance(values, BadRow):
            yield values
        elif line == 1 and _is_heading(values):
            continue
        elif len(values) != 4 or not values[1].strip().isdecimal():
            if line == 1:
                raise InputError(
                    f"{source} begins with {','.join(values)!r}; a YouTube id, start second, label, split is needed."
                )
            yield BadRow(line, values[0] if values else "", "", "malformed", "It is no YouTube id, start second, label, split.")
        else:
            name = f"{values[0].strip()}_{int(values[1]):06d}"
            row = Row(name, "", _one_line(values[2]), split=split or values[3].strip() or "train", line=line)
            yield Wanted((row,), _places(media, name, endings=VIDEO_ENDINGS))


def audiocaps(source: Path, media: Path, split: str | None = None) -> Items:
    """AudioCaps' list (NAACL 2019, N19-1011), one caption a line; an id is ``YOUTUBE_START#AUDIOCAP``.

    The file is named ``YOUTUBE_000030``, ``YOUTUBE_30``, ``YOUTUBE``, ``YYOUTUBE`` or ``AUDIOCAP``, with any ending of sound
    or video.
    """
    split = split or split_of_name(source)
    for line, values in _table(source, ("audiocap_id", "youtube_id", "start_time", "caption")):
        if isinstance(values, BadRow):
            yield values
            continue
        number, youtube, start = (values[name].strip() for name in ("audiocap_id", "youtube_id", "start_time"))
        if not (number and youtube and start.isdecimal()):
            yield BadRow(line, youtube, "", "malformed", "An id is missing, or start_time is no whole number.")
            continue
        name = f"{youtube}_{int(start):06d}"
        row = Row(f"{name}#{number}", "", _one_line(values["caption"]), split=split, line=line)
        names = (name, f"{youtube}_{int(start)}", youtube, f"Y{youtube}", number)
        yield Wanted((row,), _places(media, *names, endings=SOUND_ENDINGS + VIDEO_ENDINGS))


def clotho(source: Path, media: Path, split: str | None = None) -> Items:
    """Clotho's list (arXiv 1910.09387), five captions a line; they become five rows with the ids ``name#1`` to ``name#5``."""
    split = split or split_of_name(source)
    for line, values in _table(source, ("file_name", *_CLOTHO_CAPTIONS)):
        if isinstance(values, BadRow):
            yield values
            continue
        file = values["file_name"].strip()
        name = without_media_ending(file)
        if not name:
            yield BadRow(line, "", "", "malformed", "The file_name is missing.")
            continue
        rows = (
            Row(f"{name}#{number}", "", _one_line(values[column]), split=split, line=line)
            for number, column in enumerate(_CLOTHO_CAPTIONS, 1)
        )
        yield Wanted(tuple(rows), (os.path.join(media, file), *_places(media, name, endings=SOUND_ENDINGS)))


def wavcaps(source: Path, media: Path, split: str | None = None) -> Items:
    """WavCaps' JSON (arXiv 2303.17395): ``{"data": [{"id", "caption", ...}]}``; files are named by id. A line is an item."""
    split = split or split_of_name(source)
    line = 0
    try:
        for line, item in enumerate(json_items(source, "data"), 1):
            yield _wavcaps_item(item, line, media, split)
    except InputError as error:
        if not line:
            raise
        # What stands after the damage cannot be found any more, but what came before is good.
        yield BadRow(line + 1, "", "", "malformed", str(error))


def _wavcaps_item(item: Any, line: int, media: Path, split: str) -> Wanted | BadRow:
    values = item if isinstance(item, dict) else {}
    name, caption = values.get("id"), values.get("caption")
    if isinstance(name, int):
        name = str(name)
    if not isinstance(name, str) or not name.strip() or not isinstance(caption, str):
        return BadRow(line, str(name or ""), "", "malformed", "The item has no id or no caption.")
    name = without_media_ending(name.strip())
    row = Row(name, "", _one_line(caption), split=split, line=line)
    return Wanted((row,), _places(media, name, endings=SOUND_ENDINGS))


def split_of_name(source: Path) -> str:
    """ "val" for ``clotho_captions_validation.csv`` and the like: by the words of the file's name; "train" where none tells."""
    words = source.stem.lower().replace("-", "_").replace(".", "_").split("_")
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")


def _is_heading(values: list[str]) -> bool:
    # The published list has none; copies have "# YouTube ID, start seconds, ..." or names of columns.
    return values[0].startswith("#") or (len(values) > 1 and values[1].strip().lower().startswith("start"))


def _videos_first(path: Path) -> tuple[str, bool, str]:
    # Of clip.mp4 and clip.wav, which would get one id, the video comes first and is kept.
    return without_media_ending(path.name), path.suffix.lower() not in VIDEO_ENDINGS, path.name


def _caption(path: Path, source: Path, captions: Captions) -> str:
    if captions == "folder":
        return "" if path.parent == source else _one_line(path.parent.name.replace("_", " "))
    if captions == "none":
        return ""
    sidecar = path.with_suffix(f".{captions}")
    if not sidecar.is_file():
        return ""
    text = sidecar.read_text(encoding="utf-8-sig")
    if captions == "txt":
        return _one_line(text)
    values: Any = json.loads(text)
    if not isinstance(values, dict) or not isinstance(values.get("caption"), str):
        raise ValueError(f'{sidecar.name} is no object with a text "caption"')
    return _one_line(values["caption"])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _places(media: Path, *names: str, endings: tuple[str, ...]) -> tuple[str, ...]:
    # Plain texts: a Path for each of a million rows and a dozen endings would take longer than looking.
    return tuple(os.path.join(media, name + ending) for name in names for ending in endings)


def _lines(source: Path) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line, values) of a CSV file; a line that is none comes as a ``BadRow``."""
    try:
        stream = source.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise InputError(f"The list {source} cannot be read: {error.strerror}. Check the path.") from error
    with stream:
        reader = csv.reader(stream, skipinitialspace=True)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, BadRow(line, "", "", "malformed", f"It is no CSV: {error}.")
                continue
            if reader.line_num > line:
                yield (
                    line,
                    BadRow(line, values[0], "", "malformed", f"A value goes on to line {reader.line_num}; close its quote."),
                )
            elif any("\ufffd" in value for value in values):
                yield line, BadRow(line, values[0], "", "malformed", "It is not UTF-8.")
            elif values:
                yield line, values


def _table(source: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    """(line, column -> value) of a CSV file with a header; a line that does not fit comes as a ``BadRow``.

    Raises:
        InputError: when the header does not name exactly ``columns``.
    """
    lines = _lines(source)
    _, header = next(lines, (1, []))
    names = [] if isinstance(header, BadRow) else [name.strip() for name in header]
    if sorted(names) != sorted(columns):
        raise InputError(f"{source} has the columns {', '.join(names) or 'none'}; exactly {', '.join(columns)} are needed.")
    for line, values in lines:
        if isinstance(values, BadRow):
            yield line, values
        elif len(values) != len(names):
            yield line, BadRow(line, values[0], "", "malformed", f"It has {len(values)} values instead of {len(names)}.")
        else:
            yield line, dict(zip(names, values, strict=True))

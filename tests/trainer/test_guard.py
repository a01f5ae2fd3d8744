"""The overlap guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmaudio_core.errors import InputError
from trainer.data.guard import Guard
from trainer.data.manifest import Row

YOUTUBE = "0B4dYTMsgHA"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("abc", Row("abc", "x.wav")),
        ("abc", Row("1", "folder/abc.wav")),
        ("abc", Row("1", "D:\\folder\\abc.wav")),
        ("abc", Row("folder/abc", "x.wav")),
        ("abc.wav", Row("abc", "x.flac")),
        ("abc", Row("abc#3", "x.wav")),
        ("folder/abc.wav", Row("folder/abc", "x.wav")),
        (YOUTUBE, Row(f"{YOUTUBE}_000130", "x.mp4")),
        (YOUTUBE, Row("1", f"{YOUTUBE}_000130.mp4")),
        (f"{YOUTUBE}_000130", Row(YOUTUBE, "x.wav")),
        (f"{YOUTUBE}_000130.mp4", Row(f"{YOUTUBE}_000131", "x.wav")),
        (YOUTUBE, Row(f"Y{YOUTUBE}", "x.wav")),
        (f"{YOUTUBE}_30", Row(f"{YOUTUBE}_000030#91139", "x.wav")),
    ],
)
def test_one_clip_by_any_name(name: str, row: Row) -> None:
    assert Guard([name]).find(row) is not None


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("abc", Row("abcd", "x.wav")),
        ("clip.1", Row("clip.2", "clip.2.wav")),
        ("abc", Row("abc_000130", "x.mp4")),  # not a YouTube id, so its number may be part of the name
        (YOUTUBE, Row(f"{YOUTUBE}x_000130", "x.mp4")),
        (YOUTUBE.lower(), Row(YOUTUBE, "x.mp4")),
        ("folder/abc", Row("folder/abd", "folder/x.wav")),
    ],
)
def test_others_pass(name: str, row: Row) -> None:
    assert Guard([name]).find(row) is None


def test_lists_are_read_from_text_files(tmp_path: Path) -> None:
    first, second, empty = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    first.write_bytes(b"\xef\xbb\xbfabc\r\n\r\n  def  \r\n")
    second.write_text("ghi")
    empty.write_text("\n \n")
    guard = Guard.from_files([first, second])
    assert [guard.find(Row(name, "x")) for name in ("abc", "def", "ghi", "jkl")] == ["abc", "def", "ghi", None]
    assert Guard().find(Row("abc", "abc.wav")) is None
    with pytest.raises(InputError, match="is empty"):
        Guard.from_files([empty])
    with pytest.raises(InputError, match="cannot be read"):
        Guard.from_files([tmp_path / "absent.txt"])

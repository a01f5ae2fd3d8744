"""Manifests: both formats, bad lines, and memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmaudio_core.errors import InputError, MediaError
from trainer.data.manifest import Row, read_manifest, resolve, write_manifest
from trainer.data.report import BadRow, Report, read_report, write_report

ROWS = [
    Row("a", "clips/a.mp4", 'he says "hi", then leaves', 0.5, 9.25, "val"),
    Row('"b', "/abs/b.wav", '"quoted'),
    Row("ü#1", "sub folder/ü.flac", "", None, 8.0, "test"),
]


def without_line(rows: Iterator[Row | BadRow]) -> list[Row]:
    found = list(rows)
    assert all(isinstance(row, Row) for row in found), found
    return [Row(r.id, r.path, r.caption, r.start_s, r.end_s, r.split) for r in found if isinstance(r, Row)]


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_what_is_written_is_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{ending}"
    assert write_manifest(iter(ROWS), path) == 3
    assert without_line(read_manifest(path)) == ROWS
    first_line = 2 if ending == "tsv" else 1
    assert [row.line for row in read_manifest(path)] == [first_line, first_line + 1, first_line + 2]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_caption_of_several_lines_is_one_line_of_tsv(tmp_path: Path) -> None:
    rows = [Row("a", "a.wav", "one\ttwo\nthree")]
    write_manifest(rows, tmp_path / "m.tsv")
    assert [row.caption for row in without_line(read_manifest(tmp_path / "m.tsv"))] == ["one two three"]
    write_manifest(rows, tmp_path / "m.jsonl")
    assert without_line(read_manifest(tmp_path / "m.jsonl")) == rows


def test_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_bytes("\ufeffpath\tid\tcaption\r\na.wav\tone\train\r\n\r\nb.wav\ttwo\t\r\n".encode())
    assert list(read_manifest(path)) == [Row("one", "a.wav", "rain", line=2), Row("two", "b.wav", line=4)]
    assert resolve(Row("one", "a.wav"), path) == tmp_path / "a.wav"
    assert resolve(Row("one", str(tmp_path / "b.wav")), Path("elsewhere/m.tsv")) == tmp_path / "b.wav"


def test_bad_lines_of_a_tsv_are_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    lines = [
        b"id\tpath\tcaption\tstart_s\tend_s\tsplit",
        b"good\tgood.wav\train\t1\t9\tval",
        b"few\tfew.wav",
        b"\tnoid.wav\t\t\t\t",
        b"nopath\t \t\t\t\t",
        b"late\tlate.wav\t\tsoon\t\t",
        b"early\tearly.wav\t\t-1\t\t",
        b"back\tback.wav\t\t9\t9\t",
        b"nan\tnan.wav\t\tnan\t\t",
        b"bytes\tbytes.wav\t\xff\xfe\t\t\t",
        b"good\tother.wav\t\t\t\t",
        b"last\tlast.wav\t\t\t\t",
    ]
    path.write_bytes(b"\n".join(lines))
    found = list(read_manifest(path))
    assert [row.id for row in found if isinstance(row, Row)] == ["good", "last"]
    bad = {row.line: row for row in found if isinstance(row, BadRow)}
    assert {line: row.reason for line, row in bad.items()} == {
        **dict.fromkeys(range(3, 11), "malformed"),
        11: "duplicate id",
    }
    for line, words in {3: "2 values", 4: "id is missing", 5: "path is missing", 6: "'soon'", 8: "end must be later"}.items():
        assert words in bad[line].detail
    assert (bad[11].id, bad[11].path) == ("good", "other.wav")


def test_bad_lines_of_jsonl_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = ['{"id": "a", "path": "a.wav", "start_s": 2}', "{", "[1]", '{"id": 3, "path": "x"}', '{"id": "b"}']
    lines += ['{"id": "c", "path": "c.wav", "strt_s": 1}', '{"id": "d", "path": "d.wav", "end_s": true}']
    lines += ['{"id": "e", "path": "e.wav", "caption": null}']
    path.write_text("\n".join(lines))
    found = list(read_manifest(path))
    assert [row.id for row in found if isinstance(row, Row)] == ["a", "e"]
    assert found[0] == Row("a", "a.wav", start_s=2.0, line=1)
    details = [row.detail for row in found if isinstance(row, BadRow)]
    assert len(details) == 6
    assert "'strt_s'" in details[4]


@pytest.mark.parametrize("header", ["id\tcaption", "id\tpath\tstart", "id\tpath\tid", "a,b", ""])
def test_a_wrong_header_is_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text(header + "\n1\t2\n")
    with pytest.raises(InputError, match="must name"):
        next(read_manifest(path))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.tsv or \.jsonl"):
        next(read_manifest(tmp_path / "m.csv"))
    with pytest.raises(InputError, match="cannot be read"):
        next(read_manifest(tmp_path / "m.tsv"))
    with pytest.raises(MediaError, match="does not exist"):
        write_manifest(ROWS, tmp_path / "no" / "m.tsv")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    write_manifest(ROWS[:1], path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="tab"):
        write_manifest([*ROWS, Row("a\tb", "x.wav")], path)
    with pytest.raises(InputError, match="Unicode"):
        write_manifest([Row("a", "bad\udcff.wav")], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.tsv"]


def test_a_long_manifest_streams(tmp_path: Path) -> None:
    """50,000 rows with captions of 400 characters, 20 MB: only their ids are held."""
    path = tmp_path / "m.jsonl"
    caption = "x" * 400
    tracemalloc.start()
    try:
        assert write_manifest((Row(f"{i:08d}", f"{i}.wav", caption) for i in range(50_000)), path) == 50_000
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert sum(1 for _ in read_manifest(path)) == 50_000
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 20e6
    assert written < 1e6
    assert read < 8e6


def test_reports(tmp_path: Path) -> None:
    rows = [
        BadRow(3, "a", "a.wav", "silent", "All of it."),
        BadRow(0, "b", "b\udcff.wav", "missing"),
        BadRow(9, "", "", "silent"),
    ]
    report = write_report(rows, tmp_path / "bad.jsonl")
    assert report.summary() == "3 bad rows: 1 missing, 2 silent"
    read = read_report(tmp_path / "bad.jsonl")
    assert (read[0], read[2]) == (rows[0], rows[2])
    assert json.loads((tmp_path / "bad.jsonl").read_text().splitlines()[0])["reason"] == "silent"
    assert Report().summary() == ""
    (tmp_path / "bad.jsonl").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_report(tmp_path / "bad.jsonl")

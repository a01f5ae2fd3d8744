"""``mmaudio-train scan``: folders, the lists of four data sets, bad rows, splits, memory."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.data import layouts
from trainer.data.crops import Crop
from trainer.data.guard import Guard
from trainer.data.manifest import Row, read_manifest
from trainer.data.probe import measure, probe
from trainer.data.report import BadRow, Report, read_report
from trainer.data.scan import Good, ScanSettings, scan, split_of

from .helpers_a import write_clip, write_sound

YOUTUBE = ("0B4dYTMsgHA", "-_4dYTMsgHB")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each: a video, a recording, a long one, a silent one, a short one, a video without sound."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "video.mp4")
    write_clip(folder / "mute.mp4", sound_s=0)
    write_clip(folder / "cut.mp4", sound_s=3.0)
    write_sound(folder / "sound.flac")
    write_sound(folder / "long.wav", 41.0)
    write_sound(folder / "silent.flac", level=9e-4)
    write_sound(folder / "short.wav", 5.0)
    return folder


def rows_in(path: Path) -> list[Row]:
    rows = list(read_manifest(path))
    assert all(isinstance(row, Row) for row in rows), rows
    return [row for row in rows if isinstance(row, Row)]


def run(*args: object) -> int:
    return main(["scan", *map(str, args), "--quiet"])


def test_headers_and_sounds(clips: Path) -> None:
    video, long = probe(clips / "video.mp4"), probe(clips / "long.wav")
    assert (video.kind, video.has_sound, long.kind) == ("av", True, "at")
    assert video.duration_s == pytest.approx(8.0, abs=1e-3)
    assert long.duration_s == pytest.approx(41.0)
    assert probe(clips / "cut.mp4").duration_s == pytest.approx(3.1, abs=0.15)
    assert not probe(clips / "mute.mp4").has_sound
    loudness = measure(clips / "sound.flac")
    assert loudness.duration_s == 8.0
    assert loudness.peaks.shape == (80,)
    assert loudness.peaks == pytest.approx(0.5, abs=1e-3)
    assert loudness.peak(Crop(7.0, 8.0)) == pytest.approx(0.5, abs=1e-3)
    assert loudness.peak(Crop(9.0, 8.0)) == 0.0


def test_a_folder(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "data"
    shutil.copytree(clips, home / "all")
    shutil.copy(clips / "sound.flac", home / "without_ending")
    shutil.copy(clips / "sound.flac", home / "all" / "video.flac")  # the id of video.mp4, which comes first
    shutil.copy(clips / "sound.flac", home / ".hidden.flac")
    (home / "all" / "video.txt").write_text("a dog\n barks ")
    (home / "all" / "broken.mp4").write_bytes(b"no video at all" * 99)
    (home / "notes").write_text("nothing to hear")
    (home / "picture.png").write_bytes(b"\x89PNG")
    out = tmp_path / "data" / "m.tsv"
    assert main(["scan", str(home), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "5 rows (train 5; 1 with video, 4 sound alone), 0.02 h in 9 crops of 8 s" in said.err
    assert "1 unreadable, 1 no sound, 2 too short, 1 duplicate id" in said.err
    assert [(row.id, row.path, row.caption) for row in rows_in(out)] == [
        ("without_ending", "without_ending", ""),
        ("all/long", "all/long.wav", ""),
        ("all/silent", "all/silent.flac", ""),
        ("all/sound", "all/sound.flac", ""),
        ("all/video", "all/video.mp4", "a dog barks"),
    ]
    bad = {row.id: row for row in read_report(tmp_path / "data" / "m.bad.jsonl")}
    assert {name: row.reason for name, row in bad.items()} == {
        "all/broken": "unreadable",
        "all/cut": "too short",
        "all/mute": "no sound",
        "all/short": "too short",
        "all/video": "duplicate id",
    }
    assert "5.00 s" in bad["all/short"].detail
    assert bad["all/video"].path == "all/video.flac"


def test_deep_hears_silence_and_cut_off_files(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    whole = (folder / "sound.flac").read_bytes()
    (folder / "torn.flac").write_bytes(whole[: len(whole) // 2])  # its header still says 8 s
    out = tmp_path / "m.jsonl"
    assert run(folder, "-o", out, "--report", tmp_path / "shallow.jsonl") == 0
    assert {"torn", "silent"} <= {row.id for row in rows_in(out)}
    assert run(folder, "-o", out, "--report", tmp_path / "deep.jsonl", "--deep") == 0
    assert [row.id for row in rows_in(out)] == ["long", "sound", "video"]
    reasons = {row.id: row.reason for row in read_report(tmp_path / "deep.jsonl")}
    assert (reasons["silent"], reasons["torn"]) == ("silent", "too short")


def test_captions_of_a_folder(clips: Path, tmp_path: Path) -> None:
    home = tmp_path / "data"
    for name in ("dog_barking/1.flac", "rain/2.flac", "3.flac"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / "sound.flac", home / name)
    (home / "rain" / "2.json").write_text('{"caption": "heavy rain"}')
    (home / "3.json").write_text('{"text": "x"}')
    (home / "rain" / "2.txt").write_bytes(b"\xff")

    def captions(*args: str) -> dict[str, str]:
        assert run(home, "-o", tmp_path / "m.tsv", *args) == 0
        return {row.id: row.caption for row in rows_in(tmp_path / "m.tsv")}

    assert captions("--captions", "folder") == {"3": "", "dog_barking/1": "dog barking", "rain/2": "rain"}
    assert captions("--captions", "json") == {"dog_barking/1": "", "rain/2": "heavy rain"}
    assert captions("--captions", "folder", "--need-caption") == {"dog_barking/1": "dog barking", "rain/2": "rain"}
    assert captions() == {"3": "", "dog_barking/1": ""}
    assert [row.reason for row in read_report(tmp_path / "m.bad.jsonl")] == ["malformed"]


def test_vggsound(clips: Path, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    shutil.copy(clips / "video.mp4", media / f"{YOUTUBE[0]}_000130.mp4")
    shutil.copy(clips / "video.mp4", media / f"{YOUTUBE[1]}_000004.mp4")
    shutil.copy(clips / "sound.flac", media / "aaaaaaaaaaa_000001.mp4")
    source = tmp_path / "vggsound.csv"
    lines = [f'{YOUTUBE[0]},130,"cat, purring",train', f"{YOUTUBE[1]},4,rain,test", "aaaaaaaaaaa,1,bells,train"]
    source.write_text("\n".join([*lines, "bbbbbbbbbbb,1,bells,train", "ccc,soon,bells,train", f"{YOUTUBE[0]},130,dog,train"]))
    out = tmp_path / "m.tsv"
    assert run(source, "--layout", "vggsound", "--media", media, "-o", out) == 0
    assert [(row.id, row.path, row.caption, row.split) for row in rows_in(out)] == [
        (f"{YOUTUBE[0]}_000130", f"videos/{YOUTUBE[0]}_000130.mp4", "cat, purring", "train"),
        (f"{YOUTUBE[1]}_000004", f"videos/{YOUTUBE[1]}_000004.mp4", "rain", "test"),
    ]
    found = {row.line: row.reason for row in read_report(tmp_path / "m.bad.jsonl")}
    assert found == {3: "no video", 4: "missing", 5: "malformed", 6: "duplicate id"}
    assert [row.line for row in read_report(tmp_path / "m.bad.jsonl")] == [3, 4, 5, 6]


def test_audiocaps(clips: Path, tmp_path: Path) -> None:
    for name in (f"{YOUTUBE[0]}_000030.flac", f"Y{YOUTUBE[1]}.flac", "77.flac"):
        shutil.copy(clips / "sound.flac", tmp_path / name)
    source = tmp_path / "val.csv"
    lines = ["audiocap_id,youtube_id,start_time,caption", f'91,{YOUTUBE[0]},30,"A cat, and a dog"', f"92,{YOUTUBE[0]},30,Cats"]
    lines += [f"93,{YOUTUBE[1]},4,Rain", "77,cccccccccccc,0,Wind", "94,ccccccccccc,x,Wind", f"95,{YOUTUBE[0]},30,", "96,a,1"]
    source.write_text("\n".join(lines))
    out = tmp_path / "m.tsv"
    assert run(source, "--layout", "audiocaps", "-o", out) == 0
    assert [(row.id, row.path, row.caption, row.split) for row in rows_in(out)] == [
        (f"{YOUTUBE[0]}_000030#91", f"{YOUTUBE[0]}_000030.flac", "A cat, and a dog", "val"),
        (f"{YOUTUBE[0]}_000030#92", f"{YOUTUBE[0]}_000030.flac", "Cats", "val"),
        (f"{YOUTUBE[1]}_000004#93", f"Y{YOUTUBE[1]}.flac", "Rain", "val"),
        ("cccccccccccc_000000#77", "77.flac", "Wind", "val"),
    ]
    found = {row.line: row.reason for row in read_report(tmp_path / "m.bad.jsonl")}
    assert found == {6: "malformed", 7: "no caption", 8: "malformed"}


def test_clotho(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "sound.flac", tmp_path / "Radio noise.flac")
    source = tmp_path / "clotho_captions_development.csv"
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    source.write_text(f'{header}\nRadio noise.wav,one,"two, three",,four,five\nabsent.wav,a,b,c,d,e\n')
    out = tmp_path / "m.tsv"
    assert run(source, "--layout", "clotho", "-o", out) == 0
    rows = rows_in(out)
    assert [row.id for row in rows] == [f"Radio noise#{n}" for n in (1, 2, 4, 5)]
    assert rows[1].caption == "two, three"
    assert {(row.path, row.split) for row in rows} == {("Radio noise.flac", "train")}
    bad = read_report(tmp_path / "m.bad.jsonl")
    assert [(row.line, row.id, row.reason) for row in bad] == [
        (2, "Radio noise#3", "no caption"),
        *((3, f"absent#{n}", "missing") for n in range(1, 6)),
    ]


def test_wavcaps(clips: Path, tmp_path: Path) -> None:
    for name in ("1001.flac", f"Y{YOUTUBE[0]}.wav"):
        shutil.copy(clips / "sound.flac", tmp_path / name)
    source = tmp_path / "fsd_final.json"
    items = [
        {"id": "1001", "caption": "Rain falls.", "duration": 8.0, "tags": ["x"]},
        {"id": f"Y{YOUTUBE[0]}.wav", "caption": "A"},
    ]
    items += [{"id": "1002", "caption": "Wind."}, {"caption": "No id."}, {"id": "1001", "caption": "Again."}]
    source.write_text(json.dumps({"num_captions_per_audio": 1, "data": items}))
    out = tmp_path / "m.jsonl"
    (tmp_path / "test ids.txt").write_text(YOUTUBE[0])
    arguments = (source, "--layout", "wavcaps", "-o", out, "--split", "extra")
    assert run(*arguments) == 0
    assert [(row.id, row.path, row.split) for row in rows_in(out)] == [
        ("1001", "1001.flac", "extra"),
        (f"Y{YOUTUBE[0]}", f"Y{YOUTUBE[0]}.wav", "extra"),
    ]
    assert {row.line: row.reason for row in read_report(tmp_path / "m.bad.jsonl")} == {
        3: "missing",
        4: "malformed",
        5: "duplicate id",
    }
    assert run(*arguments, "--exclude", tmp_path / "test ids.txt") == 0
    assert [row.id for row in rows_in(out)] == ["1001"]
    overlap = read_report(tmp_path / "m.bad.jsonl")[0]
    assert (overlap.line, overlap.reason, YOUTUBE[0] in overlap.detail) == (2, "overlap", True)


@pytest.mark.parametrize(
    ("layout", "text", "words"),
    [
        ("vggsound", "path,caption\n", "YouTube id"),
        ("audiocaps", "audiocap_id,youtube_id,caption\n1,a,b\n", "audiocap_id, youtube_id, start_time, caption"),
        ("audiocaps", "audiocap_id,youtube_id,start_time,caption,extra\n", "extra"),
        ("clotho", "file_name,caption\nx.wav,y\n", "caption_5"),
        ("clotho", "", "none"),
        ("wavcaps", '{"items": []}', "'data'"),
        ("wavcaps", '[{"id": 1}]', "'data'"),
        ("wavcaps", '{"data": {}}', "no list"),
        ("wavcaps", "", "not a JSON file"),
    ],
)
def test_a_list_of_another_layout_is_refused(
    layout: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "list"
    source.write_text(text)
    assert run(source, "--layout", layout, "-o", tmp_path / "m.tsv") == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-o", "m.csv"), ".tsv or .jsonl"),
        (("--split-fraction", "val"), "NAME=SHARE"),
        (("--split-fraction", "val=0.6", "--split-fraction", "test=0.4"), "all together below 1"),
        (("--split-fraction", "train=0.5"), "train gets the rest"),
        (("--duration", "0.1"), "0.64"),
        (("--workers", "-1"), "--workers -1"),
        (("--media", "."), "--media is for lists"),
        (("--layout", "clotho", "--captions", "txt"), "--captions is for folders"),
        (("--exclude", "absent.txt"), "absent.txt"),
        ((), "no row that can be trained on. 1 bad row: 1 too short"),
    ],
)
def test_wrong_wishes_are_refused(
    args: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "data" / "short.wav", 1.0)
    assert run("data", "-o", "m.tsv", *args) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "m.tsv").exists()


def test_splits_depend_on_the_id_alone() -> None:
    rows = [Row(f"clip{i}", "x.wav") for i in range(4000)]
    fractions = {"val": 0.05, "test": 0.1}
    splits = [split_of(row, fractions) for row in rows]
    assert splits == [split_of(row, fractions) for row in rows]
    assert splits.count("val") == pytest.approx(200, abs=45)
    assert splits.count("test") == pytest.approx(400, abs=60)
    assert split_of(Row("clip", "x", split="test"), {"val": 0.99}) == "test"
    moved = next(row for row, split in zip(rows, splits, strict=True) if split == "val")
    assert {split_of(Row(f"{moved.id}#{n}", "x"), fractions) for n in range(9)} == {"val"}
    assert splits[:3] == [split_of(Row(f"clip{i}", "elsewhere.mp4", "text"), fractions) for i in range(3)]


def test_order_and_rows_do_not_depend_on_threads(clips: Path, tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 7):
        report = Report()
        settings = ScanSettings(tmp_path / "m.tsv", workers=workers)
        items = [item for _ in range(3) for item in layouts.folder(clips)]
        looked: list[int] = []
        found.append((list(scan(items, settings, report, looked.append)), report.counts))
        assert looked == list(range(1, 22))
    assert found[0] == found[1] == found[2]
    assert found[0][1]["duplicate id"] == 8


def test_a_file_that_fails_as_none_did_before_stops_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(path: Path) -> object:
        if path.name == "sound.flac":
            raise ZeroDivisionError("odd header")
        return probe(path)

    monkeypatch.setattr("trainer.data.scan.probe", odd)
    out = tmp_path / "m.tsv"
    assert run(clips, "-o", out) == 0
    assert [row.id for row in rows_in(out)] == ["long", "silent", "video"]
    bad = {row.id: row for row in read_report(tmp_path / "m.bad.jsonl")}
    assert (bad["sound"].reason, "ZeroDivisionError: odd header" in bad["sound"].detail) == ("unreadable", True)


def test_names_that_a_manifest_cannot_hold(clips: Path, tmp_path: Path) -> None:
    item = layouts.Wanted((Row("a\tb", "", "x"),), (str(clips / "sound.flac"),))
    guard = Guard(["nothing"])
    report = Report()
    assert list(scan([item], ScanSettings(tmp_path / "m.tsv", guard=guard), report)) == []
    assert report.counts == {"malformed": 1}
    assert len(list(scan([item], ScanSettings(tmp_path / "m.jsonl", guard=guard), report))) == 1


def test_a_long_list_streams(clips: Path, tmp_path: Path) -> None:
    """12,000 items whose list would take 10 MB; what is held is ids and a few files."""
    path = tmp_path / "x.json"
    with path.open("w") as stream:
        stream.write('{"data": [')
        for i in range(12_000):
            stream.write(("," if i else "") + json.dumps({"id": str(i), "caption": "x" * 500, "duration": 9}))
        stream.write("]}")
    settings = ScanSettings(tmp_path / "m.tsv", workers=0)
    tracemalloc.start()
    try:
        report = Report()

        def some_missing() -> Iterator[layouts.Wanted | BadRow]:
            for place, item in enumerate(layouts.wavcaps(path, tmp_path)):
                assert isinstance(item, layouts.Wanted)
                yield item if place % 500 else layouts.Wanted(item.rows, (str(clips / "sound.flac"),))

        good = sum(isinstance(found, Good) for found in scan(some_missing(), settings, report))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (good, report.counts["missing"]) == (24, 11_976)
    assert peak < 2e6

"""Rows of a manifest that are read by several threads, what cannot be used among them, and steps that are made in advance."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mmaudio_core.errors import InputError, MediaError
from trainer.data.ahead import AHEAD, made_ahead
from trainer.data.manifest import Row, write_manifest
from trainer.data.usable import UsableRows, UselessError


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for name in ("good.wav", "quiet.wav", "broken.wav"):
        (tmp_path / name).touch()
    names = ("good", "quiet", "broken", "gone")
    write_manifest([*(Row(name, f"{name}.wav") for name in names), Row("other", "o.wav", split="val")], tmp_path / "data.tsv")
    return tmp_path / "data.tsv"


def read(row: Row, path: Path) -> str:
    if row.id == "quiet":
        raise UselessError("silent")
    if row.id == "broken":
        raise MediaError("It is no recording.")
    return path.name


def test_what_cannot_be_used_is_listed_once(manifest: Path) -> None:
    rows = UsableRows(manifest, "train")
    assert len(rows) == 4
    assert rows.last_bad() == ""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: rows.read(number % 4, read), range(40)))
    assert found == ["good.wav", None, None, None] * 10
    assert sorted((bad.id, bad.reason) for bad in rows.bad) == [
        ("broken", "unreadable"),
        ("gone", "missing"),
        ("quiet", "silent"),
    ]


def test_what_cannot_be_used_is_not_read_again(manifest: Path) -> None:
    rows, calls = UsableRows(manifest, "train"), []

    def counted(row: Row, path: Path) -> str:
        calls.append(row.id)
        return read(row, path)

    for _ in range(3):
        rows.read(0, counted)
        rows.read(1, counted)
    assert calls == ["good", "quiet", "good", "good"]


def test_other_errors_are_not_hidden(manifest: Path) -> None:
    def failing(row: Row, path: Path) -> str:
        raise ZeroDivisionError(row.id)

    with pytest.raises(ZeroDivisionError):
        UsableRows(manifest, "train").read(0, failing)


def test_the_last_bad_row_ends_a_sentence(manifest: Path) -> None:
    rows = UsableRows(manifest, "train")
    rows.read(1, read)
    assert rows.last_bad() == " (quiet.wav: silent)"
    rows.read(2, read)
    assert rows.last_bad() == " (broken.wav: unreadable. It is no recording.)"


def test_an_unknown_split(manifest: Path) -> None:
    with pytest.raises(InputError, match="no rows of the split 'test'"):
        UsableRows(manifest, "test")


def test_steps_come_in_order() -> None:
    made = made_ahead(lambda step, position: (step, position), range(3, 8), (4, 5), 3)
    assert list(made) == [[(step, 4), (step, 5)] for step in range(3, 8)]


def test_no_more_is_made_than_was_asked_for_and_a_little() -> None:
    begun: set[int] = set()
    lock = threading.Lock()

    def make(step: int, position: int) -> int:
        with lock:
            begun.add(step)
        return step

    with closing(made_ahead(make, range(1000), (0,), 2)) as made:
        assert [next(made) for _ in range(3)] == [[0], [1], [2]]
        assert max(begun) <= 2 + AHEAD


def test_an_error_comes_with_its_step() -> None:
    def make(step: int, position: int) -> int:
        if step == 2:
            raise InputError("Nothing can be used.")
        return step

    made = made_ahead(make, range(9), (0,), 2)
    assert [next(made), next(made)] == [[0], [1]]
    with pytest.raises(InputError, match="Nothing can be used"):
        next(made)

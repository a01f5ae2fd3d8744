"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmaudio_core.errors import MediaError
from mmaudio_core.media.atomic import atomic_path


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "result.flac"
    with atomic_path(target) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".flac")
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result.flac"]


def fail_half_way(target: Path, error: type[BaseException]) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError, ValueError])
@pytest.mark.parametrize("existing", [True, False])
def test_any_exception_leaves_all_as_it_was(error: type[BaseException], existing: bool, tmp_path: Path) -> None:
    target = tmp_path / "result.wav"
    if existing:
        target.write_bytes(b"old")
    with pytest.raises(error):
        fail_half_way(target, error)
    assert os.listdir(tmp_path) == (["result.wav"] if existing else [])
    assert not existing or target.read_bytes() == b"old"


def test_usual_permissions(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"folder .*nowhere does not exist"), atomic_path(tmp_path / "nowhere" / "a.wav"):
        pass
    with pytest.raises(MediaError, match="it is a folder"), atomic_path(tmp_path):
        pass


def test_a_file_that_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows while a player has it open."""
    target = tmp_path / "sound.flac"
    target.write_bytes(b"old")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with (
        pytest.raises(MediaError, match=r"sound\.flac: Permission denied\. Close whatever has it open"),
        atomic_path(target) as new,
    ):
        new.write_bytes(b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [target.name]

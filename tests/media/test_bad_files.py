"""Files that are not the video they claim to be: one clear sentence each, never a traceback from inside a decoder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mmaudio_core.errors import DependencyError, MediaError
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.resample import load_audio, resample
from mmaudio_core.media.video import probe_video, read_video

from .scenes import draw, read_numbers, write_scene

CLUSTER = b"\x1f\x43\xb6\x75"
"""What a Matroska file's packets start with."""
TONE = (np.sin(np.arange(32_000) / 20).astype(np.float32) * 0.5, 16_000)


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def web_page(path: Path) -> None:
    path.write_text("\n <!DOCTYPE html><html><body>404 Not Found</body></html>")


def text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")


def folder(path: Path) -> None:
    path.mkdir()


def missing(path: Path) -> None:
    pass


def sound_only(path: Path) -> None:
    save_audio(TONE, path.with_suffix(".wav"))
    path.with_suffix(".wav").rename(path)


def headers_only(path: Path) -> None:
    matroska = write_scene(path.with_suffix(".mkv"), 30, 25)
    data = matroska.read_bytes()
    path.write_bytes(data[: data.index(CLUSTER) + 12])


def zeroed_pictures(path: Path) -> None:
    data = bytearray(write_scene(path, 30, 25).read_bytes())
    at = data.index(b"mdat") + 4
    size = int.from_bytes(data[at - 8 : at - 4], "big") - 8
    data[at : at + size] = bytes(size)
    path.write_bytes(bytes(data))


def no_index(path: Path) -> None:
    data = write_scene(path, 30, 25).read_bytes()
    path.write_bytes(data[: data.index(b"moov")])


def too_short(path: Path) -> None:
    write_scene(path, 8, 25)


def cut_to_a_stump(path: Path) -> None:
    data = write_scene(path.with_suffix(".mkv"), 50, 25, options={"bf": "0"}).read_bytes()
    path.write_bytes(data[: data.index(CLUSTER) + 1100])


CASES = [
    (missing, ["no file", "clip.mp4", "Check the path"]),
    (folder, ["is a folder", "clip.mp4"]),
    (empty, ["clip.mp4", "empty", "0 bytes"]),
    (garbage, ["clip.mp4", "not a readable video"]),
    (text, ["clip.mp4", "not a readable video"]),
    (web_page, ["clip.mp4", "web page", "HTML"]),
    (sound_only, ["clip.mp4", "only sound"]),
    (headers_only, ["clip.mp4", "no frame of it can be decoded"]),
    (zeroed_pictures, ["clip.mp4", "no frame of it can be decoded"]),
    (no_index, ["clip.mp4", "not a readable video", "cut off"]),
    (too_short, ["clip.mp4", "too short", "0.32 s", "0.64 s"]),
    (cut_to_a_stump, ["clip.mp4", "too short", "0.64 s"]),
]


@pytest.mark.parametrize(("make", "words"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_clear_errors(make: object, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make(path)  # type: ignore[operator]
    with pytest.raises(MediaError) as caught:
        read_video(path, 8.0)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("make", [missing, folder, empty, garbage, web_page, sound_only, headers_only, zeroed_pictures])
def test_probing_says_the_same(make: object, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make(path)  # type: ignore[operator]
    with pytest.raises(MediaError) as probed:
        probe_video(path)
    with pytest.raises(MediaError) as read:
        read_video(path, 8.0)
    assert str(probed.value) == str(read.value)


def test_a_start_beyond_the_end(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "clip.mp4", 50, 25)
    with pytest.raises(MediaError, match=r"clip\.mp4 ends at 2\.00 s.*start of 5 s"):
        read_video(path, 1.0, start_s=5.0)
    with pytest.raises(MediaError, match="too short"):
        read_video(path, 1.0, start_s=1.8)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_no_permission(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "clip.mp4", 30, 25)
    path.chmod(0)
    with pytest.raises(MediaError, match="cannot be read"):
        read_video(path, 1.0)


def test_a_cut_off_file_gives_what_it_holds(tmp_path: Path) -> None:
    data = write_scene(tmp_path / "whole.mkv", 100, 25, options={"bf": "0", "g": "10"}).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: len(data) * 6 // 10])
    video = read_video(path, 4.0)
    assert 1.0 < video.duration_s < 3.5
    assert len(video.clip) == int(8 * video.duration_s)
    assert read_numbers(video.sync)[:6] == [0, 1, 2, 3, 4, 5]


def test_damage_in_the_middle_is_stepped_over(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "clip.mkv", 100, 25, options={"bf": "0", "g": "10"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    path.write_bytes(bytes(data))
    video = read_video(path, 3.0)
    assert video.duration_s == 3.0
    assert read_numbers(video.sync[-5:]) == [71, 72, 73, 74, 75]


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44_100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(draw(5), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 44_100), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video, "the file must carry a picture for this test to mean anything"
    with pytest.raises(MediaError, match="only sound"):
        read_video(path, 1.0)
    assert load_audio(path)[1] == 44_100


def test_a_playlist_cannot_send_us_elsewhere(tmp_path: Path) -> None:
    write_scene(tmp_path / "secret.ts", 30, 25)
    path = tmp_path / "clip.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        read_video(path, 1.0)


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "http:odd 100%d.mp4", 30, 25)
    assert read_video("http:odd 100%d.mp4", 1.0).source == "http:odd 100%d.mp4"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scene(tmp_path / "clip.mp4", 30, 25)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        with pytest.raises(DependencyError, match="pip install av"):
            read_video(path, 1.0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio.functional", None)
        import torch

        with pytest.raises(DependencyError, match="pip install torchaudio"):
            resample(torch.zeros(100), 16_000, 44_100)

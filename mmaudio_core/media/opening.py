"""Opening media files through PyAV, with errors that a user can act on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import DependencyError, MediaError

_ATTACHED_PICTURE = 0x400
"""FFmpeg's disposition bit of cover art."""
_MAX_DECODER_THREADS = 8
"""Each decoder thread holds frames of its own; at 4K more threads cost memory and win little."""
_WEB_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def import_av() -> ModuleType:
    """The ``av`` package.

    Raises:
        DependencyError: when it is missing or broken.
    """
    try:
        import av
    except Exception as error:  # a broken binary package raises anything from OSError to AttributeError
        raise DependencyError(f"Media files need the package av (PyAV 13 or newer): pip install av. ({error})") from error
    return av


def check_file(path: str | os.PathLike[str]) -> Path:
    """``path`` as an absolute Path to a file that holds something other than a web page.

    Raises:
        MediaError: missing, a folder, not readable, empty, or a web page saved under a media file's name.
    """
    file = Path(path).absolute()
    if not file.exists():
        raise MediaError(f"There is no file {file}. Check the path.")
    if file.is_dir():
        raise MediaError(f"{file} is a folder; the path of a media file is needed.")
    try:
        with file.open("rb") as stream:
            start = stream.read(1024)
    except OSError as error:
        raise MediaError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from error
    if not start:
        raise MediaError(f"{file.name} is empty (0 bytes). Copy or download it again.")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE_STARTS):
        raise MediaError(f"{file.name} is a web page, not a media file: the download got an HTML answer. Download it again.")
    return file


@contextmanager
def open_media(path: str | os.PathLike[str], what: str = "video") -> Iterator[Any]:
    """An open PyAV input container; ``what`` ("video", "audio", "image") is the word for messages.

    Raises:
        MediaError: for everything that :func:`check_file` refuses and for content that no demuxer knows.
        DependencyError: when PyAV is missing.
    """
    av = import_av()
    file = check_file(path)
    try:
        # Local files only: a playlist under a media name must not make us fetch addresses.
        container = av.open(str(file), metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError, OSError) as error:
        raise MediaError(
            f"{file.name} is not a readable {what} file: its content is damaged, cut off, or of an unknown format. "
            "Check that it plays in a media player."
        ) from error
    with container:
        try:
            yield container
        finally:
            _settle_decoders(container)


def _settle_decoders(container: Any) -> None:
    """Waits, without Python's global lock, until no decoder thread works any more.

    Freeing a decoder waits for its threads while holding that lock. Where a program has turned PyAV's log on (torchvision
    does), a thread with something to log waits for the lock in turn, and everything stands still.
    """
    for stream in container.streams:
        context = getattr(stream, "codec_context", None)
        if context is not None and context.is_open:
            context.flush_buffers()


def pick_video_stream(container: Any, name: str) -> Any:
    """The first real video stream; cover art does not count. Decoder threads are set up.

    Raises:
        MediaError: when there is none, or no decoder for it.
    """
    streams = picture_streams(container)
    if not streams:
        if container.streams.audio:
            raise MediaError(f"{name} holds only sound, no video. Give a file with a picture track.")
        raise MediaError(f"{name} holds no video track. Give a video file.")
    stream = streams[0]
    if stream.codec_context is None:
        raise MediaError(f"{name}: there is no decoder for its video track. Convert it to H.264 first.")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(os.cpu_count() or 1, _MAX_DECODER_THREADS)
    return stream


def picture_streams(container: Any) -> list[Any]:
    """The video streams that are no cover art."""
    return [stream for stream in container.streams.video if not _is_cover(stream)]


def _is_cover(stream: Any) -> bool:
    disposition = getattr(stream, "disposition", 0)  # PyAV 13 has none, 14 an enum.Flag, later ones an IntFlag
    return bool(int(getattr(disposition, "value", disposition)) & _ATTACHED_PICTURE)


def pick_audio_stream(container: Any, name: str) -> Any:
    """The first audio stream.

    Raises:
        MediaError: when there is none, or no decoder for it.
    """
    if not container.streams.audio:
        raise MediaError(f"{name} holds no sound track. Give a file with sound.")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise MediaError(f"{name}: there is no decoder for its sound track. Convert it to FLAC or WAV first.")
    return stream


def decode_tolerantly(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of ``stream`` in display order, as far as they decode.

    A damaged packet is skipped, as players do; where reading itself fails (a cut-off file) the decoder is emptied and
    the walk ends.
    """
    av = import_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            break
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        yield from frames
    try:
        rest = stream.codec_context.decode(None)
    except av.FFmpegError:
        return
    yield from rest

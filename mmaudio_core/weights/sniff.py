"""What a file is, told from its first bytes, never from its name."""

from __future__ import annotations

import json
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

from ..errors import WeightsError
from .registry import belongs

Container = Literal["safetensors", "zip", "pickle"]

HEAD_BYTES = 4096
MAX_HEADER_BYTES = 100_000_000
"""The safetensors format forbids longer headers."""
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""torch's magic number 0x1950a86a20f9469cfc6c as a pickled integer: the first pickle of a file saved before torch 1.6."""
LFS_POINTER = (
    "is a git-LFS pointer (a short text that stands for the real file), not the weights; "
    "fetch the file itself with `git lfs pull` or the download button of its page"
)

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", LFS_POINTER),
    (0, b"\x89PNG", "is a PNG picture"),
    (0, b"\xff\xd8\xff", "is a JPEG picture"),
    (0, b"GIF8", "is a GIF picture"),
    (4, b"ftyp", "is an MP4 video"),
    (0, b"\x1aE\xdf\xa3", "is a Matroska or WebM video"),
    (0, b"RIFF", "is a WAV, AVI or WebP media file"),
    (0, b"fLaC", "is a FLAC recording"),
    (0, b"OggS", "is an Ogg recording"),
    (0, b"ID3", "is an MP3 recording"),
    (0, b"GGUF", "is a GGUF file, a quantised format of other programs"),
    (0, b"\x89HDF", "is an HDF5 file (Keras or MATLAB)"),
    (0, b"\x93NUMPY", "is a single NumPy array"),
    (0, b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive; unpack it first"),
    (0, b"Rar!", "is a RAR archive; unpack it first"),
    (0, b"%PDF", "is a PDF document"),
    (0, b"MZ", "is a Windows program"),
    (0, b"\x7fELF", "is a Linux program"),
)


def wrong(path: str | os.PathLike[str], what: str, kind: str | None, variant: str = "") -> WeightsError:
    """The error for a wrong file: one sentence, what it is and what belongs there."""
    return WeightsError(f"{os.fspath(path)} {what}; {belongs(kind, variant)}.")


def size_text(size: int) -> str:
    """A size in bytes as people read it."""
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def sniff(path: str | os.PathLike[str], kind: str | None = None) -> Container:
    """Which kind of container ``path`` is; ``kind`` is the part that was wanted, for the message.

    Raises:
        WeightsError: one sentence, for everything that is not a safetensors file, a torch zip or an old torch pickle.
    """
    path = Path(path)
    size = _readable(path, kind)
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if what := _media_or_pointer(head):
        raise wrong(path, what, kind)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, kind)
        return "zip"
    if not head.strip(b"\0"):
        raise wrong(path, "begins with zero bytes only (space that a broken download set aside); download it again", kind)
    # Also where the first bytes look like a pickle: a tar's first field is a free name, and torch before 2.6 unpacked the old
    # tar format without its safeguards even with weights_only=True (CVE-2025-32434).
    if size >= 512 and tarfile.is_tarfile(path):
        raise wrong(path, "is a tar archive (packed files, or torch's oldest format), which cannot be opened safely", kind)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        if LEGACY_MAGIC not in head[:32]:
            raise wrong(path, "is a Python pickle that torch did not write; a pickle can carry code, and it was not run", kind)
        return "pickle"
    if _looks_like_safetensors(path, head, size, kind):
        return "safetensors"
    raise wrong(path, _text_or_unknown(path, head, size), kind)


def _readable(path: Path, kind: str | None) -> int:
    if not path.exists():
        if path.is_symlink():
            raise wrong(path, f"is a link to {os.readlink(path)}, which does not exist", kind)
        raise wrong(path, "does not exist", kind)
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise wrong(path, "is a folder, not a file", kind)
    if not stat.S_ISREG(status.st_mode):
        raise wrong(path, "is not a regular file", kind)
    if status.st_size == 0:
        raise wrong(path, "is empty (0 bytes), perhaps a download that never began", kind)
    try:
        with open(path, "rb"):
            return status.st_size
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror})", kind) from error


def _media_or_pointer(head: bytes) -> str | None:
    for offset, magic, what in _MAGIC:
        if head[offset:].startswith(magic):
            return what
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "is an HTML page, not weights (a download that ended on an error or login page)"
    if start.startswith((b"<?xml", b"<error")):
        return "is an XML text, not weights (a download that ended on an error message)"
    # ONNX is a bare protobuf message: field 1 (a small version number), then a text or message field.
    if len(head) > 4 and head[0] == 0x08 and 1 <= head[1] <= 30 and head[2] in (0x10, 0x12, 0x1A, 0x22, 0x3A, 0x42):
        return "is an ONNX model, a format of other programs"
    return None


def _check_zip(path: Path, kind: str | None) -> None:
    if not zipfile.is_zipfile(path):
        raise wrong(
            path,
            f"is cut off: a torch file whose end is missing ({size_text(path.stat().st_size)} are there); download it again",
            kind,
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise wrong(path, f"is damaged ({error}); download it again", kind) from error
    inside = [name.split("/", 1)[-1] for name in names]
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise wrong(path, "is a TorchScript program; it contains code, which was not run", kind)
    if "data.pkl" in inside:
        return
    if names and all(name.endswith(".npy") for name in names):
        raise wrong(path, "is a NumPy archive (.npz)", kind)
    shown = ", ".join(names[:3]) or "nothing"
    raise wrong(path, f"is a zip archive that torch did not write (it holds {shown}); unpack it first", kind)


def _looks_like_safetensors(path: Path, head: bytes, size: int, kind: str | None) -> bool:
    if len(head) < 9 or head[8:9] != b"{":
        return False
    length = struct.unpack("<Q", head[:8])[0]
    if not 2 <= length <= MAX_HEADER_BYTES:
        return False
    if 8 + length > size:
        raise wrong(
            path,
            f"is cut off: a safetensors file whose list of tensors alone needs {size_text(8 + length)}, of which "
            f"{size_text(size)} are there; download it again",
            kind,
        )
    return True


def _text_or_unknown(path: Path, head: bytes, size: int) -> str:
    try:
        text = head.decode("utf-8") if size <= HEAD_BYTES else head[:-4].decode("utf-8")
    except UnicodeDecodeError:
        return f"is of no known format (it begins with {head[:8].hex(' ')})"
    if any(ord(letter) < 32 and letter not in "\t\r\n\f\x1b" for letter in text):
        return f"is of no known format (it begins with {head[:8].hex(' ')})"
    return _json_or_text(path, text, size)


def _json_or_text(path: Path, text: str, size: int) -> str:
    if text.lstrip()[:1] in ("{", "["):
        try:
            values = json.loads(path.read_text("utf-8")) if size <= 20_000_000 else None
        except ValueError:
            values = None
        if isinstance(values, dict) and "weight_map" in values:
            return "is the index of a model in several pieces (JSON), which holds no weights itself"
        if values is not None:
            return "is a JSON text (a configuration such as config.json), which holds no weights"
    first = text.strip().splitlines()[0][:60] if text.strip() else ""
    return f"is a text file (it begins with {first!r}), not weights" if first else "is a text file of blanks, not weights"

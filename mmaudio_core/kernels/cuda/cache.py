"""Compiled kernels on disk, so that each is compiled once per machine."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

log = logging.getLogger("mmaudio")
MAGIC = b"mmaudio kernel 1\n"


def default_folder(env: Mapping[str, str] | None = None) -> Path:
    """``kernels`` in the folder that MMAUDIO_CACHE names, else in ~/.cache/mmaudio-graph; read at every call."""
    named = (os.environ if env is None else env).get("MMAUDIO_CACHE", "").strip()
    return (Path(named).expanduser() if named else Path.home() / ".cache" / "mmaudio-graph") / "kernels"


def key(*parts: str) -> str:
    """A name for what was made of exactly these ``parts``, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def get(name: str, make: Callable[[], bytes], folder: str | os.PathLike[str] | None = None) -> bytes:
    """The entry ``name``, or what ``make`` returns, which is then kept.

    An entry that is not whole is made anew. A folder that cannot be read or written is done without.
    """
    path = (default_folder() if folder is None else Path(folder)) / name
    try:
        return _unpacked(path.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("The compiled kernel %s is not usable (%s); it is compiled again.", path, error)
    made = make()
    try:
        _write(path, MAGIC + hashlib.sha256(made).digest() + made)
    except OSError as error:
        log.warning("A compiled kernel cannot be kept in %s (%s); it will be compiled again next time.", path.parent, error)
    return made


def _unpacked(data: bytes) -> bytes:
    start = len(MAGIC) + hashlib.sha256().digest_size
    code = data[start:]
    if not data.startswith(MAGIC) or data[len(MAGIC) : start] != hashlib.sha256(code).digest():
        raise ValueError("it is damaged")
    return code


def _write(path: Path, data: bytes) -> None:
    """Under a temporary name first: another process sees the whole entry or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise

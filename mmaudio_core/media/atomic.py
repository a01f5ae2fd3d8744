"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import MediaError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name in the folder of ``path``, moved onto ``path`` when the block ends well.

    On any exception, KeyboardInterrupt included, the temporary file is removed and an existing ``path`` stays as it was.
    The temporary name keeps the ending of ``path``, since writers choose the format by it.

    Raises:
        MediaError: when the folder does not exist or cannot be written to, or ``path`` is a folder or cannot be replaced.
    """
    target = Path(path)
    folder = target.parent
    if not folder.is_dir():
        raise MediaError(f"Cannot write {target}: the folder {folder} does not exist. Create it or choose another one.")
    if target.is_dir():
        raise MediaError(f"Cannot write {target}: it is a folder. Give the name of a file.")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=folder)
    except OSError as error:
        raise MediaError(f"Cannot write into the folder {folder}: {error.strerror}. Choose another one.") from error
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        _put(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _put(temporary: Path, target: Path) -> None:
    try:
        _give_usual_permissions(temporary)
        os.replace(temporary, target)
    except OSError as error:  # on Windows, a file that a player has open
        raise MediaError(
            f"Cannot write {target}: {error.strerror}. Close whatever has it open, or choose another name."
        ) from error


def _give_usual_permissions(path: Path) -> None:
    # mkstemp makes files that only their owner can read; a result should look like any other new file.
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)

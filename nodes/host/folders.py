"""Weights in ComfyUI's model folders: which files fit which input, and what a name in a widget stands for."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

from ...mmaudio_core.errors import WeightsError
from ...mmaudio_core.pipeline.files import EMBEDDED, EMBEDDED_FILE
from ...mmaudio_core.weights.locate import ENDINGS, FoundFile, look_at
from ...mmaudio_core.weights.registry import belongs

log = logging.getLogger("mmaudio")

FOLDER = "mmaudio"
EMBEDDED_NAME = "tiny (embedded)"
MAX_REMEMBERED = 8192


def register() -> None:
    """Adds models/mmaudio to the host's model folders; paths of extra_model_paths.yaml, read before, stay."""
    import folder_paths

    default = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, default)
    paths, endings = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(endings) | set(ENDINGS))


def folders() -> list[Path]:
    """The folders that are searched, in the host's order; the first one gets downloads."""
    import folder_paths

    return [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]


@functools.lru_cache(maxsize=MAX_REMEMBERED)
def _looked_at(path: Path, modified_ns: int, size: int) -> tuple[FoundFile, ...]:
    """What lies in a file; kept by its time and size, because the page asks for every list several times per prompt."""
    return tuple(look_at(path))


def parts_of(path: Path) -> tuple[FoundFile, ...]:
    """The parts in a file, from its header alone; () where it cannot be read."""
    try:
        status = path.stat()
        return _looked_at(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return ()


def listed() -> dict[str, Path]:
    """Every weights file in the model folders by the name that widgets show, sorted."""
    import folder_paths

    names = folder_paths.get_filename_list(FOLDER)
    paths = {name: folder_paths.get_full_path(FOLDER, name) for name in names if name.lower().endswith(ENDINGS)}
    return {name: Path(path) for name, path in paths.items() if path}


def found_parts() -> list[FoundFile]:
    """Every part in the model folders, for choosing a variant's files."""
    return [part for path in listed().values() for part in parts_of(path)]


def names_of(kind: str) -> list[str]:
    """The names of the files that hold a part of ``kind``, the embedded one last."""
    try:
        fitting = [name for name, path in listed().items() if any(part.kind == kind for part in parts_of(path))]
    except Exception:  # a list in a menu must never keep the pack from loading
        log.exception("The model folders could not be searched.")
        fitting = []
    return [*fitting, EMBEDDED_NAME]


def stamp(path: Path | None) -> str:
    """What tells a file's content from a later one under the same name, for the host's cache; "" where there is no file."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return ""
    return "" if status is None else f"{path} {status.st_mtime_ns} {status.st_size}"


def stamp_of(name: str | None) -> str:
    """The stamp of the file that a widget's ``name`` stands for."""
    return stamp(listed().get(name)) if name else ""


def file_of(name: str, kind: str) -> Path:
    """The file that a widget's ``name`` stands for.

    Raises:
        WeightsError: when there is no such file.
    """
    if name in (EMBEDDED_NAME, EMBEDDED):
        return EMBEDDED_FILE
    import folder_paths

    path = folder_paths.get_full_path(FOLDER, name)
    if path is None or not os.path.isfile(path):
        where = " or ".join(str(folder) for folder in folders())
        raise WeightsError(f"The file {name} is not in {where}; {belongs(kind)}. Put it there or choose another one.")
    return Path(path)

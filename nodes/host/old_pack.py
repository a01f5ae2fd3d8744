"""The other MMAudio pack: whether it is there, so that its node ids are taken over only where nobody else answers to them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger("mmaudio")

MODEL_LOADER, VOCODER_LOADER = "MMAudioModelLoader", "MMAudioVoCoderLoader"
FEATURE_UTILS_LOADER, SAMPLER = "MMAudioFeatureUtilsLoader", "MMAudioSampler"
IDS = (MODEL_LOADER, VOCODER_LOADER, FEATURE_UTILS_LOADER, SAMPLER)
MARK = FEATURE_UTILS_LOADER.encode()
"""The id that no pack but that one and its forks has a reason to write down."""
SEARCHED_FILES = ("__init__.py", "nodes.py")
MAX_BYTES = 1_000_000
OWN_FOLDER = Path(__file__).resolve().parents[2]
OWN_PACKAGE = __name__.rpartition(".nodes.host.")[0]


def present() -> bool:
    """Whether the other pack, or a fork of it, has loaded or will: packs load one after another, in the order of the disk.

    Never raises; where it cannot be found out the answer is yes, since its nodes then stay as they are.
    """
    try:
        import folder_paths

        return registered(_host_nodes()) or lies_in(folder_paths.get_folder_paths("custom_nodes"))
    except Exception:
        log.exception("Whether another MMAudio pack is installed could not be found out; old workflows are left to it.")
        return True


def registered(mappings: dict[str, Any]) -> bool:
    """Whether a node id of the other pack is taken, by anyone but us."""
    return any(
        node_id in mappings and not (OWN_PACKAGE and str(mappings[node_id].__module__).startswith(OWN_PACKAGE))
        for node_id in IDS
    )


def lies_in(folders: Iterable[str | os.PathLike[str]], own: Path = OWN_FOLDER) -> bool:
    """Whether a pack in one of the host's folders of packs names the other pack's nodes in its first two files."""
    return any(_names_them(pack) for folder in folders for pack in _packs(folder, own))


def _host_nodes() -> dict[str, Any]:
    # The host's own module, which is always loaded before packs are; importing it anywhere else would give another "nodes".
    return getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})


def _packs(folder: str | os.PathLike[str], own: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if not entry.name.startswith((".", "__")) and entry.is_dir()]
    except OSError:
        return
    for path in found:
        if not path.lower().endswith(".disabled") and os.path.realpath(path) != str(own):
            yield path


def _names_them(pack: str) -> bool:
    for name in SEARCHED_FILES:
        try:
            with open(os.path.join(pack, name), "rb") as file:
                if MARK in file.read(MAX_BYTES):
                    return True
        except OSError:
            continue
    return False

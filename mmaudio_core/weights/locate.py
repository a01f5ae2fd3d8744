"""Finding the parts among a user's files, by content, from the lists of tensors alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from ..spec.model import VARIANTS, CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec, VocoderSpec
from .build import usual_dtype
from .carried import carries, with_carried
from .files import open_tensors
from .parts import split_parts
from .registry import PHRASES, files_for
from .safetensors_file import read_header
from .sniff import size_text, sniff

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
DEPTH = 2
"""Levels of folders below the given ones that are searched."""
LEGACY_LIMIT_BYTES = 1_000_000_000
"""Files of torch before 1.6 can only be read whole; larger ones are not opened in a search."""
PREFERENCE = ("large_44k_v2", "large_44k", "medium_44k", "small_44k", "small_16k")
KINDS = ("flow", "vae", "vocoder", "synchformer", "clip")
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class FoundFile:
    """A part in a file (a family file gives several), or with ``kind`` "" a file that was skipped, and why (``reason``)."""

    path: Path
    kind: str = ""
    variant: str = ""
    spec: PartSpec | None = None
    dtype: torch.dtype | None = None
    reason: str = ""


def default_folders(env: Mapping[str, str] | None = None) -> list[Path]:
    """Where to look for weights: the folders of MMAUDIO_WEIGHTS (separated as in PATH), else ~/.cache/mmaudio-graph/weights."""
    named = (os.environ if env is None else env).get("MMAUDIO_WEIGHTS", "")
    folders = [Path(part).expanduser() for part in named.split(os.pathsep) if part.strip()]
    return folders or [Path.home() / ".cache" / "mmaudio-graph" / "weights"]


def find_parts(folders: Iterable[str | os.PathLike[str]]) -> list[FoundFile]:
    """Every weights file in ``folders`` and two levels below, sorted by path within each; what does not exist is passed over.

    A file may stand in place of a folder. The order of ``folders`` is kept: ``choose`` prefers what was named first.
    Only lists of tensors are read, never the numbers. What cannot be read or is no part of MMAudio is in the result too, with
    its reason.
    """
    paths: dict[Path, None] = {}
    for place in (Path(folder).expanduser() for folder in folders):
        paths |= dict.fromkeys([place] if place.is_file() else sorted(_walk(place, DEPTH)))
    found: list[FoundFile] = []
    for path in paths:
        found += look_at(path)
    return found


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # Links are followed: model folders often are links. The depth keeps a circle of links finite.
        if entry.is_dir():
            if depth > 0:
                yield from _walk(Path(entry.path), depth - 1)
        elif entry.name.lower().endswith(ENDINGS):
            yield Path(entry.path)


def look_at(path: Path) -> list[FoundFile]:
    """The parts in one file, from its list of tensors alone; when it has none, one entry without a kind and with the reason."""
    try:
        container = sniff(path)
        if container == "safetensors":
            header = read_header(path)
            shapes: dict[str, Any] = {name: entry.shape for name, entry in header.entries.items()}
            dtype = usual_dtype(torch.empty(e.shape, dtype=e.dtype, device="meta") for e in header.entries.values())
            metadata: Mapping[str, str] = header.metadata
            if carries(shapes):
                file = open_tensors(path)
                metadata = with_carried(header.metadata, file.tensors, str(path))
                file.release()
        else:
            size = path.stat().st_size
            if container == "pickle" and size > LEGACY_LIMIT_BYTES:
                return [
                    FoundFile(
                        path,
                        reason=f"{path} is in the torch format of before 1.6 and too large to search "
                        f"({size_text(size)}); convert it first.",
                    )
                ]
            file = open_tensors(path)
            shapes, dtype = dict(file.tensors), usual_dtype(file.tensors.values())
            metadata = with_carried(file.metadata, file.tensors, str(path))
        parts = split_parts(shapes, metadata, str(path))
    except (WeightsError, OSError) as error:
        return [FoundFile(path, reason=str(error))]
    return [FoundFile(path, kind, detected.variant, detected.spec, dtype) for kind, (detected, _) in parts.items()]


def choose(found: Iterable[FoundFile], variant: str, dtype: torch.dtype | None = None) -> dict[str, Path]:
    """The file for each part that ``variant`` needs: flow, vae, vocoder, synchformer, clip.

    Of several files for one part: one from the flow network's own (family) file first; then float32 files, unless ``dtype`` is
    float16 or bfloat16, which prefers such files; then the first one of ``found``. A published variant takes published parts
    only.

    Raises:
        WeightsError: naming what is missing and the published file that would serve.
    """
    found = list(found)
    picks = _picks(found, variant, dtype)
    if missing := [kind for kind in KINDS if kind not in picks]:
        known = files_for(variant) if variant in VARIANTS else {}
        wanted = ", ".join(f"{PHRASES[kind]} ({known[kind].name})" if known else PHRASES[kind] for kind in missing)
        raise WeightsError(f"For {variant} these files were not found: {wanted}.")
    return {kind: picks[kind].path for kind in KINDS}


def missing_parts(found: Iterable[FoundFile], variant: str) -> list[str]:
    """The kinds of part that ``variant`` still needs; empty when it is complete."""
    picks = _picks(list(found), variant, None)
    return [kind for kind in KINDS if kind not in picks]


def best_variant(found: Iterable[FoundFile]) -> str | None:
    """The best variant all of whose parts are there, large_44k_v2 first, custom flow networks last; None when there is none."""
    found = list(found)
    customs = sorted({item.variant for item in found if item.kind == "flow"} - set(PREFERENCE))
    return next((name for name in (*PREFERENCE, *customs) if not missing_parts(found, name)), None)


def _picks(found: list[FoundFile], variant: str, dtype: torch.dtype | None) -> dict[str, FoundFile]:
    def rank(item: FoundFile) -> int:
        half = item.dtype in _HALVES
        if dtype not in _HALVES:
            return int(half)
        return 0 if item.dtype == dtype else 1 if half else 2

    flows = sorted((item for item in found if item.kind == "flow" and item.variant == variant), key=rank)
    picks = {"flow": flows[0]} if flows else {}
    spec = flows[0].spec if flows else VARIANTS.get(variant)
    own = [item for item in found if flows and item.path == flows[0].path]
    for kind in KINDS[1:]:
        if pick := _first(own, kind, spec, rank) or _first(found, kind, spec, rank):
            picks[kind] = pick
    return picks


def _first(found: list[FoundFile], kind: str, flow: PartSpec | None, rank: Any) -> FoundFile | None:
    if not isinstance(flow, FlowSpec):
        return None
    return min((item for item in found if item.kind == kind and fits(flow, item)), key=rank, default=None)


def fits(flow: FlowSpec, item: FoundFile) -> bool:
    """Whether a part can serve this flow network: widths that must agree, and for a published flow the published sizes."""
    if flow in VARIANTS.values() and item.variant.startswith("custom"):
        return False
    spec = item.spec
    if isinstance(spec, VAESpec):
        return spec.latent_dim == flow.latent_dim and spec.mel_bins == flow.audio.mel_bins
    if isinstance(spec, VocoderSpec):
        return spec.mel_bins == flow.audio.mel_bins
    if isinstance(spec, SynchformerSpec):
        return spec.width == flow.sync_dim
    if isinstance(spec, CLIPSpec):
        return (spec.embed_dim, spec.text_width, spec.context_length) == (flow.clip_dim, flow.text_dim, flow.text_tokens)
    return False

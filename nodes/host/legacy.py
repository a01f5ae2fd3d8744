"""What flows between the nodes for old workflows, and the choices that those workflows left to chance."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...mmaudio_core.errors import InputError, WeightsError
from ...mmaudio_core.pipeline.device import computes_in
from ...mmaudio_core.weights.locate import FoundFile
from ...mmaudio_core.weights.parts import open_raw_part
from ...mmaudio_core.weights.registry import example
from . import folders
from .encoders import Encoders
from .memory import compute_device, precision_dtype
from .pipeline import Flow, Sound

log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class VocoderFile:
    """A vocoder that a loader chose; ``audio_format`` is "16k" or "44k"."""

    path: Path
    audio_format: str


@dataclass(frozen=True)
class FeatureUtils:
    """Everything but the flow network: encoders, and VAE with vocoder."""

    encoders: Encoders
    sound: Sound


def model_of(name: str, precision: str) -> Flow:
    """The flow network of a file, of which only the header is read now."""
    path = folders.file_of(name, "flow")
    _part(path, "flow")
    return Flow(path, usable_precision(precision))


def vocoder_of(name: str) -> VocoderFile:
    """The vocoder of a file, of which only the header is read."""
    path = folders.file_of(name, "vocoder")
    return VocoderFile(path, _part(path, "vocoder").spec.audio.name)  # type: ignore[union-attr]


def feature_utils_of(
    vae: str, synchformer: str, clip: str, vocoder: VocoderFile | None, mode: str, precision: str
) -> FeatureUtils:
    """All of it from names of files, of which only the headers are read now. The VAE's rate counts, not ``mode``.

    Raises:
        WeightsError: for wrong files, or when no vocoder of the VAE's rate is there.
    """
    vae_part = _part(folders.file_of(vae, "vae"), "vae")
    audio_format = vae_part.spec.audio.name  # type: ignore[union-attr]
    if mode != audio_format:
        log.warning("The mode is %s and the VAE %s is a %s one; %s is used.", mode, vae, audio_format, audio_format)
    precision = usable_precision(precision)
    if vocoder is not None and vocoder.audio_format == audio_format:
        path = vocoder.path
    else:
        path = _find_vocoder(vae_part, audio_format, precision)
        log.info("The vocoder is %s.", path)
    encoders = Encoders(folders.file_of(clip, "clip"), folders.file_of(synchformer, "synchformer"), precision)
    return FeatureUtils(encoders, Sound(vae_part.path, path, precision))


def usable_precision(precision: str) -> str:
    """``precision``, or "auto" where this device does not compute well in it: old workflows ask for fp16 on a CPU too."""
    device = compute_device()
    if precision in ("auto", "fp32") or _computes_well(precision, device.type):
        return precision
    _say_auto(precision, device.type)
    return "auto"


def warn_of_default_fps(fps: float) -> None:
    """Said on every run, because nothing on the page shows it."""
    log.warning(
        "The images are taken as shown at %g frames per second, the default: the old MMAudio node ignored the frame rate. If "
        "they are shown at another rate, sound and picture drift apart; set fps on the sampler, or connect it to "
        "GetVideoComponents.",
        fps,
    )


def _part(path: Path, kind: str) -> FoundFile:
    for part in folders.parts_of(path):
        if part.kind == kind:
            return part
    raw = open_raw_part(path, kind)  # says what is wrong with it
    return FoundFile(path, kind, raw.detected.variant, raw.detected.spec)


def _find_vocoder(vae: FoundFile, audio_format: str, precision: str) -> Path:
    own = vae.variant.startswith("custom")

    def rank(part: FoundFile) -> tuple[bool, bool, str]:
        return part.path != vae.path, part.dtype != precision_dtype(precision), str(part.path)

    candidates = [*folders.parts_of(vae.path), *folders.found_parts()]
    fitting = [
        part
        for part in candidates
        if part.kind == "vocoder"
        and part.spec.audio.name == audio_format  # type: ignore[union-attr]
        and (own or not part.variant.startswith("custom"))
    ]
    if fitting:
        return min(fitting, key=rank).path
    file = example("vocoder", audio_format)
    where = " or ".join(str(folder) for folder in folders.folders())
    raise WeightsError(
        f"There is no {audio_format} vocoder in {where}; download {file.name} ({file.licence}) from {file.url} and put it "
        "there, in any sub-folder."
    )


@functools.cache
def _computes_well(precision: str, device_type: str) -> bool:
    if device_type == "cpu":
        return False
    try:
        return computes_in(precision_dtype(precision), torch.device(device_type))
    except InputError:
        return False


@functools.cache
def _say_auto(precision: str, device_type: str) -> None:
    log.warning("An old workflow asks for %s, which is slow or not possible on %s; auto is used.", precision, device_type)


def is_linked(hidden: Any, name: str) -> bool:
    """Whether an input of the running node is connected to another node."""
    node = (hidden.prompt or {}).get(str(getattr(hidden, "unique_id", None))) or {}
    return isinstance(node.get("inputs", {}).get(name), list)

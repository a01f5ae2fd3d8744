"""From the names in a file to the names our modules use.

Three things differ between files in the wild: prefixes that trainers put before every name, the spelling of weight-normed
convolutions, and entries that are derived from others or never used. Everything here works on names first, so that shapes alone
(``normal_shapes``) and real tensors (``normalise``) are treated by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from ..errors import WeightsError
from .metadata import KEY

SHARED_PREFIXES = ("module.", "_orig_mod.", "model.", "clip_model.", "generator.", "diffusion_model.")
"""Taken off when every name in the file has it (data-parallel training, compiled modules, wrappers, saved by a host)."""

VISUAL_PREFIX = "vfeat_extractor."
"""Before every name of Synchformer's visual tower in the published file."""
AUDIO_TOWER, OFFSET_HEAD = "afeat_extractor.", "transformer.off_head."

_UNUSED: dict[str, re.Pattern[str]] = {
    # Sinusoid and rotary tables, computed by the module.
    "flow": re.compile(r"t_embed\.freqs|latent_rot|clip_rot"),
    "vae": re.compile(r"(?!)"),
    # The anti-aliasing filters follow from a formula.
    "vocoder": re.compile(r".*\.filter"),
    # The 2-D patch embedding is left over from the tower's pretraining.
    "synchformer": re.compile(r"patch_embed\.proj\.(weight|bias)"),
    # Only similarities need the logit scale; the causal mask is computed.
    "clip": re.compile(r"logit_scale|logit_bias|(.*\.)?attn_mask"),
}
_NORM_PAIRS: tuple[tuple[str, str], ...] = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def strip_shared_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Old name -> name without the prefixes that all names share (several deep)."""
    renamed = {name: name for name in names}
    while renamed:
        prefix = next((p for p in SHARED_PREFIXES if all(new.startswith(p) for new in renamed.values())), None)
        if prefix is None:
            break
        renamed = {old: new[len(prefix) :] for old, new in renamed.items()}
    return renamed


def _visual_tower(renamed: Mapping[str, str]) -> dict[str, str]:
    """Synchformer: the visual tower alone, without its prefix; a file of that tower alone stays as it is."""
    inner = {old: new[len(VISUAL_PREFIX) :] for old, new in renamed.items() if new.startswith(VISUAL_PREFIX)}
    # A tower wrapped on its own for data-parallel training has a second prefix inside the first.
    first = dict(inner or renamed)
    again = strip_shared_prefixes(first.values())
    return {old: again[new] for old, new in first.items()}


def module_names(names: Iterable[str], kind: str) -> dict[str, str]:
    """Old name -> name in our module, without what is derived or unused; weight-norm pairs still apart."""
    renamed = strip_shared_prefixes(names)
    if kind == "synchformer":
        renamed = _visual_tower(renamed)
    return {old: new for old, new in renamed.items() if new != KEY and not _UNUSED[kind].fullmatch(new)}


def normal_shapes(shapes: Mapping[str, tuple[int, ...]], kind: str) -> dict[str, tuple[int, ...]]:
    """The shapes that ``normalise`` would give, without tensors (a folded weight has the shape of its ``weight_v``)."""
    result: dict[str, tuple[int, ...]] = {}
    for old, new in module_names(shapes, kind).items():
        stem, part = _norm_part(new)
        if part == "g":
            continue
        result[f"{stem}weight" if part == "v" else new] = tuple(shapes[old])
    return result


def _norm_part(name: str) -> tuple[str, str]:
    """("conv_pre.", "g") for ``conv_pre.weight_g``; (name, "") for anything that is no half of a weight-normed pair."""
    for g_name, v_name in _NORM_PAIRS:
        for ending, part in ((g_name, "g"), (v_name, "v")):
            if name == ending or name.endswith("." + ending):
                return name[: -len(ending)], part
    return name, ""


def normalise(tensors: Mapping[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """Tensors under the names of our modules, weight norm folded, derived and unused entries left out.

    Nothing is copied but folded weights.

    Raises:
        WeightsError: when half of a weight-normed pair is missing, or two entries claim one name.
    """
    return fold_weight_norm({new: tensors[old] for old, new in module_names(tensors, kind).items()})


def fold_weight_norm(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replaces every pair g, v (either spelling) by ``weight`` = g * v / ||v||, the norm over all dimensions but the first.

    The first dimension is torch's default also for transposed convolutions (there it counts input channels). Computed in
    float32, returned in the number format of v.

    Raises:
        WeightsError: when half of a pair is missing, or a folded weight stands beside the pair.
    """
    result: dict[str, torch.Tensor] = {}
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        stem, part = _norm_part(name)
        if part:
            if part in halves.setdefault(stem, {}):
                raise WeightsError(f"The convolution {stem.rstrip('.')} is in the file twice, in two spellings of weight norm.")
            halves[stem][part] = tensor
            if part == "v":
                result[f"{stem}weight"] = tensor  # keeps the place in the order; replaced below
        else:
            result[name] = tensor
    for stem, pair in halves.items():
        if len(pair) < 2:
            missing = "magnitude (weight_g, original0)" if "v" in pair else "direction (weight_v, original1)"
            raise WeightsError(f"The weight-normed convolution {stem.rstrip('.')} lacks its {missing}.")
        if f"{stem}weight" in tensors:
            raise WeightsError(f"The convolution {stem.rstrip('.')} is in the file twice, folded and weight-normed.")
        result[f"{stem}weight"] = _folded(pair["g"], pair["v"], stem)
    return result


def _folded(g: torch.Tensor, v: torch.Tensor, stem: str) -> torch.Tensor:
    if g.numel() != v.shape[0]:
        raise WeightsError(f"The convolution {stem.rstrip('.')} has {g.numel()} magnitudes for {v.shape[0]} channels.")
    direction = v.float()
    norm = direction.flatten(1).norm(dim=1)
    scale = (g.float().reshape(-1) / norm).reshape(-1, *[1] * (v.dim() - 1))
    return (direction * scale).to(v.dtype)


def full_synchformer(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All of Synchformer for evaluation: visual tower, audio tower and offset head, under the published names.

    Data-parallel prefixes are taken off; the unused 2-D patch embedding is left out.

    Raises:
        WeightsError: when the file holds the visual tower only.
    """
    names = full_synchformer_names(tensors)
    for prefix, what in ((VISUAL_PREFIX, "visual tower"), (AUDIO_TOWER, "audio tower"), (OFFSET_HEAD, "offset head")):
        if not any(new.startswith(prefix) for new in names.values()):
            raise WeightsError(
                f"This Synchformer file has no {what} (names under {prefix}); the published synchformer_state_dict.pth has it."
            )
    return {new: tensors[old] for old, new in names.items()}


def full_synchformer_names(names: Iterable[str]) -> dict[str, str]:
    """Old name -> published name for every used entry of a Synchformer file, full or visual tower alone."""
    renamed = strip_shared_prefixes(names)
    if not any(new.startswith(VISUAL_PREFIX) for new in renamed.values()):
        renamed = {old: VISUAL_PREFIX + new for old, new in renamed.items()}
    renamed = {old: _inner_prefix(new) for old, new in renamed.items()}
    return {old: new for old, new in renamed.items() if not new.startswith(f"{VISUAL_PREFIX}patch_embed.proj.")}


def _inner_prefix(name: str) -> str:
    for tower in (VISUAL_PREFIX, AUDIO_TOWER):
        if name.startswith(f"{tower}module."):
            return tower + name[len(f"{tower}module.") :]
    return name

"""CONDITIONING: what our prompt node writes into it and what the model and our sampler read from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...mmaudio_core.errors import InputError
from ...mmaudio_core.spec.audio import LATENT_STRIDE, AudioSpec
from ...mmaudio_core.spec.timing import SequenceLengths, SyncTiming, sequence_lengths
from ...mmaudio_core.transformer.model import FlowNetwork
from ...mmaudio_core.types import Features
from .native_flow import foreign_conditioning

CLIP, SYNC, DURATION, HAS_TEXT = "mmaudio_clip", "mmaudio_sync", "mmaudio_duration_s", "mmaudio_has_text"
SYNC_TIMING = "mmaudio_sync_timing"
_GRIDS_S = (1.0, 0.5, 0.1, 0.05, 0.01, 0.001)


def pack(features: Features, text_tokens: int, text_width: int) -> list[list[Any]]:
    """Features of batch 1 as CONDITIONING; missing ones are left to the model, which knows its own empty tokens."""
    text = features.text
    values: dict[str, Any] = {HAS_TEXT: text is not None}
    if features.clip is not None:
        values[CLIP] = features.clip
    if features.sync is not None:
        values[SYNC] = features.sync
    if features.duration_s is not None:
        values[DURATION] = features.duration_s
    if features.sync_timing is not None:
        values[SYNC_TIMING] = features.sync_timing
    return [[torch.zeros(1, text_tokens, text_width) if text is None else text, values]]


def unpack(conditioning: Any, which: str) -> Features:
    """The features in a CONDITIONING of ours.

    Raises:
        InputError: when another node made it, or several were combined.
    """
    if not conditioning or HAS_TEXT not in conditioning[0][1]:
        shape = tuple(conditioning[0][0].shape) if conditioning else None
        raise InputError(foreign_conditioning(shape))
    if len(conditioning) > 1:
        raise InputError(
            f"The {which} conditioning combines {len(conditioning)} prompts; this sampler takes one. Use KSampler for several."
        )
    text, values = conditioning[0]
    return Features(
        clip=values.get(CLIP),
        sync=values.get(SYNC),
        text=text if _is_text(text, values) else None,
        duration_s=values.get(DURATION),
        sync_timing=values.get(SYNC_TIMING),
    )


def _is_text(text: Tensor, values: dict[str, Any]) -> bool:
    # Features of text have length 1; zeros are what ConditioningZeroOut leaves, and mean that there is none.
    return bool(values[HAS_TEXT]) and bool(text.any())


def duration_of(latent_tokens: int, audio: AudioSpec) -> float:
    """The seconds that ``latent_tokens`` L stand for where only L is known: the roundest duration that needs L tokens.

    A latent of our node that was made for a whole number of tenths of a second is always recognised.
    """
    longest = latent_tokens * LATENT_STRIDE * audio.hop_samples / audio.sample_rate_hz
    shortest = (latent_tokens - 1) * LATENT_STRIDE * audio.hop_samples / audio.sample_rate_hz
    for grid in _GRIDS_S:
        steps = round(1 / grid)
        candidate = int(longest * steps + 1e-9) / steps
        if candidate > shortest and sequence_lengths(candidate, audio).latent == latent_tokens:
            return candidate
    return longest


def lengths_for(
    net: FlowNetwork, duration_s: float | None, latent_tokens: int, sync_timing: SyncTiming | None = None
) -> SequenceLengths:
    """Token counts for a latent of L tokens under features of ``duration_s``; ``sync_timing`` None is the network's own.

    Raises:
        InputError: when the features cover another duration than the latent.
    """
    audio = net.spec.audio
    if duration_s is None:
        return net.lengths(duration_of(latent_tokens, audio), sync_timing)
    lengths = net.lengths(duration_s, sync_timing)
    if lengths.latent != latent_tokens:
        raise InputError(
            f"The features cover {duration_s:g} s, which needs a latent of {lengths.latent} tokens, and the latent has "
            f"{latent_tokens} ({duration_of(latent_tokens, audio):g} s); connect the features to 'MMAudio: Empty Latent', or "
            "extract them for the latent's duration."
        )
    return lengths


def complete(net: FlowNetwork, text: Tensor, values: dict[str, Any], latent_tokens: int) -> dict[str, Any]:
    """Text, clip and sync features (1, tokens, width) for a latent of L tokens, the model's empty ones where some are missing,
    and the timing of the sync tokens.

    Raises:
        InputError: for a foreign conditioning or another duration than the latent's.
    """
    if HAS_TEXT not in values:
        raise InputError(foreign_conditioning(tuple(text.shape)))
    clip, sync = values.get(CLIP), values.get(SYNC)
    lengths = lengths_for(net, values.get(DURATION), latent_tokens, values.get(SYNC_TIMING))
    if clip is None:
        clip = net.empty_clip_feat[None].expand(1, lengths.clip, -1)
    elif clip.shape[1] == 1 and values.get(DURATION) is None:
        clip = clip.expand(-1, lengths.clip, -1)  # a still picture
    if sync is None:
        sync = net.empty_sync_feat[None].expand(1, lengths.sync, -1)
    sync = sync[:, : lengths.sync]
    if not _is_text(text, values):
        text = net.empty_string_feat[None]
    for name, value, tokens in (("CLIP", clip, lengths.clip), ("sync", sync, lengths.sync)):
        if value.shape[1] != tokens:
            raise InputError(f"There are {value.shape[1]} {name} features where {tokens} are needed; extract them again.")
    return {"text": text, CLIP: clip, SYNC: sync, SYNC_TIMING: lengths.sync_timing}

"""The pack's own socket types, and what flows in each."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "MMAudio Graph"
PREFIX = "MMAudioGraph"
"""Begins every node id: other packs own the ids that begin with MMAudio and the plain name of a step."""

Encoders = io.Custom("MMAUDIO_ENCODERS")
"""A host.encoders.Encoders: CLIP and Synchformer, each loaded when a step first needs it."""

Features = io.Custom("MMAUDIO_FEATURES")
"""A mmaudio_core.types.Features: what the encoders say of a video or a picture, without text."""

Pipeline = io.Custom("MMAUDIO_PIPELINE")
"""A host.pipeline.Pipeline: every part of one variant, for the all-in-one node."""

LegacyModel = io.Custom("MMAUDIO_MODEL")
"""A host.pipeline.Flow, between the nodes for old workflows; this name and the next two are those of their sockets."""

LegacyVocoder = io.Custom("VOCODER_MODEL")
"""A host.legacy.VocoderFile."""

LegacyFeatureUtils = io.Custom("MMAUDIO_FEATUREUTILS")
"""A host.legacy.FeatureUtils."""

AudioPlayer = io.Custom("AUDIO_UI")
"""The page's own sound player; it is shown by an input of this type called audioUI and sends nothing to the server."""

"""Which part of the model a set of tensors is, and its sizes: from tensor shapes, never from a file's name.

What shapes cannot say (the number of heads, CLIP's image size) comes from our own files' metadata, else from the published
models; what they can say is never taken from metadata, but the two are compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SpecError, WeightsError
from ..spec.audio import AudioSpec
from ..spec.model import (
    PART_KINDS,
    VAES,
    VOCODERS,
    CLIPSpec,
    FlowSpec,
    PartSpec,
    SynchformerSpec,
    VAESpec,
    VocoderSpec,
)
from .detect_specs import READERS
from .keymaps import normal_shapes, strip_shared_prefixes
from .metadata import decode
from .registry import PHRASES

Shapes = Mapping[str, tuple[int, ...]]

_SIGNS: dict[str, tuple[str, ...]] = {
    "flow": ("audio_input_proj.0.bias", "latent_mean"),
    "vae": ("encoder.conv_in.weight", "decoder.conv_out.weight"),
    "vocoder": ("conv_pre.weight", "ups.0.0.weight"),
    "synchformer": ("patch_embed_3d.proj.weight",),
    "clip": ("visual.conv1.weight", "token_embedding.weight"),
}
"""Names (as our modules have them) that only this part has."""

_UNSAID: dict[str, frozenset[str]] = {
    "flow": frozenset({"sync", "rope", "sync_timing"}),
    "vae": frozenset(),
    "vocoder": frozenset({"block_dilations", "final_tanh"}),
    "synchformer": frozenset({"heads"}),
    "clip": frozenset({"image_size", "vision_head_width", "text_heads", "quick_gelu"}),
}
"""What shapes cannot say, so that metadata may."""

_FOREIGN: tuple[tuple[str, str], ...] = (
    (r".*(lora_up|lora_down|lora_A|lora_B|lora_a|lora_b)\b.*", "is a LoRA (changes to a model), not a model"),
    (r"(text_model|vision_model)\..*", "is a CLIP model in the layout of transformers, not of open_clip"),
    (r"model\.diffusion_model\..*", "is an image or video model (Stable Diffusion's layout), not a part of MMAudio"),
    (r"(double_blocks|single_blocks|transformer_blocks)\..*", "is another diffusion transformer, not a part of MMAudio"),
    (r"(encoder|decoder)\.(down|up|mid|conv_in)\..*", "is an autoencoder of another model, not a part of MMAudio"),
    (r"(afeat_extractor|transformer\.off_head)\..*", "holds Synchformer without its visual tower"),
    (r"(msd|mpd|mrd|discriminators)\..*", "is a discriminator, which only training needs"),
)


@dataclass(frozen=True)
class Detected:
    """A recognised part. ``variant`` is "large_44k_v2", "44k", ...; "custom ..." for sizes that were not published."""

    kind: str
    spec: PartSpec
    variant: str

    @property
    def audio(self) -> AudioSpec | None:
        """The audio format, for flow, VAE and vocoder; None for the encoders and for unknown widths."""
        if not isinstance(self.spec, (FlowSpec, VAESpec, VocoderSpec)):
            return None
        try:
            return self.spec.audio
        except SpecError:
            return None

    @property
    def phrase(self) -> str:
        """How a sentence calls it: "a flow network (large_44k_v2)", "a mel VAE (44.1 kHz)"."""
        if isinstance(self.spec, FlowSpec):
            return f"{PHRASES[self.kind]} ({self.variant})"
        custom = "custom size, " if self.audio and self.variant.startswith("custom") else ""
        if self.audio:
            return f"{PHRASES[self.kind]} ({custom}{self.audio.sample_rate_hz / 1000:g} kHz)"
        return PHRASES[self.kind]


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape, of tensors or of anything that is already a shape."""
    return {name: tuple(getattr(value, "shape", value)) for name, value in tensors.items()}


def detect(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None, where: str = "This file") -> Detected:
    """Recognises a part by ``tensors`` (tensors, or their shapes) and the metadata of its file.

    ``where`` begins the sentence of an error, usually the path.

    Raises:
        WeightsError: when it is no part of MMAudio, or its shapes or its metadata contradict themselves.
    """
    shapes = shapes_of(tensors)
    kind = detect_kind(shapes)
    if kind is None:
        raise WeightsError(f"{where} {_unknown(shapes)}.")
    values = decode(metadata or {}, where)
    said = values.get("spec") if values.get("kind") == kind else None
    if values.get("kind") not in (None, kind, "family"):
        raise WeightsError(f"{where} says that it holds the part {values['kind']!r}, but its tensors are {PHRASES[kind]}.")
    spec = read_spec(kind, shapes, said, where)
    return Detected(kind, spec, variant_of(spec))


def detect_kind(shapes: Shapes) -> str | None:
    """ "flow", "vae", "vocoder", "synchformer", "clip", or None where the names are of none of them."""
    for kind, signs in _SIGNS.items():
        normal = normal_shapes(shapes, kind)
        if all(sign in normal for sign in signs) and (kind != "vae" or len(normal[signs[0]]) == 3):
            return kind
    return None


def read_spec(kind: str, shapes: Shapes, said: Mapping[str, Any] | None = None, where: str = "This file") -> PartSpec:
    """The configuration of a part of known kind; ``said`` is the one from our metadata.

    Raises:
        WeightsError: when a needed tensor is missing, the sizes are impossible, or metadata and shapes disagree.
    """
    reader: Callable[[Shapes], dict[str, Any]] = READERS[kind]
    try:
        found = reader(normal_shapes(shapes, kind))
        if said is not None:
            # Checked as a whole first: unknown keys mean a file of a newer version.
            stated = asdict(PART_KINDS[kind].from_dict(dict(said)))
            for name, value in found.items():
                if name not in _UNSAID[kind] and stated[name] != value:
                    raise WeightsError(
                        f"{where} is damaged: its metadata say {name} = {stated[name]}, but its tensors say {value}."
                    )
            found |= {name: stated[name] for name in stated if name in _UNSAID[kind]}
        return PART_KINDS[kind](**found)
    except SpecError as error:
        raise WeightsError(f"{where} is {PHRASES[kind]} of impossible sizes: {error}") from error
    except LookupError as error:
        raise WeightsError(f"{where} looks like {PHRASES[kind]}, but {error.args[0]}.") from error


def variant_of(spec: PartSpec) -> str:
    """Name of the published part with these sizes ("large_44k_v2", "44k", "published"), else "custom ..."."""
    if isinstance(spec, FlowSpec):
        return spec.variant
    for table in (VAES, VOCODERS):
        for name, known in table.items():
            if known == spec:
                return name
    if spec in (SynchformerSpec(), CLIPSpec()):
        return "published"
    return f"custom (width {getattr(spec, 'width', getattr(spec, 'vision_width', 0))})"


def _unknown(shapes: Shapes) -> str:
    names = list(strip_shared_prefixes(shapes).values())
    for pattern, what in _FOREIGN:
        if any(re.fullmatch(pattern, name) for name in names):
            return what
    shown = ", ".join(list(shapes)[:3]) + (", ..." if len(shapes) > 3 else "")
    return f"holds {len(shapes)} tensor{'s' * (len(shapes) != 1)} ({shown}) and is not a part of MMAudio"

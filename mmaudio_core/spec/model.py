"""What every part of the model looks like, as frozen values that are checked when built.

A spec holds everything that is needed to build a module; it is read off tensor shapes (``weights/detect.py``) or off the
metadata of our own files, never off a file's name. ``to_dict`` and ``from_dict`` are the form stored in that metadata.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from ..errors import SpecError
from .audio import AudioSpec, audio_for_latent_dim, audio_for_mel_bins
from .timing import SYNC_TIMINGS, SyncTiming

HEAD_DIM = 64
ABLATIONS = {"sync": ("frames", "visual", "none"), "rope": ("aligned", "plain", "none"), "mlp": ("conv", "linear")}
CHOICES = ABLATIONS | {"sync_timing": SYNC_TIMINGS}
"""Of ``FlowSpec``, the published one first; ablations change how a network is built."""
T = TypeVar("T", bound="PartSpec")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class PartSpec:
    """Base of the specs of all parts; ``kind`` names the part in metadata and in messages."""

    kind: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, complete enough for ``from_dict``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[T], values: dict[str, Any]) -> T:
        """The spec stored by ``to_dict``.

        Raises:
            SpecError: on unknown or missing keys, or impossible values.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SpecError(f"The {cls.kind} configuration has unknown keys {unknown}; known are {sorted(known)}.")
        try:
            return cls(**{k: _tuples(v) for k, v in values.items()})
        except TypeError as error:
            raise SpecError(f"The {cls.kind} configuration is incomplete: {error}.") from error


def _positive(spec: PartSpec, *names: str) -> None:
    for name in names:
        value = getattr(spec, name)
        if not isinstance(value, int) or value < 1:
            raise SpecError(f"The {spec.kind} configuration has {name} = {value!r}; a whole number of 1 or more is needed.")


@dataclass(frozen=True)
class FlowSpec(PartSpec):
    """The flow network: ``width`` D, ``heads`` H of 64 channels, N1 joint and N2 audio-only blocks (arXiv 2412.15322, 3.3).

    sync, rope and mlp are the paper's ablations, and published networks have the defaults of these and of sync_timing. sync:
    Synchformer's features modulate the audio "frames", are summed into the "visual" stream (which then has their frame rate),
    or "none" of them is used. rope: positions of the visual stream "aligned" in time with the audio's, "plain" ones that count
    tokens, or "none" in either stream. mlp: "conv" over time in the audio and visual blocks, or "linear". sync_timing: how sync
    tokens are laid over the sound where nobody asks for another way (``spec.timing.sequence_lengths``).
    """

    kind: ClassVar[str] = "flow"
    latent_dim: int
    width: int
    heads: int
    joint_blocks: int
    audio_blocks: int
    v2: bool = False
    clip_dim: int = 1024
    sync_dim: int = 768
    text_dim: int = 1024
    text_tokens: int = 77
    sync: Literal["frames", "visual", "none"] = "frames"
    rope: Literal["aligned", "plain", "none"] = "aligned"
    mlp: Literal["conv", "linear"] = "conv"
    sync_timing: SyncTiming = "stretched"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SpecError(f"The flow configuration has {name} = {getattr(self, name)!r}; use {' or '.join(choices)}.")
        _positive(self, "latent_dim", "width", "heads", "joint_blocks", "clip_dim", "sync_dim", "text_dim", "text_tokens")
        if self.width != self.heads * HEAD_DIM:
            raise SpecError(f"The flow width {self.width} is not {self.heads} heads of {HEAD_DIM} channels.")
        if self.audio_blocks < 0:
            raise SpecError(f"The flow configuration has audio_blocks = {self.audio_blocks}; 0 or more is needed.")

    def to_dict(self) -> dict[str, Any]:
        """See ``PartSpec``; choices only where they are not the published ones, so that older versions read what they know."""
        values = super().to_dict()
        return {key: value for key, value in values.items() if value != CHOICES.get(key, (None,))[0]}

    @property
    def audio(self) -> AudioSpec:
        """The audio format that the latent width stands for."""
        return audio_for_latent_dim(self.latent_dim)

    @property
    def variant(self) -> str:
        """Name of the published variant with these sizes, else a description such as ``custom (width 128, 2+3 blocks)``."""
        for name, spec in VARIANTS.items():
            if spec == self:
                return name
        more = ["v2"] if self.v2 else []
        more += [f"{name} {getattr(self, name)}" for name, choices in CHOICES.items() if getattr(self, name) != choices[0]]
        return f"custom ({', '.join((f'width {self.width}', f'{self.joint_blocks}+{self.audio_blocks} blocks', *more))})"


@dataclass(frozen=True)
class VAESpec(PartSpec):
    """The mel autoencoder: base ``width`` times 1, 2, 4 over three levels (spec section 5)."""

    kind: ClassVar[str] = "vae"
    mel_bins: int
    latent_dim: int
    width: int

    def __post_init__(self) -> None:
        _positive(self, "mel_bins", "latent_dim", "width")

    @property
    def audio(self) -> AudioSpec:
        """The audio format that the number of mel bins stands for."""
        return audio_for_mel_bins(self.mel_bins)


@dataclass(frozen=True)
class VocoderSpec(PartSpec):
    """BigVGAN (arXiv 2206.04658): ``width`` initial channels, halved at each of the upsampling stages."""

    kind: ClassVar[str] = "vocoder"
    mel_bins: int
    width: int
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[int, ...] = (1, 3, 5)
    final_bias: bool = True
    final_tanh: bool = True

    def __post_init__(self) -> None:
        _positive(self, "mel_bins", "width")
        if len(self.rates) != len(self.kernels) or not self.rates:
            raise SpecError(
                f"The vocoder has {len(self.rates)} rates and {len(self.kernels)} kernels; one kernel a rate is needed."
            )
        if self.width % 2 ** len(self.rates):
            raise SpecError(f"The vocoder width {self.width} cannot be halved {len(self.rates)} times.")

    @property
    def audio(self) -> AudioSpec:
        """The audio format that the number of mel bins stands for."""
        return audio_for_mel_bins(self.mel_bins)


@dataclass(frozen=True)
class SynchformerSpec(PartSpec):
    """Visual tower of Synchformer (arXiv 2401.16423): divided space-time attention over 16-frame segments."""

    kind: ClassVar[str] = "synchformer"
    width: int = 768
    heads: int = 12
    blocks: int = 12
    mlp_width: int = 3072
    patch: int = 16
    grid: int = 14
    tubelet_frames: int = 2
    temporal_tokens: int = 8

    def __post_init__(self) -> None:
        _positive(self, "width", "heads", "blocks", "mlp_width", "patch", "grid", "tubelet_frames", "temporal_tokens")
        if self.width % self.heads:
            raise SpecError(f"The Synchformer width {self.width} does not divide into {self.heads} heads.")

    @property
    def image_size(self) -> int:
        """Pixels of a side of the square frames."""
        return self.patch * self.grid


@dataclass(frozen=True)
class CLIPSpec(PartSpec):
    """An open_clip model with a flat text tower (arXiv 2309.17425 for the published DFN5B weights)."""

    kind: ClassVar[str] = "clip"
    embed_dim: int = 1024
    image_size: int = 384
    vision_layers: int = 32
    vision_width: int = 1280
    vision_head_width: int = 80
    patch: int = 14
    context_length: int = 77
    vocab_size: int = 49408
    text_width: int = 1024
    text_heads: int = 16
    text_layers: int = 24
    quick_gelu: bool = True

    def __post_init__(self) -> None:
        _positive(
            self,
            "embed_dim",
            "image_size",
            "vision_layers",
            "vision_width",
            "vision_head_width",
            "patch",
            "context_length",
            "vocab_size",
            "text_width",
            "text_heads",
            "text_layers",
        )


def _flow(latent_dim: int, heads: int, joint: int, audio: int, v2: bool = False) -> FlowSpec:
    return FlowSpec(latent_dim, heads * HEAD_DIM, heads, joint, audio, v2)


VARIANTS: dict[str, FlowSpec] = {
    "small_16k": _flow(20, 7, 4, 8),
    "small_44k": _flow(40, 7, 4, 8),
    "medium_44k": _flow(40, 14, 4, 8),
    "large_44k": _flow(40, 14, 7, 14),
    "large_44k_v2": _flow(40, 14, 7, 14, v2=True),
}
"""The published flow networks, smallest first (arXiv 2412.15322, table 1)."""

VAES: dict[str, VAESpec] = {"16k": VAESpec(80, 20, 384), "44k": VAESpec(128, 40, 512)}
VOCODERS: dict[str, VocoderSpec] = {
    "16k": VocoderSpec(80, 1536, (4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4)),
    "44k": VocoderSpec(128, 1536, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final_bias=False, final_tanh=False),
}
PART_KINDS: dict[str, type[PartSpec]] = {c.kind: c for c in (FlowSpec, VAESpec, VocoderSpec, SynchformerSpec, CLIPSpec)}

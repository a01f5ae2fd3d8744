"""The published files: what they are called, where they lie, what they may be used for (spec section 1).

Names and checksums are public facts and are never invented: a file whose checksum is not known has ``md5=None``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..spec.model import VARIANTS

MMAUDIO_REPO = "hkchengrex/MMAudio"
REPACKED_REPO = "Kijai/MMAudio_safetensors"
BIGVGAN_REPO = "nvidia/bigvgan_v2_44khz_128band_512x"
CLIP_REPO = "apple/DFN5B-CLIP-ViT-H-14-384"

CC_BY_NC = "CC-BY-NC 4.0 (no commercial use)"
MIT = "MIT"
APPLE = "Apple ML research licence (see model card)"
LICENCES: dict[str, str] = {"flow": CC_BY_NC, "vae": CC_BY_NC, "vocoder": MIT, "synchformer": CC_BY_NC, "clip": APPLE}
"""Licence of the published weights by kind of part."""


def licence_of(values: Mapping[str, Any], kind: str) -> str:
    """Of the part ``kind`` in a file with the metadata ``values``: what it says of this part, else of itself, else that of the
    published weights."""
    by_kind = values.get("licences")
    own = by_kind.get(kind) if isinstance(by_kind, Mapping) else None
    return str(own or values.get("licence") or LICENCES[kind])


PHRASES: dict[str, str] = {
    "flow": "a flow network",
    "vae": "a mel VAE",
    "vocoder": "a BigVGAN vocoder",
    "synchformer": "a Synchformer",
    "clip": "a CLIP model",
}
"""How messages call a kind of part."""


@dataclass(frozen=True)
class PublishedFile:
    """One file on the Hugging Face hub.

    ``variant`` is the flow variant, or the audio format ("16k", "44k") of a VAE or vocoder, or "" where one file serves all.
    ``dtype`` is what the publisher stored: "float32" or "float16".
    """

    name: str
    kind: str
    variant: str
    repo: str
    path: str
    licence: str
    md5: str | None = None
    dtype: str = "float32"
    note: str = ""

    @property
    def url(self) -> str:
        """Where a person can fetch the file with a browser."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.path}"

    @property
    def page(self) -> str:
        """The repository's page, where its licence is stated."""
        return f"https://huggingface.co/{self.repo}"


def _flow(variant: str, md5: str) -> PublishedFile:
    name = f"mmaudio_{variant}.pth"
    return PublishedFile(name, "flow", variant, MMAUDIO_REPO, f"weights/{name}", CC_BY_NC, md5)


def _extra(name: str, kind: str, variant: str, md5: str, licence: str = CC_BY_NC, note: str = "") -> PublishedFile:
    return PublishedFile(name, kind, variant, MMAUDIO_REPO, f"ext_weights/{name}", licence, md5, note=note)


def _repacked(stem: str, kind: str, variant: str, licence: str = CC_BY_NC) -> tuple[PublishedFile, PublishedFile]:
    both = (("fp32", "float32"), ("fp16", "float16"))
    names = ((f"{stem}_{short}.safetensors", dtype) for short, dtype in both)
    first, second = (
        PublishedFile(name, kind, variant, REPACKED_REPO, name, licence, dtype=dtype, note="repacked copy, same tensor names")
        for name, dtype in names
    )
    return first, second


PUBLISHED: tuple[PublishedFile, ...] = (
    _flow("small_16k", "af93cde404179f58e3919ac085b8033b"),
    _flow("small_44k", "babd74c884783d13701ea2820a5f5b6d"),
    _flow("medium_44k", "5a56b6665e45a1e65ada534defa903d0"),
    _flow("large_44k", "fed96c325a6785b85ce75ae1aafd2673"),
    _flow("large_44k_v2", "01ad4464f049b2d7efdaa4c1a59b8dfe"),
    _extra("v1-16.pth", "vae", "16k", "69f56803f59a549a1a507c93859fd4d7"),
    _extra("v1-44.pth", "vae", "44k", "fab020275fa44c6589820ce025191600"),
    _extra(
        "best_netG.pt", "vocoder", "16k", "eeaf372a38a9c31c362120aba2dde292", MIT, "BigVGAN; tensors under the key generator"
    ),
    PublishedFile(
        "bigvgan_generator.pt",
        "vocoder",
        "44k",
        BIGVGAN_REPO,
        "bigvgan_generator.pt",
        MIT,
        note="tensors under the key generator; its config.json is not needed",
    ),
    _extra(
        "synchformer_state_dict.pth",
        "synchformer",
        "",
        "5b2f5594b0730f70e41e549b7c94390c",
        note="visual tower, audio tower and offset head",
    ),
    PublishedFile("open_clip_model.safetensors", "clip", "", CLIP_REPO, "open_clip_model.safetensors", APPLE),
    PublishedFile("open_clip_pytorch_model.bin", "clip", "", CLIP_REPO, "open_clip_pytorch_model.bin", APPLE),
    *_repacked("mmaudio_large_44k_v2", "flow", "large_44k_v2"),
    *_repacked("mmaudio_small_44k", "flow", "small_44k"),
    *_repacked("mmaudio_vae_44k", "vae", "44k"),
    *_repacked("mmaudio_synchformer", "synchformer", ""),
    *_repacked("apple_DFN5B-CLIP-ViT-H-14-384", "clip", "", APPLE),
)
"""Every published file that this package can use; originals first, and among equals the preferred one first."""


def published(name: str) -> PublishedFile:
    """The published file called ``name``.

    Raises:
        InputError: when no published file has that name.
    """
    for file in PUBLISHED:
        if file.name == name:
            return file
    raise InputError(f"No published file is called {name!r}; known are {', '.join(file.name for file in PUBLISHED)}.")


def by_md5(md5: str) -> PublishedFile | None:
    """The published file with this checksum (32 hexadecimal digits), or None."""
    return next((file for file in PUBLISHED if file.md5 == md5.lower()), None)


def candidates(kind: str, variant: str) -> tuple[PublishedFile, ...]:
    """Every published file that can serve as this part, preferred first; ``variant`` as in ``PublishedFile``."""
    return tuple(file for file in PUBLISHED if file.kind == kind and file.variant == variant)


def files_for(variant: str, *, half: bool = False) -> dict[str, PublishedFile]:
    """The files that a flow variant needs: one for each of flow, vae, vocoder, synchformer, clip.

    Originals in float32, or with ``half`` the float16 copies where such are published (half the download).

    Raises:
        InputError: for a variant that was not published.
    """
    if variant not in VARIANTS:
        raise InputError(f"There is no published variant {variant!r}; known are {', '.join(VARIANTS)}.")
    audio = VARIANTS[variant].audio.name
    wanted = {"flow": variant, "vae": audio, "vocoder": audio, "synchformer": "", "clip": ""}
    chosen = {}
    for kind, label in wanted.items():
        files = candidates(kind, label)
        halves = [file for file in files if file.dtype == "float16"] if half else []
        chosen[kind] = (halves or list(files))[0]
    return chosen


def example(kind: str, variant: str = "") -> PublishedFile:
    """A published file of this kind to name in messages: the newest large flow network, the 44.1 kHz parts."""
    label = variant or {"flow": "large_44k_v2", "vae": "44k", "vocoder": "44k"}.get(kind, "")
    return (candidates(kind, label) or candidates(kind, example(kind).variant))[0]


def belongs(kind: str | None, variant: str = "") -> str:
    """End of a sentence about a wrong file: what belongs in its place."""
    if kind is None:
        return "a weights file of MMAudio (.safetensors, .pth, .pt or .bin) belongs here"
    return f"{PHRASES[kind]} such as {example(kind, variant).name} belongs here"

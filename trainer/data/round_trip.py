"""What VAE and vocoder give back of a sound: the floor under everything a flow network can learn of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.errors import WeightsError
from mmaudio_core.pipeline.sound import decode_latents, encode_audio, vocode_mel
from mmaudio_core.spec.audio import AudioSpec
from mmaudio_core.types import Audio, Mel

if TYPE_CHECKING:
    from mmaudio_core.autoencoder.vae import VAE
    from mmaudio_core.vocoder.bigvgan import BigVGAN

STFT_SIZES = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
"""(FFT, hop, window) in samples, of arXiv 1910.11480, table 1."""
OUTLIER = 1.5
"""A clip whose error is this many times the median lies apart from the others."""
_FLOOR = 1e-5
"""Magnitudes and levels below count as this, -100 dB, so that digital silence has a logarithm."""


@dataclass(frozen=True)
class RoundTrip:
    """The errors of one clip; 0 is no error.

    mel_db: mean |difference| of the log-mels of the sound and of what comes back through VAE and vocoder, in dB.
    vae_mel_db: the same of the VAE alone: the log-mel that goes in against the one that its decoder gives.
    stft: multi-resolution STFT distance of the two sounds, without unit (``stft_distance``).
    peak_db, back_peak_db: the largest sample before and after, in dB of full scale.
    level_db, back_level_db: the root mean square before and after, in dB of full scale.
    """

    id: str
    path: str
    start_s: float
    mel_db: float
    vae_mel_db: float
    stft: float
    peak_db: float
    back_peak_db: float
    level_db: float
    back_level_db: float


class RoundTripper:
    """A VAE with its encoder and a vocoder of one format, and the analysis that judges them.

    Raises:
        WeightsError: when the two are of different formats.
    """

    def __init__(self, vae: VAE, vocoder: BigVGAN) -> None:
        if vae.spec.audio != vocoder.spec.audio:
            raise WeightsError(
                f"The VAE is a {vae.spec.audio.name} one and the vocoder a {vocoder.spec.audio.name} one; give two of one rate."
            )
        self.audio: AudioSpec = vae.spec.audio
        self._vae, self._vocoder = vae, vocoder
        self._analysis = MelAnalysis(self.audio)

    def back(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (N,), N those of whole latent tokens -> the decoder's log-mel (M, F) and the sound (N,) made of it.

        The latents are the means, without noise.

        Raises:
            WeightsError: when what comes back is not finite.
        """
        rate_hz = self.audio.sample_rate_hz
        latents = encode_audio(self._vae, Audio(samples[None, None], rate_hz))
        decoded = decode_latents(self._vae, latents)
        # The whole of the last token's sound, not only as much as was asked for.
        sound = vocode_mel(self._vocoder, Mel(decoded.values, samples.shape[0] / rate_hz)).samples[0, 0]
        if not (torch.isfinite(decoded.values).all() and torch.isfinite(sound).all()):
            raise WeightsError("VAE or vocoder gave NaN or infinite values; check the files with: mmaudio inspect.")
        return decoded.values[0], sound.float()

    def measure(self, samples: Tensor, name: str = "", path: str = "", start_s: float = 0.0) -> RoundTrip:
        """The errors of ``samples`` float32 (N,) at the format's rate, N those of whole latent tokens."""
        decoded, sound = self.back(samples)
        mel, back_mel = self._analysis(torch.stack((samples, sound)))
        return RoundTrip(
            id=name,
            path=path,
            start_s=start_s,
            mel_db=mel_distance_db(mel, back_mel, self.audio),
            vae_mel_db=mel_distance_db(mel, decoded, self.audio),
            stft=stft_distance(samples, sound),
            peak_db=_db(samples.abs().max()),
            back_peak_db=_db(sound.abs().max()),
            level_db=_db(samples.square().mean().sqrt()),
            back_level_db=_db(sound.square().mean().sqrt()),
        )


def mel_distance_db(a: Tensor, b: Tensor, audio: AudioSpec) -> float:
    """Mean |a - b| of two log-mels (M, F) of magnitudes, in dB whatever their logarithm's base."""
    per_unit = 20.0 if audio.log == "log10" else 20.0 / math.log(10)
    return float((a.float() - b.float()).abs().mean()) * per_unit


def stft_distance(truth: Tensor, other: Tensor) -> float:
    """Of two sounds (N,): spectral convergence plus mean |log magnitude difference|, mean over ``STFT_SIZES``.

    arXiv 1910.11480, equations 4 to 6; natural logarithm.
    """
    total = 0.0
    for size, hop, window_length in STFT_SIZES:
        window = torch.hann_window(window_length)
        sounds = F.pad(torch.stack((truth, other)).float(), (0, max(0, size - truth.shape[0])))
        a, b = torch.stft(sounds, size, hop, window_length, window, return_complex=True).abs().clamp(min=_FLOOR)
        convergence = torch.linalg.norm(a - b) / torch.linalg.norm(a)
        total += float(convergence + (a.log() - b.log()).abs().mean())
    return total / len(STFT_SIZES)


def worst_first(trips: Sequence[RoundTrip]) -> list[RoundTrip]:
    """By ``mel_db``; clips of equal error by id and start."""
    return sorted(trips, key=lambda trip: (-trip.mel_db, trip.id, trip.start_s))


def sentences(trips: Sequence[RoundTrip]) -> list[str]:
    """What the numbers mean, for one clip or more."""
    ordered = worst_first(trips)
    middle, vae = median(trip.mel_db for trip in ordered), median(trip.vae_mel_db for trip in ordered)
    far = [trip for trip in ordered if trip.mel_db > OUTLIER * middle]
    worst, clips = ordered[0], f"{len(ordered)} clip{'s' * (len(ordered) != 1)}"
    said = [
        f"Through VAE and vocoder and back, {clips} differ{'s' * (len(ordered) == 1)} from what went in by {middle:.2f} dB "
        f"per mel bin (median; the VAE alone {vae:.2f} dB), at worst by {worst.mel_db:.2f} dB ({worst.id}).",
        "The flow network only makes latents: what is lost here, no training and no LoRA on these clips can bring back.",
    ]
    if far:
        said.append(
            f"{len(far)} of {len(ordered)} lie above {OUTLIER:g} times the median: sounds that this VAE cannot represent well. "
            "Leave them out, or train the VAE on such sounds first."
        )
    elif len(ordered) > 1:
        said.append(f"None lies above {OUTLIER:g} times the median: the clips are about equally well represented.")
    return said


def table(trips: Sequence[RoundTrip], most: int) -> str:
    """The worst clips, one a line, at most ``most`` of them."""
    ordered = worst_first(trips)
    lines = ["  mel dB  VAE dB   STFT  peak dB  (back)  level dB  (back)  clip"]
    for trip in ordered[:most]:
        lines.append(
            f"{trip.mel_db:8.2f}{trip.vae_mel_db:8.2f}{trip.stft:7.2f}{trip.peak_db:9.1f}{trip.back_peak_db:8.1f}"
            f"{trip.level_db:10.1f}{trip.back_level_db:8.1f}  {trip.id}"
        )
    if len(ordered) > most:
        lines.append(f"and {len(ordered) - most} more with smaller errors")
    return "\n".join(lines)


def as_dict(trips: Sequence[RoundTrip]) -> dict[str, Any]:
    """The same as plain JSON values, with medians."""
    ordered = worst_first(trips)
    names = ("mel_db", "vae_mel_db", "stft")
    medians = {name: median(getattr(trip, name) for trip in ordered) for name in names}
    return {"median": medians, "clips": [asdict(trip) for trip in ordered]}


def _db(magnitude: Tensor) -> float:
    return 20 * math.log10(max(float(magnitude), _FLOOR))

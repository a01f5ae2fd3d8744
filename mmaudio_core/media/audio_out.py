"""Writing sound files."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import MediaError
from .atomic import atomic_path
from .opening import import_av
from .sound import Sound, audio_frames, checked_samples, layout_of, quantise_24

_CODECS = {".flac": "flac", ".wav": "pcm_s24le"}


def save_audio(audio: Sound, path: str | os.PathLike[str]) -> Path:
    """Writes one clip of one to eight channels as 24-bit .flac or .wav, chosen by the ending; rate and sample count stay exact.

    audio: an ``Audio`` of batch 1, or (samples (N,), (C, N) or (1, C, N), rate in Hz). Samples beyond [-1, 1] are clamped.
    The file appears whole or not at all, and replaces an existing one.

    Returns:
        ``path`` as a Path.

    Raises:
        MediaError: another ending, a missing folder, NaN or infinite samples, a batch above 1, a failed write.
        DependencyError: PyAV is missing.
    """
    target = Path(path)
    codec = _CODECS.get(target.suffix.lower())
    if codec is None:
        raise MediaError(f"{target.name} ends in {target.suffix or 'nothing'}; use one of {', '.join(_CODECS)}.")
    av = import_av()
    samples, rate_hz = checked_samples(audio)
    with atomic_path(target) as temporary:
        try:
            with av.open(str(temporary), "w", format=target.suffix.lower().lstrip(".")) as container:
                stream = container.add_stream(codec, rate=rate_hz)
                stream.codec_context.layout = layout_of(samples)
                stream.codec_context.format = "s32"
                for frame in audio_frames(quantise_24(samples), rate_hz):
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"{target.name} could not be written at {rate_hz} Hz: {error}.") from error
    return target

"""Putting new sound under a video without touching its pictures."""

from __future__ import annotations

import io
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, MediaError
from .atomic import atomic_path
from .opening import import_av, open_media, pick_video_stream
from .packets import check_stamps, decoded_s, packets_in_window
from .sound import Sound, audio_frames, checked_samples, layout_of
from .stamps import exact_start

OriginalAudio = Literal["replace", "keep"]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_MOV_FAMILY = ("mp4", "mov")
_AAC_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_DEFAULT_TRACK = 0x1
"""FFmpeg's disposition bit."""
_AAC_MAX_BITS_PER_SAMPLE = 5.5
"""The format allows 6144 bits per 1024 samples and channel; the encoder needs a little room below that."""
_AAC_GOOD_BITS_PER_S = 160_000


def mux_audio(
    video_path: str | os.PathLike[str],
    audio: Sound,
    out_path: str | os.PathLike[str],
    *,
    duration_s: float | None = None,
    start_s: float = 0.0,
    original_audio: OriginalAudio = "replace",
) -> Path:
    """Writes the pictures of ``video_path``, byte for byte, with ``audio`` as the first and default sound track.

    Every video packet that frames shown in [start_s, start_s + duration_s) need is kept, in decoding order, with rotation,
    colour and extradata; nothing is re-encoded. The sound becomes AAC at its own rate and presents exactly its own number
    of samples, from the instant ``start_s`` on, whatever the length of the video.

    audio: an ``Audio`` of batch 1, or (samples, rate in Hz); one to eight channels, more than two as
        ``load_sound`` has them.
    out_path: ends in .mp4, .m4v, .mov or .mkv. It appears whole or not at all, and may be ``video_path`` itself.
    duration_s: seconds of video to keep; ``None`` keeps it to its end.
    start_s: the instant of the video at which the sound starts. Copied pictures can only start at a keyframe: .mp4 and .mov
        hide what lies between it and ``start_s`` by an edit list, in .mkv it is shown first.
    original_audio: "keep" copies the video's own first sound track as a second one, cut at the same times.

    Raises:
        InputError: a negative start, a duration of 0 or less, another word for ``original_audio``.
        MediaError: unreadable video, unusable sound, another ending, a codec that the container cannot hold.
        DependencyError: PyAV is missing.
    """
    target = Path(out_path)
    container_format = _container_format(target)
    if original_audio not in ("replace", "keep"):
        raise InputError(f'original_audio is "{original_audio}"; use "replace" or "keep".')
    start, stop = _window(start_s, duration_s)
    samples, rate_hz = checked_samples(audio)
    if rate_hz not in _AAC_RATES_HZ:
        raise MediaError(f"The audio has {rate_hz} Hz, which AAC cannot hold; use one of {', '.join(map(str, _AAC_RATES_HZ))}.")
    av = import_av()
    options = {"movie_timescale": str(rate_hz), "movflags": "+faststart"} if container_format in _MOV_FAMILY else {}
    with atomic_path(target) as temporary:
        try:
            with (
                open_media(video_path) as source,
                av.open(str(temporary), "w", format=container_format, options=options) as sink,
            ):
                copies = _add_streams(sink, source, Path(video_path).name, target, samples, rate_hz, original_audio == "keep")
                sink.metadata.update(source.metadata)
                _write(sink, source, copies, _Encoder(sink, sink.streams[1], samples, rate_hz), start, stop)
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, (InputError, MediaError)):
                raise
            raise MediaError(
                f"{target.name} could not be written as {container_format}: {error}. Try another ending such as .mkv."
            ) from error
    return target


def check_mux(
    video_path: str | os.PathLike[str], out_path: str | os.PathLike[str], original_audio: OriginalAudio = "replace"
) -> None:
    """Says before any work is done that what ``mux_audio`` copies of ``video_path`` cannot go into a file like ``out_path``.

    Raises:
        MediaError: unreadable video, another ending, a codec that the container cannot hold, packets without time stamps.
    """
    target = Path(out_path)
    av = import_av()
    with open_media(video_path) as source, av.open(io.BytesIO(), "w", format=_container_format(target)) as sink:
        name = Path(video_path).name
        streams = [pick_video_stream(source, name), *(source.streams.audio[:1] if original_audio == "keep" else ())]
        for stream in streams:
            _copy_stream(sink, stream, name, target)
        check_stamps(source, streams)


def _container_format(target: Path) -> str:
    container_format = _FORMATS.get(target.suffix.lower())
    if container_format is None:
        raise MediaError(f"{target.name} ends in {target.suffix or 'nothing'}; use one of {', '.join(_FORMATS)}.")
    return container_format


class _Encoder:
    """Feeds the new sound to its AAC stream no further than the pictures have come, so that the file interleaves well."""

    def __init__(self, sink: Any, stream: Any, samples: Any, rate_hz: int) -> None:
        self._sink, self._stream = sink, stream
        self._rate_hz = rate_hz
        self._frames = audio_frames(samples.astype("float32"), rate_hz, block_samples=1024)
        self._encoded_s = 0.0
        self._finished = False

    def up_to(self, instant_s: float) -> None:
        """Encodes until ``instant_s``, or to the end."""
        while not self._finished and self._encoded_s <= instant_s:
            frame = next(self._frames, None)
            self._sink.mux(self._stream.encode(frame))
            if frame is None:
                self._finished = True
            else:
                self._encoded_s += frame.samples / self._rate_hz


def _add_streams(sink: Any, source: Any, name: str, target: Path, samples: Any, rate_hz: int, keep: bool) -> dict[int, Any]:
    """Video, new sound and, for ``keep``, old sound, in this order; (source stream index -> copy in ``sink``)."""
    video = pick_video_stream(source, name)
    copies = {video.index: _copy_stream(sink, video, name, target)}
    sound = sink.add_stream("aac", rate=rate_hz)
    sound.codec_context.layout = layout_of(samples)
    sound.codec_context.bit_rate = int(min(_AAC_GOOD_BITS_PER_S, _AAC_MAX_BITS_PER_SAMPLE * rate_hz)) * samples.shape[0]
    _set_default(sound, True)
    if keep and source.streams.audio:
        original = source.streams.audio[0]
        copies[original.index] = _copy_stream(sink, original, name, target)
        _set_default(copies[original.index], False)
    return copies


def _set_default(stream: Any, default: bool) -> None:
    # PyAV 13 cannot say it; players then take the first track, which is the right one.
    if hasattr(stream, "disposition"):
        stream.disposition = _DEFAULT_TRACK if default else 0


def _copy_stream(sink: Any, stream: Any, name: str, target: Path) -> Any:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    try:
        copy = _from_template(sink, stream)
    except (ValueError, TypeError) as error:
        instead = "Write" if target.suffix.lower() == ".mkv" else "Write to .mkv, or write"
        raise MediaError(
            f"{name} holds {codec} {stream.type}, which a {target.suffix} file cannot hold. {instead} the sound alone to .flac."
        ) from error
    copy.metadata.update(stream.metadata)
    tag = _codec_tag(sink, stream, codec)
    if tag:
        copy.codec_context.codec_tag = tag
    return copy


def _from_template(sink: Any, stream: Any) -> Any:
    if not hasattr(sink, "add_stream_from_template"):  # PyAV 13
        return sink.add_stream(template=stream)
    # opaque: no encoder of this codec is needed, since its packets are only copied.
    return sink.add_stream_from_template(stream, opaque=True)


def _codec_tag(sink: Any, stream: Any, codec: str) -> str | None:
    # FFmpeg's own choice for HEVC, hev1, does not play on Apple's devices; other tags are only valid in their own family.
    if codec == "hevc" and sink.format.name in _MOV_FAMILY:
        return "hev1" if stream.codec_context.codec_tag == "hev1" else "hvc1"
    return None


def _write(sink: Any, source: Any, copies: dict[int, Any], encoder: _Encoder, start: Fraction, stop: Fraction | None) -> None:
    streams = [source.streams[index] for index in copies]
    wrote_video = False
    for packet in packets_in_window(source, streams, start, stop):
        wrote_video = wrote_video or packet.stream.type == "video"
        encoder.up_to(float(decoded_s(packet)))
        packet.stream = copies[packet.stream.index]
        sink.mux(packet)
    if not wrote_video:
        raise MediaError(f"The video holds no pictures at its start of {float(start):g} s. Choose an earlier start.")
    encoder.up_to(math.inf)


def _window(start_s: float, duration_s: float | None) -> tuple[Fraction, Fraction | None]:
    start = exact_start(start_s)
    if duration_s is None:
        return start, None
    if not math.isfinite(duration_s) or duration_s <= 0:
        raise InputError(f"A duration of {duration_s} s was asked for; it must be above 0.")
    return start, Fraction(duration_s).limit_denominator(1_000_000)

"""Frames that are already in memory (tensors, arrays, generators) to picked, resized frames, exactly as for a file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, MediaError
from ..spec.timing import check_duration
from ..types import VideoFrames
from .collect import FrameCollector, Progress
from .opening import decode_tolerantly, open_media, pick_video_stream
from .quantise import quantise
from .resize import CLIP_SIZE, SYNC_SIZE, clip_frame
from .rgb import frame_pixels
from .rotation import display_matrix
from .stamps import exact_start, no_frame_from

Pixels: TypeAlias = Tensor | np.ndarray
_FLOAT_LIMIT = 2.0
"""Resampling filters overshoot [0, 1] a little; values beyond this come from a 0-255 picture in float."""


def frames_to_video(
    frames: Pixels | Iterable[Pixels],
    fps: float | Fraction,
    duration_s: float | None = None,
    *,
    start_s: float = 0.0,
    clip_size: int = CLIP_SIZE,
    sync_size: int = SYNC_SIZE,
    hold_last: bool = True,
    progress: Progress | None = None,
    source: str = "frames",
    workers: int | None = None,
    device: torch.device | str | None = None,
) -> VideoFrames:
    """What the two visual encoders see of frames shown at ``fps``: the same walk and resizing as for a file.

    frames: (N, H, W, 3), (N, H, W, 4; alpha is dropped) or (N, 3, H, W), uint8 or float in [0, 1], tensor or array, or any
        iterable of single such frames (a generator is read only as far as needed and never held).
    fps: frames per second; frame k has the stamp k / fps, exact in a Fraction and then rounded to float64.
    duration_s: seconds wanted, or ``None`` for all frames.
    start_s: seconds into the frames that count as 0, as in ``read_video``: the first frame taken is the first one that does not
        begin before it.
    hold_last: N frames cover N / fps seconds, so the last one stays until then: 200 frames at 25 fps give the full 8 s.
        ``False`` is the file rule of spec section 4, where a frame is gone after its stamp and the same frames give 7.96 s.
    workers, device: as in ``read_video``; no pixel depends on them.

    Returns:
        clip uint8 (V, 3, clip_size, clip_size), sync uint8 (frames, 3, sync_size, sync_size).

    Raises:
        InputError: a frame rate that is not above 0 and finite, a duration below 0.64 s, a negative or non-finite start.
        MediaError: no frames, a wrong shape or type, values that are not in [0, 1], too few frames, ``start_s`` beyond their
            end.
    """
    rate = _check_fps(fps)
    start = exact_start(start_s)
    asked_s = None if duration_s is None else check_duration(duration_s)
    _check_batch(frames)
    options: dict[str, Any] = {"workers": workers, "device": device}
    fleeting = True  # a generator may fill one buffer over and over, so its frames are copied before it goes on
    if isinstance(frames, (Tensor, np.ndarray, list, tuple)):
        fleeting = False
        options["expected_s"] = max(0.0, float(len(frames) / rate - start))
    to_pixels = _copied_pixels if fleeting else pixels_to_uint8
    count, frame = 0, None
    with FrameCollector(asked_s, clip_size, sync_size, progress, **options) as collector:
        for frame in frames:
            collector.feed(float(count / rate - start), partial(to_pixels, frame), at_once=fleeting)
            count += 1
            if collector.done:
                break
        if frame is None:
            raise MediaError("There are no frames: at least 0.64 s of them are needed. Connect a video with frames.")
        covered_s = float(count / rate - start)
        if collector.empty:
            raise no_frame_from(start, covered_s, source)
        if hold_last:
            collector.hold(covered_s, partial(to_pixels, frame))
        return collector.finish(covered_s, source)


def image_to_video_frames(
    image: str | os.PathLike[str] | Pixels, clip_size: int = CLIP_SIZE, *, duration_s: float = 0.0
) -> VideoFrames:
    """A still as one CLIP frame and no sync frames; the caller repeats its feature (paper, image-to-audio).

    image: the path of a picture in any format that FFmpeg or Pillow reads, or (H, W, 3), (1, H, W, 3) or (3, H, W).
    duration_s: only noted in the result. A still covers no time of its own, hence 0.

    Returns:
        clip uint8 (1, 3, clip_size, clip_size), sync ``None``.

    Raises:
        MediaError: not a readable picture, or a wrong shape or type.
    """
    if isinstance(image, (str, os.PathLike)):
        pixels, source = _read_image(image), os.path.basename(os.fspath(image))
    else:
        single = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
        pixels, source = pixels_to_uint8(single), "image"
    return VideoFrames(clip_frame(pixels.unsqueeze(0), clip_size), None, duration_s, source)


def pixels_to_uint8(frame: Pixels) -> Tensor:
    """One frame (H, W, 3 or 4) or (3, H, W), uint8 or float in [0, 1] -> uint8 (3, H, W) on the CPU.

    Where both readings fit, the channels are last, as in ComfyUI.

    Raises:
        MediaError: another shape or type, or values that cannot be a picture.
    """
    tensor = _from_numpy(frame) if isinstance(frame, np.ndarray) else frame
    if not isinstance(tensor, Tensor):
        raise MediaError(f"A frame is a {type(frame).__name__}; a tensor or a numpy array is needed.")
    tensor = _channels_first(tensor.detach().cpu())
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise MediaError(f"Frames are {tensor.dtype}; uint8 (0 to 255) or float (0 to 1) is needed.")
    pixels, low, high = quantise(tensor)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MediaError("A frame holds NaN or infinite values; float frames must lie in [0, 1].")
    if high > _FLOAT_LIMIT:
        raise MediaError(f"A float frame reaches {high:g}; float frames must lie in [0, 1]. Divide by 255 or convert to uint8.")
    return pixels


def _copied_pixels(frame: Pixels) -> Tensor:
    pixels = pixels_to_uint8(frame)
    return pixels.clone() if frame.dtype in (torch.uint8, np.uint8) else pixels


def _from_numpy(frame: np.ndarray) -> Tensor:
    if frame.dtype != np.uint8 and frame.dtype not in (np.float16, np.float32, np.float64):
        raise MediaError(f"Frames are {frame.dtype}; uint8 (0 to 255) or float (0 to 1) is needed.")
    # Mirrored views and read-only buffers are nothing that torch can share memory with.
    if not frame.flags.writeable or any(stride < 0 for stride in frame.strides):
        frame = frame.copy()
    return torch.from_numpy(frame)


def _channels_first(frame: Tensor) -> Tensor:
    if frame.ndim != 3 or 0 in frame.shape:
        raise MediaError(f"A frame has the shape {tuple(frame.shape)}; (H, W, 3) or (3, H, W) is needed.")
    if frame.shape[-1] in (3, 4):
        return frame[..., :3].permute(2, 0, 1)
    if frame.shape[0] == 3:
        return frame
    raise MediaError(f"A frame has the shape {tuple(frame.shape)}; one side of 3 colours is needed: (H, W, 3) or (3, H, W).")


def _check_batch(frames: Any) -> None:
    if isinstance(frames, (Tensor, np.ndarray)) and frames.ndim != 4:
        raise MediaError(f"Frames have the shape {tuple(frames.shape)}; (N, H, W, 3) or (N, 3, H, W) is needed.")
    if not isinstance(frames, Iterable):
        raise MediaError(f"Frames are a {type(frames).__name__}; a tensor, an array or an iterable of frames is needed.")


def _check_fps(fps: float | Fraction) -> Fraction:
    try:
        rate = Fraction(fps)
    except (ValueError, OverflowError, TypeError) as error:
        raise InputError(f"A frame rate of {fps} was given; a number above 0 is needed.") from error
    if rate <= 0:
        raise InputError(f"A frame rate of {fps} was given; it must be above 0 frames per second.")
    return rate


def _read_image(path: str | os.PathLike[str]) -> Tensor:
    name = os.path.basename(os.fspath(path))
    try:
        with open_media(path, "image") as container:
            frame = next(decode_tolerantly(container, pick_video_stream(container, name)), None)
            if frame is not None:
                return frame_pixels(frame, display_matrix(frame))
    except MediaError as error:
        return _read_image_with_pillow(path, name, error)
    return _read_image_with_pillow(path, name, None)


def _read_image_with_pillow(path: str | os.PathLike[str], name: str, cause: MediaError | None) -> Tensor:
    """For formats that this FFmpeg build does not know; without Pillow the first error stands."""
    failure = cause or MediaError(f"{name} holds no picture that can be decoded. Save it as PNG or JPEG.")
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise failure from None
    try:
        with Image.open(path) as image:
            array = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError):
        raise failure from cause
    return torch.from_numpy(array).permute(2, 0, 1)

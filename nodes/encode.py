"""Features of a video or picture, and CONDITIONING from them and from prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..mmaudio_core.errors import InputError
from ..mmaudio_core.pipeline.inputs import DEFAULT_DURATION_S, tell_duration
from ..mmaudio_core.spec.timing import SYNC_TIMINGS
from ..mmaudio_core.types import Features, VideoFrames
from . import sockets
from .host.errors import plainly

TEXT_TOKENS, TEXT_WIDTH = 77, 1024
AS_THE_MODEL = "model"
FPS_TOOLTIP = (
    "The rate at which the images are shown, in frames per second (Wan 16, LTX 24 or 25, Hunyuan 24). It is never guessed; "
    "not used for a VIDEO, which brings its own time stamps, or for a single image."
)


def text_input(input_id: str, tooltip: str) -> Any:
    """A box for a prompt, which says what it is for while it is empty; choices such as {rain|wind} are drawn by the page."""
    hint = input_id.replace("_", " ")
    return io.String.Input(input_id, multiline=True, default="", placeholder=hint, dynamic_prompts=True, tooltip=tooltip)


def visual_inputs() -> list[Any]:
    """VIDEO, or images with fps; shared with the all-in-one node."""
    return [
        io.Video.Input("video", optional=True, tooltip="A video; its own time stamps are used. Give this or images."),
        io.Image.Input(
            "images", optional=True, tooltip="The frames of a video, with fps, or a single image to make sound for. Or a video."
        ),
        io.Float.Input("fps", default=0.0, min=0.0, max=1000.0, step=0.001, optional=True, tooltip=FPS_TOOLTIP),
    ]


def span_inputs() -> list[Any]:
    """Start and duration of the wanted part."""
    return [
        io.Float.Input("start_s", default=0.0, min=0.0, max=1e6, step=0.01, tooltip="Second of the video at which to begin."),
        io.Float.Input(
            "duration_s",
            default=0.0,
            min=0.0,
            max=3600.0,
            step=0.01,
            tooltip="Seconds from the start on; 0 means to the video's end (8 s in Generate without one). At least 0.64; the "
            "models were trained on 8.",
        ),
    ]


def timing_input() -> Any:
    """Last of all widgets, so that workflows of before keep their values."""
    return io.Combo.Input(
        "sync_timing",
        options=[AS_THE_MODEL, *SYNC_TIMINGS],
        default=AS_THE_MODEL,
        optional=True,
        tooltip="How what moves is laid over a sound that is not 8 s long. stretched: as published; the shorter, the later. "
        "steady: at the pace of 8 s, for shorter ones. Neither keeps step far above 8 s. model: as the model's file says, "
        "which for published ones is stretched.",
    )


def timed(features: Features, sync_timing: str) -> Features:
    """``features`` with the timing that a node's input chose."""
    return replace(features, sync_timing=None if sync_timing == AS_THE_MODEL else sync_timing)


def visual_frames(
    encoders: Any, video: Any, images: Any, fps: float | None, start_s: float, duration_s: float, progress: Any
) -> VideoFrames | None:
    """The frames of whichever input is connected; None without any.

    Raises:
        InputError: when both are, or when images come without fps.
    """
    from .host.video import frames_of_images, frames_of_picture, frames_of_video, sizes_for

    if video is not None and images is not None:
        raise InputError("Both a video and images are connected; connect one of them.")
    if video is None and images is None:
        return None
    sizes, wanted_s = sizes_for(encoders), duration_s or None
    if video is not None:
        frames = frames_of_video(video, sizes, start_s, wanted_s, progress)
    elif images.shape[0] == 1:
        return frames_of_picture(images, sizes)
    else:
        frames = frames_of_images(images, fps or 0.0, sizes, start_s, wanted_s, progress)
    tell_duration(wanted_s, frames.duration_s)
    return frames


class ExtractFeatures(io.ComfyNode):
    """What CLIP and Synchformer say of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}ExtractFeatures",
            display_name="MMAudio: Extract Features",
            category=f"{sockets.CATEGORY}/encode",
            description="Looks at a VIDEO, at images with fps, or at a single image: CLIP at 8 frames per second for what is "
            "seen, Synchformer at 25 for when it happens. Whatever the frame rate, the whole span is seen.",
            inputs=[
                sockets.Encoders.Input("encoders", tooltip="Of MMAudio: Load Encoders or Load Variant."),
                *span_inputs(),
                *visual_inputs(),
                timing_input(),
            ],
            outputs=[
                sockets.Features.Output(display_name="features"),
                io.Float.Output(display_name="duration_s"),
            ],
        )

    @classmethod
    @plainly
    def execute(
        cls,
        encoders: Any,
        start_s: float,
        duration_s: float,
        video: Any = None,
        images: Any = None,
        fps: float = 0.0,
        sync_timing: str = AS_THE_MODEL,
    ) -> io.NodeOutput:
        from .host.progress import HostProgress

        progress = HostProgress()
        frames = visual_frames(encoders, video, images, fps, start_s, duration_s, progress)
        if frames is None:
            raise InputError("Neither a video nor images are connected; connect one of them.")
        features = timed(encoders.encode_frames(frames, progress), sync_timing)
        return io.NodeOutput(features, float(features.duration_s or duration_s or DEFAULT_DURATION_S))


class EncodePrompt(io.ComfyNode):
    """Positive and negative CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}EncodePrompt",
            display_name="MMAudio: Encode Prompt",
            category=f"{sockets.CATEGORY}/encode",
            description="Joins the prompt and the features of a video to CONDITIONING. An empty prompt means no text; without "
            "features it is text to audio. The negative side has its text and no video, as MMAudio was trained.",
            inputs=[
                sockets.Encoders.Input("encoders", tooltip="Of MMAudio: Load Encoders or Load Variant."),
                text_input("prompt", "What should be heard; may stay empty with a video."),
                text_input("negative_prompt", "What should not be heard, such as music or speech; may stay empty."),
                sockets.Features.Input(
                    "features", optional=True, tooltip="Of MMAudio: Extract Features; leave it for text only."
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    @plainly
    def execute(cls, encoders: Any, prompt: str, negative_prompt: str, features: Any = None) -> io.NodeOutput:
        from .host.conditioning import pack
        from .host.progress import HostProgress

        prompt, negative_prompt = prompt.strip(), negative_prompt.strip()
        written = list(dict.fromkeys(text for text in (prompt, negative_prompt) if text))
        rows = dict(zip(written, encoders.encode_text(written, HostProgress()), strict=True)) if written else {}
        tokens, width = TEXT_TOKENS, TEXT_WIDTH
        if encoders.has("clip"):
            tokens, width = encoders.clip_spec.context_length, encoders.clip_spec.text_width
        given = features if features is not None else Features()
        positive = replace(given, text=rows[prompt][None] if prompt else None)
        against = rows[negative_prompt][None] if negative_prompt else None
        negative = Features(text=against, duration_s=given.duration_s, sync_timing=given.sync_timing)
        return io.NodeOutput(pack(positive, tokens, width), pack(negative, tokens, width))

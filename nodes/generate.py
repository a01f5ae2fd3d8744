"""All in one: video, images or text in, sound and video with sound out."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..mmaudio_core.media.spectrogram import mel_picture
from ..mmaudio_core.pipeline.sample import SampleSettings
from ..mmaudio_core.types import Features
from . import sockets
from .decode import MODES, check_mode, pick_take
from .encode import AS_THE_MODEL, span_inputs, text_input, timed, timing_input, visual_frames, visual_inputs
from .host.errors import plainly
from .host.graph import graph_builder, nothing
from .preview import player_input, preview
from .sample import MAX_SEED, sampling_inputs, seed_input
from .variant import FETCH, files_stamp, variant_inputs

log = logging.getLogger("mmaudio")


class LoadPipeline(io.ComfyNode):
    """Every part of a variant for the all-in-one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadPipeline",
            display_name="MMAudio: Load Pipeline",
            category=f"{sockets.CATEGORY}/all in one",
            description="Chooses a variant for one or several MMAudio: Generate nodes, which then share its loaded parts.",
            inputs=variant_inputs(),
            outputs=[sockets.Pipeline.Output(display_name="pipeline")],
        )

    @classmethod
    def fingerprint_inputs(cls, variant: str | None = None, precision: str | None = None, **_: Any) -> str:
        return files_stamp(variant, precision)

    @classmethod
    @plainly
    def execute(cls, variant: str, download: str, precision: str) -> io.NodeOutput:
        from .host.pipeline import Pipeline
        from .host.progress import HostProgress
        from .host.variants import files_of

        return io.NodeOutput(Pipeline(files_of(variant, download == FETCH, precision, HostProgress()), precision))


class Generate(io.ComfyNode):
    """The whole chain in one node, on the core's own sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Generate",
            display_name="MMAudio: Generate",
            category=f"{sockets.CATEGORY}/all in one",
            description="Sound for a VIDEO, for images with fps, for a single image, or for a prompt alone, and the video with "
            "it. Connect MMAudio: Load Pipeline to share a loaded variant between several of these.",
            inputs=[
                text_input("prompt", "What should be heard; may stay empty with a video."),
                text_input("negative_prompt", "What should not be heard; may stay empty."),
                *variant_inputs(),
                seed_input(),
                *sampling_inputs(),
                *span_inputs(),
                io.Int.Input("takes", default=1, min=1, max=64, tooltip="Sounds to make; the video gets the first."),
                io.Combo.Input(
                    "original_sound", options=list(MODES), default="replace", tooltip="What becomes of the video's own sound."
                ),
                *visual_inputs(),
                sockets.Pipeline.Input(
                    "pipeline", optional=True, tooltip="Takes the place of variant, download and precision."
                ),
                timing_input(),
                player_input(),
            ],
            outputs=[
                io.Audio.Output(display_name="audio"),
                io.Video.Output(display_name="video"),
                io.Image.Output(display_name="spectrogram"),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, variant: str | None = None, precision: str | None = None, **_: Any) -> str:
        return files_stamp(variant, precision)

    @classmethod
    @plainly
    def execute(cls, pipeline: Any = None, **inputs: Any) -> io.NodeOutput:
        if pipeline is None:
            return expand_with_loader(inputs)
        return run(cls, pipeline, **inputs)


def expand_with_loader(inputs: dict[str, Any]) -> io.NodeOutput:
    """The node as two: a loader, whose result the host keeps by its inputs, and this node with the pipeline connected.

    So a new seed or prompt does not load again, and nothing is kept on a class.
    """
    graph = graph_builder()
    loading = {name: inputs[name] for name in ("variant", "download", "precision")}
    loader = graph.node(f"{sockets.PREFIX}LoadPipeline", "loader", **loading)
    inner = graph.node(f"{sockets.PREFIX}Generate", "generate", pipeline=loader.out(0), **inputs)
    return io.NodeOutput(inner.out(0), inner.out(1), inner.out(2), expand=graph.finalize())


def run(
    cls: type[io.ComfyNode],
    pipeline: Any,
    prompt: str,
    negative_prompt: str,
    seed: int,
    steps: int,
    cfg: float,
    solver: Any,
    start_s: float,
    duration_s: float,
    takes: int,
    original_sound: str,
    video: Any = None,
    images: Any = None,
    fps: float = 0.0,
    sync_timing: str = AS_THE_MODEL,
    **_: Any,
) -> io.NodeOutput:
    """Frames, features, sampling, decoding and the video with its sound."""
    from .host.pipeline import Request
    from .host.progress import HostProgress
    from .host.sounds import to_host

    check_mode(original_sound)
    settings = SampleSettings(steps, cfg, solver)  # wrong choices before any work
    progress = HostProgress()
    frames = visual_frames(pipeline.encoders, video, images, fps, start_s, duration_s, progress)
    features = timed(Features() if frames is None else pipeline.features(frames, progress), sync_timing)
    seeds = tuple((seed + index) % (MAX_SEED + 1) for index in range(takes))
    request = Request(prompt.strip(), negative_prompt.strip(), duration_s or None, seeds, settings)
    mel, audio = pipeline.generate(request, features, progress)
    picture = mel_picture(mel)
    shown = _shown_video(video, images, fps, pick_take(audio, 1), original_sound, start_s)
    return io.NodeOutput(to_host(audio), shown, picture, ui=preview(cls, to_host(audio), picture))


def _shown_video(video: Any, images: Any, fps: float, audio: Any, mode: str, start_s: float) -> Any:
    """The video with its new sound; where there is none, what tells the host to leave out the nodes that want it.

    A video that cannot be written is an error of those nodes alone: the sound has been made by now.
    """
    from .host.video import video_of, with_sound

    if video is None and (images is None or images.shape[0] == 1):
        return nothing()
    try:
        if video is None:
            video, mode = video_of(images, fps, audio), "replace"
        return with_sound(video, audio, mode, 0.0, 0.0, -12.0, start_s)[0]
    except Exception as error:  # of the host, which reads its own videos, or of FFmpeg, or for want of memory
        log.warning("The sound was made, the video with it was not: %s", error)
        return nothing(f"The video with its sound could not be made: {error}")

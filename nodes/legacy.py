"""Nodes for workflows made for an older MMAudio pack: its four nodes' inputs, in their order, on our own parts.

Each has an id of ours; where the other pack is absent it also answers to the old id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..mmaudio_core.pipeline.sample import SampleSettings
from ..mmaudio_core.types import Features
from . import sockets
from .encode import visual_frames
from .host import folders, old_pack
from .host.errors import plainly
from .sample import MAX_SEED

CATEGORY = f"{sockets.CATEGORY}/legacy"
OLD_PRECISIONS = ["fp16", "fp32", "bf16"]
OLD_FPS = 25.0


def _precision(input_id: str) -> Any:
    return io.Combo.Input(
        input_id,
        options=OLD_PRECISIONS,
        default="fp16",
        tooltip="Number format of the weights; on a CPU float32 is used whatever is chosen.",
    )


def _file(input_id: str, kind: str, what: str) -> Any:
    return io.Combo.Input(input_id, options=folders.names_of(kind), tooltip=f"{what} in models/mmaudio.")


def _instead(name: str) -> str:
    return f"For workflows of an older MMAudio pack. In new ones use {name}."


class LegacyModelLoader(io.ComfyNode):
    """The flow network, for LegacySampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LegacyModelLoader",
            display_name="MMAudio: Model Loader (old workflows)",
            category=CATEGORY,
            description=_instead("MMAudio: Load Pipeline"),
            is_deprecated=True,
            inputs=[_file("mmaudio_model", "flow", "The flow network"), _precision("base_precision")],
            outputs=[sockets.LegacyModel.Output(display_name="mmaudio_model")],
        )

    @classmethod
    def fingerprint_inputs(cls, mmaudio_model: str | None = None, **_: Any) -> str:
        return folders.stamp_of(mmaudio_model)

    @classmethod
    @plainly
    def execute(cls, mmaudio_model: str, base_precision: str) -> io.NodeOutput:
        from .host.legacy import model_of

        return io.NodeOutput(model_of(mmaudio_model, base_precision))


class LegacyVoCoderLoader(io.ComfyNode):
    """A vocoder, for LegacyFeatureUtilsLoader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LegacyVoCoderLoader",
            display_name="MMAudio: Vocoder Loader (old workflows)",
            category=CATEGORY,
            description=_instead("MMAudio: Load VAE"),
            is_deprecated=True,
            inputs=[_file("vocoder_model", "vocoder", "The BigVGAN vocoder")],
            outputs=[sockets.LegacyVocoder.Output(display_name="mmaudio_vocoder")],
        )

    @classmethod
    def fingerprint_inputs(cls, vocoder_model: str | None = None, **_: Any) -> str:
        return folders.stamp_of(vocoder_model)

    @classmethod
    @plainly
    def execute(cls, vocoder_model: str) -> io.NodeOutput:
        from .host.legacy import vocoder_of

        return io.NodeOutput(vocoder_of(vocoder_model))


class LegacyFeatureUtilsLoader(io.ComfyNode):
    """Encoders, VAE and vocoder, for LegacySampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LegacyFeatureUtilsLoader",
            display_name="MMAudio: Feature Utils Loader (old workflows)",
            category=CATEGORY,
            description=_instead("MMAudio: Load Pipeline, or MMAudio: Load Encoders and MMAudio: Load VAE"),
            is_deprecated=True,
            inputs=[
                _file("vae_model", "vae", "The mel VAE"),
                _file("synchformer_model", "synchformer", "Synchformer"),
                _file("clip_model", "clip", "CLIP ViT-H/14 384"),
                sockets.LegacyVocoder.Input(
                    "bigvgan_vocoder_model",
                    optional=True,
                    tooltip="Needed by none: without it a vocoder of the VAE's rate is looked for in models/mmaudio.",
                ),
                io.Combo.Input(
                    "mode",
                    options=["16k", "44k"],
                    default="44k",
                    optional=True,
                    tooltip="Read from the VAE file; what is chosen here changes nothing.",
                ),
                io.Combo.Input(
                    "precision",
                    options=OLD_PRECISIONS,
                    default="fp16",
                    optional=True,
                    tooltip="Number format of the weights; on a CPU float32 is used whatever is chosen.",
                ),
            ],
            outputs=[sockets.LegacyFeatureUtils.Output(display_name="mmaudio_featureutils")],
        )

    @classmethod
    def fingerprint_inputs(
        cls, vae_model: str | None = None, synchformer_model: str | None = None, clip_model: str | None = None, **_: Any
    ) -> list[str]:
        return [folders.stamp_of(name) for name in (vae_model, synchformer_model, clip_model)]

    @classmethod
    @plainly
    def execute(
        cls,
        vae_model: str,
        synchformer_model: str,
        clip_model: str,
        bigvgan_vocoder_model: Any = None,
        mode: str = "44k",
        precision: str = "fp16",
    ) -> io.NodeOutput:
        from .host.legacy import feature_utils_of

        return io.NodeOutput(feature_utils_of(vae_model, synchformer_model, clip_model, bigvgan_vocoder_model, mode, precision))


def _sampler_inputs() -> list[Any]:
    """In the old order; ``fps`` is new and last, so that the widget values of old workflows fall into place."""
    return [
        sockets.LegacyModel.Input("mmaudio_model"),
        sockets.LegacyFeatureUtils.Input("feature_utils"),
        io.Float.Input(
            "duration",
            default=8.0,
            min=0.0,
            max=3600.0,
            step=0.01,
            tooltip="Seconds; less where the images end earlier. 0: as long as the images, without images 8.",
        ),
        io.Int.Input("steps", default=25, min=1, max=10000, tooltip="Euler steps."),
        io.Float.Input("cfg", default=4.5, min=0.0, max=100.0, step=0.1, tooltip="Guidance; 1 or less is none."),
        io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip="One seed, one sound."),
        io.String.Input("prompt", multiline=True, default="", tooltip="What should be heard."),
        io.String.Input("negative_prompt", multiline=True, default="", tooltip="What should not be heard."),
        io.Boolean.Input(
            "mask_away_clip",
            default=False,
            tooltip="Leaves out what CLIP sees in the images; the prompt and the timing remain.",
        ),
        io.Boolean.Input("force_offload", default=True, tooltip="Ignored: ComfyUI itself frees memory when it is needed."),
        io.Image.Input("images", optional=True, tooltip="The frames of a video, a single image, or nothing for text alone."),
        io.Float.Input(
            "fps",
            default=OLD_FPS,
            min=0.0,
            max=1000.0,
            step=0.001,
            optional=True,
            tooltip="The old node ignored the frame rate and treated everything as 25 fps; set it to what the images are "
            "shown at.",
        ),
    ]


class LegacySampler(io.ComfyNode):
    """Images and prompt to sound, as the old sampler did, with the frame rate respected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LegacySampler",
            display_name="MMAudio: Sampler (old workflows)",
            category=CATEGORY,
            description=_instead("MMAudio: Generate") + " The frame rate of the images is respected here: set fps.",
            is_deprecated=True,
            inputs=_sampler_inputs(),
            outputs=[io.Audio.Output(display_name="audio")],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @plainly
    def execute(
        cls,
        mmaudio_model: Any,
        feature_utils: Any,
        duration: float,
        steps: int,
        cfg: float,
        seed: int,
        prompt: str,
        negative_prompt: str,
        mask_away_clip: bool,
        force_offload: bool,
        images: Any = None,
        fps: float = OLD_FPS,
    ) -> io.NodeOutput:
        from .host.legacy import is_linked, warn_of_default_fps
        from .host.pipeline import Chain, Request
        from .host.progress import HostProgress
        from .host.sounds import to_host

        if images is not None and images.shape[0] > 1 and fps == OLD_FPS and not is_linked(cls.hidden, "fps"):
            warn_of_default_fps(fps)
        progress = HostProgress()
        chain = Chain(mmaudio_model, feature_utils.sound, feature_utils.encoders)
        frames = visual_frames(chain.encoders, None, images, fps, 0.0, duration, progress)
        features = Features() if frames is None else chain.features(frames, progress)
        if mask_away_clip:
            features = replace(features, clip=None)
        settings = SampleSettings(steps, max(cfg, 1.0))
        request = Request(prompt.strip(), negative_prompt.strip(), duration or None, (seed,), settings)
        return io.NodeOutput(to_host(chain.generate(request, features, progress)[1]))


NODES: tuple[type[io.ComfyNode], ...] = (
    LegacyModelLoader,
    LegacyVoCoderLoader,
    LegacyFeatureUtilsLoader,
    LegacySampler,
)


def under_old_id(node: type[io.ComfyNode], old_id: str) -> type[io.ComfyNode]:
    """``node`` as a class of its own that the host registers under ``old_id``."""

    class Alias(node):
        @classmethod
        def define_schema(cls) -> io.Schema:
            schema = super().define_schema()
            schema.node_id = old_id
            return schema

    Alias.__name__ = Alias.__qualname__ = old_id
    return Alias


def aliases() -> list[type[io.ComfyNode]]:
    """The nodes under the old ids; none where the other pack is present, whose ids they are.

    Node replacement of newer hosts is no way here (tried on 0.33.0): the server fails on a prompt in which an optional input
    of the mapping is absent, such as images or the vocoder, and the page runs nothing before a person had every node replaced,
    which turns a fixed seed into a random one.
    """
    if old_pack.present():
        return []
    return [under_old_id(node, old_id) for node, old_id in zip(NODES, old_pack.IDS, strict=True)]

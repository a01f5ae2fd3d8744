"""API prompts for the tests, built node by node."""

from __future__ import annotations

from typing import Any

PREFIX = "MMAudioGraph"
TINY = "tiny (embedded)"


class Graph:
    """Collects nodes; ``add`` returns the node's id, and ``(id, index)`` as an input is a link."""

    def __init__(self) -> None:
        self.prompt: dict[str, Any] = {}

    def add(self, class_type: str, **inputs: Any) -> str:
        node_id = str(len(self.prompt) + 1)
        linked = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
        self.prompt[node_id] = {"class_type": class_type, "inputs": linked, "_meta": {"title": class_type}}
        return node_id

    def ours(self, name: str, **inputs: Any) -> str:
        return self.add(PREFIX + name, **{**DEFAULTS.get(name, {}), **inputs})

    def dump(self, value: tuple[str, int], name: str) -> str:
        return self.add("StandInDump", value=value, name=name)


VARIANT = {"variant": TINY, "download": "no", "precision": "auto"}
SAMPLING = {"seed": 1, "steps": 8, "cfg": 4.5, "solver": "euler"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "LoadVariant": VARIANT,
    "LoadPipeline": VARIANT,
    "LoadModel": {"model_file": TINY, "precision": "auto"},
    "LoadVAE": {"vae_file": TINY, "vocoder_file": TINY, "precision": "auto"},
    "LoadEncoders": {"clip_file": TINY, "synchformer_file": TINY, "precision": "auto"},
    "ExtractFeatures": {"start_s": 0.0, "duration_s": 0.0, "fps": 0.0},
    "EncodePrompt": {"prompt": "", "negative_prompt": ""},
    "EmptyLatent": {"duration_s": 2.0, "batch_size": 1},
    "EncodeAudio": {"duration_s": 0.0},
    "RegenerateSeconds": {"start_s": 0.5, "end_s": 1.0, "feather_s": 0.0},
    "Sampler": {**SAMPLING, "denoise": 1.0, "takes": 1},
    "LinearSigmas": {"steps": 8, "denoise": 1.0},
    "Noise": {"seed": 1},
    "CombineVideoAudio": {
        "original_sound": "replace",
        "audio_gain_db": 0.0,
        "original_gain_db": 0.0,
        "duck_db": -12.0,
        "start_s": 0.0,
        "take": 1,
    },
    "Generate": {
        **VARIANT,
        **SAMPLING,
        "prompt": "",
        "negative_prompt": "",
        "start_s": 0.0,
        "duration_s": 0.0,
        "takes": 1,
        "original_sound": "replace",
        "fps": 0.0,
    },
}


def ksampler(graph: Graph, model: tuple[str, int], conditioning: str, latent: tuple[str, int], **settings: Any) -> str:
    """ComfyUI's KSampler on the outputs of a prompt node."""
    values = {"seed": 1, "steps": 8, "cfg": 4.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **settings}
    return graph.add(
        "KSampler", model=model, positive=(conditioning, 0), negative=(conditioning, 1), latent_image=latent, **values
    )


def custom_sampling(graph: Graph, model: tuple[str, int], conditioning: str, latent: tuple[str, int], **settings: Any) -> str:
    """SamplerCustomAdvanced with our sigmas and noise."""
    values = {"seed": 1, "steps": 8, "cfg": 4.5, **settings}
    noise = graph.ours("Noise", seed=values["seed"])
    sigmas = graph.ours("LinearSigmas", steps=values["steps"])
    guider = graph.add("CFGGuider", model=model, positive=(conditioning, 0), negative=(conditioning, 1), cfg=values["cfg"])
    sampler = graph.add("KSamplerSelect", sampler_name="euler")
    return graph.add(
        "SamplerCustomAdvanced",
        noise=(noise, 0),
        guider=(guider, 0),
        sampler=(sampler, 0),
        sigmas=(sigmas, 0),
        latent_image=latent,
    )

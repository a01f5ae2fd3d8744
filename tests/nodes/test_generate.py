"""The all-in-one node: how it becomes two nodes, and what the inner one does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import mmaudio_core
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.pipeline.sample import SampleSettings

from .host import TINY, Host
from .made_up import SPECS_44K, pictures, tone, write_part

FAST = {"steps": 2, "duration_s": 1.0}


@pytest.fixture
def pipeline(host: Host) -> Any:
    return host.run("LoadPipeline", variant=TINY)[0]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max())


def test_without_a_pipeline_it_becomes_a_loader_and_itself(host: Host) -> None:
    node = host.nodes["Generate"]
    schema = node.define_schema()
    given = {i.id: i.default for i in schema.inputs if i.widget and not i.optional} | {"variant": TINY, "images": pictures(1)}
    out = node.execute(**given)
    loader, inner = out.expand.items()
    assert loader[1] == {
        "class_type": "MMAudioGraphLoadPipeline",
        "inputs": {"variant": TINY, "download": "no", "precision": "auto"},
    }
    assert inner[1] == {"class_type": "MMAudioGraphGenerate", "inputs": {**given, "pipeline": [loader[0], 0]}}
    assert out.args == ([inner[0], 0], [inner[0], 1], [inner[0], 2])
    assert out.ui is None
    assert schema.enable_expand
    known = {i.id for i in schema.inputs}
    assert set(inner[1]["inputs"]) <= known
    loading = {i.id for i in host.nodes["LoadPipeline"].define_schema().inputs}
    assert set(loader[1]["inputs"]) == loading


def test_expanding_does_not_load(host: Host) -> None:
    host.run("Generate", variant="large_44k_v2")
    assert host.fake("comfy.model_management").loaded == []


def test_text_alone_leaves_the_video_out(host: Host, pipeline: Any) -> None:
    out = host.run("Generate", pipeline=pipeline, prompt="rain", takes=2, **FAST)
    audio, video, picture = out.args
    assert audio["sample_rate"] == 16_000
    assert audio["waveform"].shape == (2, 1, 16_000)
    assert isinstance(video, host.fake("comfy_execution.graph_utils").ExecutionBlocker)
    assert video.message is None
    assert picture.shape[0] == 2
    assert len(out.ui["audio"]) == len(out.ui["images"]) == 2
    assert pipeline.encoders.loaded() == ("clip text",)


def test_nothing_at_all_is_eight_seconds(host: Host, pipeline: Any) -> None:
    out = host.run("Generate", pipeline=pipeline, steps=1, cfg=1.0)
    assert out[0]["waveform"].shape == (1, 1, 8 * 16_000)
    assert pipeline.encoders.loaded() == ()


def test_it_is_what_the_core_makes(host: Host, pipeline: Any) -> None:
    frames = (pictures(30) * 255).round().to(torch.uint8)
    out = host.run(
        "Generate", pipeline=pipeline, prompt="rain", negative_prompt="music", seed=4, images=frames / 255, fps=25.0, **FAST
    )
    core = mmaudio_core.load("tiny", device="cpu", dtype="float32")
    alone = core.generate(
        frames=frames.numpy(),
        fps=25,
        prompt="rain",
        negative_prompt="music",
        seed=4,
        duration_s=1.0,
        settings=SampleSettings(2),
    )
    assert close(out[0]["waveform"], alone.audio.samples)


def test_the_chain_of_nodes_makes_the_same(host: Host, pipeline: Any) -> None:
    model, vae, encoders = host.run("LoadVariant", variant=TINY).args
    seen = host.run("ExtractFeatures", encoders=encoders, images=pictures(30), fps=25.0, duration_s=1.0)[0]
    positive, negative = host.run("EncodePrompt", encoders=encoders, prompt="rain", negative_prompt="wind", features=seen).args
    start = host.run("EmptyLatent", model=model, features=seen)[0]
    latent = host.run("Sampler", model=model, positive=positive, negative=negative, latent=start, steps=2, seed=3, takes=2)[0]
    by_nodes = host.run("Decode", latent=latent, vae=vae)
    at_once = host.run(
        "Generate",
        pipeline=pipeline,
        prompt="rain",
        negative_prompt="wind",
        images=pictures(30),
        fps=25.0,
        seed=3,
        takes=2,
        **FAST,
    )
    assert close(by_nodes[0]["waveform"], at_once[0]["waveform"])
    assert close(by_nodes[1], at_once[2])


def test_a_single_image(host: Host, pipeline: Any) -> None:
    out = host.run("Generate", pipeline=pipeline, images=pictures(1), **FAST)
    assert isinstance(out[1], host.fake("comfy_execution.graph_utils").ExecutionBlocker)
    other = host.run("Generate", pipeline=pipeline, images=pictures(1, shift=20), **FAST)
    assert not close(out[0]["waveform"], other[0]["waveform"])
    assert pipeline.encoders.loaded() == ("clip image",)


def test_images_become_a_video(host: Host, pipeline: Any) -> None:
    out = host.run("Generate", pipeline=pipeline, images=pictures(50), fps=25.0, takes=2, **FAST)
    parts = out[1].get_components()
    assert torch.equal(parts.images, pictures(50))
    assert parts.frame_rate == 25
    assert parts.audio["waveform"].shape == (1, 1, 32_000)  # as long as the pictures; 1 s of sound, then silence
    assert torch.equal(parts.audio["waveform"][..., :16_000], out[0]["waveform"][:1])
    assert not parts.audio["waveform"][..., 16_000:].any()


def test_a_video_keeps_its_file(host: Host, pipeline: Any, tmp_path: Path) -> None:
    path = write_silent_video(iter((pictures(40) * 255).to(torch.uint8).numpy()), 25, tmp_path / "bar.mp4")
    out = host.run("Generate", pipeline=pipeline, video=host.file(path), steps=2, start_s=0.4)
    assert out[0]["waveform"].shape == (1, 1, round(1.2 * 16_000))
    written = out[1].get_stream_source()
    assert written != str(path)
    sound = load_sound(written)
    begin = round(0.39 * sound.sample_rate_hz)
    assert sound.samples[..., :begin].abs().max() < 0.05 * sound.samples.abs().max()
    assert host.run("Generate", pipeline=pipeline, video=(given := host.file(path)), original_sound="keep", **FAST)[1] is given


def test_a_video_that_cannot_be_written_costs_the_video_alone(
    host: Host, pipeline: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host.of("nodes.host.video"), "with_sound", full)
    with caplog.at_level(logging.WARNING, "mmaudio"):
        out = host.run("Generate", pipeline=pipeline, images=pictures(30), fps=25.0, steps=2)
    assert out[0]["waveform"].shape == (1, 1, round(1.2 * 16_000))
    assert isinstance(out[1], host.fake("comfy_execution.graph_utils").ExecutionBlocker)
    assert "could not be made: [Errno 28] No space left" in out[1].message
    assert "The sound was made, the video with it was not: [Errno 28] No space left" in caplog.text


def test_images_with_transparency_become_a_video_without(host: Host, pipeline: Any) -> None:
    clear = torch.cat((pictures(30), torch.zeros(30, *pictures(1).shape[1:3], 1)), dim=-1)
    out = host.run("Generate", pipeline=pipeline, images=clear, fps=25.0, **FAST)
    assert torch.equal(out[1].get_components().images, pictures(30))


def test_a_part_of_the_flow_network_is_never_unloaded_alone(host: Host, pipeline: Any) -> None:
    assert pipeline.flow.placed().patcher.partially_unload("cpu", 1000) == 0


def test_the_videos_own_sound_is_mixed(host: Host, pipeline: Any) -> None:
    video = host.components(pictures(30), 25, tone(1.2))
    out = host.run("Generate", pipeline=pipeline, video=video, steps=2, original_sound="mix")
    mixed = out[1].get_components().audio["waveform"]
    assert torch.allclose(mixed, out[0]["waveform"] + tone(1.2)["waveform"], atol=1e-4)


def test_features_are_encoded_once_for_many_prompts(host: Host, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    tower = host.of("mmaudio_core.features.synchformer").SynchformerVisual
    encode = tower.encode
    monkeypatch.setattr(tower, "encode", lambda self, *rest: runs.append(1) or encode(self, *rest))
    for prompt, seed in (("rain", 0), ("wind", 1), ("", 2)):
        host.run("Generate", pipeline=pipeline, images=pictures(30), fps=25.0, prompt=prompt, seed=seed, **FAST)
    assert len(runs) == 1


def test_the_embedded_model_says_what_it_knows(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmaudio"):
        host.run("LoadPipeline", variant=TINY)
    assert "SMALL MADE-UP WORLD" in caplog.text


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"images": pictures(20)}, "fps 0; set fps"),
        ({"images": pictures(0), "fps": 25.0}, "hold no frames"),
        ({"duration_s": 0.3}, r"at least 0\.64 s"),
    ],
    ids=["fps", "frames", "short"],
)
def test_unusable_inputs(host: Host, pipeline: Any, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        host.run("Generate", pipeline=pipeline, **inputs)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("wrong", [{"solver": "heun"}, {"original_sound": "loud"}, {"steps": 0}], ids=str)
def test_wrong_choices_cost_no_work(host: Host, pipeline: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"heun|loud|steps = 0"):
        host.run("Generate", pipeline=pipeline, images=pictures(30), fps=25.0, **wrong)
    assert pipeline.encoders.loaded() == ()


def test_parts_of_different_rates(host: Host) -> None:
    vae = write_part(host.tmp / "vae.safetensors", SPECS_44K["vae"])
    vocoder = write_part(host.tmp / "vocoder.safetensors", SPECS_44K["vocoder"])
    tiny = host.of("mmaudio_core.pipeline.files").EMBEDDED_FILE
    files = {"flow": tiny, "vae": vae, "vocoder": vocoder, "clip": tiny, "synchformer": tiny}
    with pytest.raises(ValueError, match="The VAE is a 44k one and the model needs 16k; use files of one rate"):
        host.run("Generate", pipeline=host.of("nodes.host.pipeline").Pipeline(files, "auto"), steps=1, duration_s=1.0)


def test_interrupting(host: Host, pipeline: Any) -> None:
    management, utils = host.fake("comfy.model_management"), host.fake("comfy.utils")
    update = utils.ProgressBar.update_absolute

    def stop_at_the_second_step(self: Any, value: int, total: int, preview: Any = None) -> None:
        update(self, value, total, preview)
        management.interrupted = (value, total) == (2, 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.ProgressBar, "update_absolute", stop_at_the_second_step)
        with pytest.raises(management.InterruptProcessingException):
            host.run("Generate", pipeline=pipeline, steps=5, duration_s=1.0)

"""A good citizen: interrupt, memory, caching, start time, lengths."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from typing import Any

import av
import pytest
import torch

from mmaudio_core.spec.model import FlowSpec

from .graphs import Graph, ksampler
from .server import Server
from .weights import write_flow

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(1200)]

OTHER = FlowSpec(20, 128, 2, joint_blocks=2, audio_blocks=2, v2=False, clip_dim=64, sync_dim=128, text_dim=64)


def text_chain(seed: int, steps: int = 4, sampler: str = "ours", seconds: float = 2.0) -> Graph:
    graph = Graph()
    loaded = graph.ours("LoadVariant")
    prompt = graph.ours("EncodePrompt", encoders=(loaded, 2), prompt="rain", negative_prompt="music")
    latent = (graph.ours("EmptyLatent", model=(loaded, 0), duration_s=seconds), 0)
    both = {"positive": (prompt, 0), "negative": (prompt, 1)}
    if sampler == "ours":
        node = graph.ours("Sampler", model=(loaded, 0), latent=latent, **both, seed=seed, steps=steps)
    else:
        node = ksampler(graph, (loaded, 0), prompt, latent, seed=seed, steps=steps)
    graph.ours("Decode", latent=(node, 0), vae=(loaded, 1))
    return graph


def process(server: Server) -> tuple[float, int]:
    """The server's resident MiB and the number of models that it holds."""
    graph = Graph()
    node = graph.add("StandInProcess")
    resident, models = server.run(graph.prompt)[node]["text"]
    return float(resident), int(models)


@pytest.mark.parametrize("sampler", ["ours", "ksampler", "generate"])
def test_interrupt_stops_within_a_step_and_the_next_run_works(server: Server, sampler: str) -> None:
    server.run(text_chain(1, sampler="ours").prompt)
    before, _ = process(server)
    if sampler == "generate":
        graph = Graph()
        graph.ours("Generate", prompt="rain", duration_s=8.0, steps=1000, seed=6)
    else:
        graph = text_chain(2, steps=1000, sampler=sampler, seconds=8.0)
    prompt_id = server.queue(graph.prompt)
    time.sleep(4.0)  # long enough to be sampling, far from the end
    assert server.get(f"/history/{prompt_id}") == {}, "the run ended before it could be interrupted"
    asked = time.monotonic()
    server.post("/interrupt")
    entry = server.wait(prompt_id, 30)
    took = time.monotonic() - asked
    names = [name for name, _ in entry["status"]["messages"]]
    after, _ = process(server)
    print(f"{sampler}: stopped {took:.2f} s after the request; {before:.0f} -> {after:.0f} MiB")
    assert "execution_interrupted" in names
    assert took < 1.5
    assert after < before + 60
    assert server.run(text_chain(3).prompt)


def test_two_variants_in_one_graph_give_what_each_gives_alone(server: Server) -> None:
    path = server.base / "models/mmaudio/made_up_other.safetensors"
    write_flow(path, OTHER)
    results: dict[str, torch.Tensor] = {}
    for wanted in (("tiny",), ("other",), ("tiny", "other")):
        graph = Graph()
        encoders = (graph.ours("LoadEncoders"), 0)
        prompt = graph.ours("EncodePrompt", encoders=encoders, prompt="rain")
        for name in wanted:
            files = {"tiny": {}, "other": {"model_file": path.name}}[name]
            model = (graph.ours("LoadModel", **files), 0)
            latent = (graph.ours("EmptyLatent", model=model), 0)
            node = graph.ours("Sampler", model=model, positive=(prompt, 0), negative=(prompt, 1), latent=latent, seed=4)
            graph.dump((node, 0), f"{len(wanted)}_{name}")
        server.run(graph.prompt)
        for name in wanted:
            results[f"{len(wanted)}_{name}"] = torch.load(server.base / f"output/{len(wanted)}_{name}.pt")["samples"]
    assert torch.equal(results["1_tiny"], results["2_tiny"])
    assert torch.equal(results["1_other"], results["2_other"])
    assert not torch.allclose(results["1_tiny"], results["1_other"], atol=0.1)


def test_a_replaced_file_is_loaded_anew(server: Server) -> None:
    """The same graph, another file under the same name; and the same file again comes from the host's cache."""
    path = server.base / "models/mmaudio/made_up_replaced.safetensors"
    results, cached = [], []
    for seed in ("a", "a", "b"):
        if not path.exists() or seed == "b":
            write_flow(path, OTHER, seed)
        graph = Graph()
        model = (graph.ours("LoadModel", model_file=path.name), 0)
        prompt = graph.ours("EncodePrompt", encoders=(graph.ours("LoadEncoders"), 0), prompt="rain")
        latent = (graph.ours("EmptyLatent", model=model), 0)
        node = graph.ours("Sampler", model=model, positive=(prompt, 0), negative=(prompt, 1), latent=latent, seed=4)
        graph.dump((node, 0), "replaced")
        entry = server.wait(server.queue(graph.prompt))
        assert entry["status"]["status_str"] == "success"
        cached.append(next(values["nodes"] for name, values in entry["status"]["messages"] if name == "execution_cached"))
        results.append(torch.load(server.base / "output/replaced.pt")["samples"])
    assert [model[0] in nodes for nodes in cached] == [False, True, False]
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2], atol=0.1)


def test_memory_stays_flat_over_fifty_runs(server: Server) -> None:
    for seed in range(10):
        server.run(text_chain(100 + seed, sampler="ours" if seed % 2 else "ksampler").prompt)
    before, models = process(server)
    waiting = [server.queue(text_chain(200 + seed, sampler="ours" if seed % 2 else "ksampler").prompt) for seed in range(50)]
    for prompt_id in waiting:
        assert server.wait(prompt_id)["status"]["status_str"] == "success"
    after, models_after = process(server)
    print(f"50 runs: {before:.0f} -> {after:.0f} MiB, models held {models} -> {models_after}")
    assert after < before + 40
    assert models_after <= models + 1


def test_a_changed_prompt_does_not_encode_the_video_again(server: Server) -> None:
    """By the host's cache for the node, and by the content of the frames where the node itself runs again."""
    logs = []
    for text, size in (("rain", 64), ("wind", 64)):
        graph = Graph()
        frames = graph.add("StandInVideoModel", fps=25.0, frames=50, size=size)
        loaded = graph.ours("LoadVariant")
        features = graph.ours("ExtractFeatures", encoders=(loaded, 2), images=(frames, 0), fps=25.0)
        prompt = graph.ours("EncodePrompt", encoders=(loaded, 2), prompt=text, features=(features, 0))
        latent = (graph.ours("EmptyLatent", model=(loaded, 0), features=(features, 0)), 0)
        graph.dump(
            (graph.ours("Sampler", model=(loaded, 0), positive=(prompt, 0), negative=(prompt, 1), latent=latent), 0), "x"
        )
        entry = server.wait(server.queue(graph.prompt))
        cached = next(values["nodes"] for name, values in entry["status"]["messages"] if name == "execution_cached")
        logs.append((features, cached))
    assert logs[0][0] not in logs[0][1]
    assert logs[1][0] in logs[1][1], "the features were made again for another prompt"


@pytest.mark.parametrize("way", ["steps", "generate"])
def test_video_model_to_video_with_sound(server: Server, way: str) -> None:
    """81 frames at 16 fps become a VIDEO with sound of 81 / 16 s, to the millisecond."""
    graph = Graph()
    frames = (graph.add("StandInVideoModel", fps=16.0, frames=81, size=96), 0)
    if way == "generate":
        video = (graph.ours("Generate", images=frames, fps=16.0, prompt="rain"), 1)
    else:
        loaded = graph.ours("LoadVariant")
        features = graph.ours("ExtractFeatures", encoders=(loaded, 2), images=frames, fps=16.0)
        prompt = graph.ours("EncodePrompt", encoders=(loaded, 2), features=(features, 0))
        latent = (graph.ours("EmptyLatent", model=(loaded, 0), features=(features, 0)), 0)
        sampled = graph.ours("Sampler", model=(loaded, 0), positive=(prompt, 0), negative=(prompt, 1), latent=latent)
        decoded = graph.ours("Decode", latent=(sampled, 0), vae=(loaded, 1))
        graph.dump((decoded, 0), "audio")
        silent = (graph.add("CreateVideo", images=frames, fps=16.0), 0)
        video = (graph.ours("CombineVideoAudio", video=silent, audio=(decoded, 0)), 0)
    saved = graph.add("SaveVideo", video=video, filename_prefix="chain", format="auto", codec="auto")
    result = server.file(server.run(graph.prompt)[saved]["images"][0])
    seconds = 81 / 16
    if way == "steps":
        audio = torch.load(server.base / "output/audio.pt")
        assert audio["sample_rate"] == 16_000
        assert audio["waveform"].shape[-1] == round(seconds * 16_000)
    with av.open(str(result)) as container:
        video_stream, sound = container.streams.video[0], container.streams.audio[0]
        count = sum(1 for _ in container.decode(video_stream))
        video_s = float(Fraction(count) / video_stream.average_rate)
        sound_s = float(sound.duration * sound.time_base)
    print(f"{way}: {count} frames, {video_s:.4f} s of video, {sound_s:.4f} s of sound; wanted {seconds:.4f} s")
    assert count == 81
    assert abs(video_s - seconds) < 0.001
    assert abs(sound_s - seconds) < 0.001


def test_native_audio_nodes(server: Server) -> None:
    """VAEEncodeAudio and VAEDecodeAudio on our VAE: 44.1 kHz on every version, and nothing shifted."""
    graph = text_chain(7)
    loaded, latent = "1", next(node for node, value in graph.prompt.items() if value["class_type"].endswith("Sampler"))
    native = graph.add("VAEDecodeAudio", samples=(latent, 0), vae=(loaded, 1))
    graph.dump((native, 0), "native")
    ours = graph.ours("Decode", latent=(latent, 0), vae=(loaded, 1))
    graph.dump((ours, 0), "ours")
    graph.dump((graph.add("VAEEncodeAudio", audio=(ours, 0), vae=(loaded, 1)), 0), "encoded_native")
    graph.dump((graph.ours("EncodeAudio", audio=(ours, 0), vae=(loaded, 1)), 0), "encoded_ours")
    server.run(graph.prompt)
    read: dict[str, Any] = {
        name: torch.load(server.base / f"output/{name}.pt") for name in ("native", "ours", "encoded_native", "encoded_ours")
    }
    assert read["native"]["sample_rate"] == 44_100
    assert read["ours"]["sample_rate"] == 16_000
    assert read["ours"]["waveform"].shape[-1] == 32_000
    seconds = read["native"]["waveform"].shape[-1] / 44_100
    assert abs(seconds - 63 * 512 / 16_000) < 0.001, "63 tokens of 32 ms"
    a, b = read["encoded_native"]["samples"], read["encoded_ours"]["samples"]
    assert a.shape[:2] == b.shape[:2] == (1, 20)
    assert abs(a.shape[2] - b.shape[2]) <= 1
    inner = slice(4, min(a.shape[2], b.shape[2]) - 4)
    error = float((a[..., inner] - b[..., inner]).norm() / b[..., inner].norm())
    print(f"native encode against ours: relative difference {error:.3f}")
    assert error < 0.2, "resampling to 44.1 kHz and back changes little"


def test_start_time_in_comfyuis_own_list(server: Server) -> None:
    found = re.search(r"([\d.]+) seconds: .*mmaudio-graph", server.log)
    assert found, "ComfyUI does not list the pack"
    print(f"import time: {found.group(0).split(':')[0]}")
    assert float(found.group(1)) < 0.3
    assert "IMPORT FAILED" not in server.log

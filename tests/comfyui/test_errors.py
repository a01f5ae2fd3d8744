"""Each mistake that users make, as the server reports it: one sentence, on the right node, as JSON."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save_file

from mmaudio_core.spec.model import FlowSpec, VAESpec, VocoderSpec

from .graphs import Graph, ksampler
from .server import NodeError, Server
from .weights import made_up, write_flow, write_lora

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(1200)]

SMALL_44K = FlowSpec(40, 64, 1, joint_blocks=2, audio_blocks=1, v2=True, clip_dim=64, sync_dim=128, text_dim=64)
WIDER = FlowSpec(20, 192, 3, joint_blocks=2, audio_blocks=1, v2=True, clip_dim=64, sync_dim=128, text_dim=64)


def failing(server: Server, graph: Graph) -> NodeError:
    with pytest.raises(NodeError) as caught:
        server.run(graph.prompt)
    error = caught.value
    shown = {"node_id": error.node_id, "node_type": error.node_type, "exception_type": error.kind}
    print("\n" + json.dumps({**shown, "exception_message": error.message}, indent=1))
    assert "\n" not in error.message, "one sentence"
    assert "/mmaudio-graph." not in error.kind, "the type's name shows no path"
    return error


def chain(graph: Graph, model: tuple[str, int], **latent: object) -> tuple[str, str]:
    prompt = graph.ours("EncodePrompt", encoders=(graph.ours("LoadEncoders"), 0), prompt="rain")
    return prompt, graph.ours("EmptyLatent", model=model, **latent)


def test_wrong_file_in_a_loader(server: Server) -> None:
    path = server.base / "models/mmaudio/only_a_vae.safetensors"
    save_file(made_up(VAESpec(mel_bins=80, latent_dim=20, width=16)), path)
    graph = Graph()
    model = graph.ours("LoadModel", model_file=path.name)
    chain(graph, (model, 0))
    graph.dump((model, 0), "x")
    options = server.get("/object_info/MMAudioGraphLoadModel")["MMAudioGraphLoadModel"]["input"]["required"]["model_file"]
    assert path.name not in json.dumps(options), "the list holds a file that does not fit"
    error = failing(server, graph)
    if error.node_type == "refused":  # newer hosts check the list themselves
        assert "value_not_in_list" in error.message
    else:
        assert error.node_type == "MMAudioGraphLoadModel"
        assert "mel VAE" in error.message
        assert "flow network" in error.message


def test_16k_vae_with_a_44k_model(server: Server) -> None:
    path = server.base / "models/mmaudio/small_44k_made_up.safetensors"
    write_flow(path, SMALL_44K)
    for decoder in ("ours", "native"):
        graph = Graph()
        model = (graph.ours("LoadModel", model_file=path.name), 0)
        prompt, latent = chain(graph, model)
        sampled = graph.ours("Sampler", model=model, positive=(prompt, 0), negative=(prompt, 1), latent=(latent, 0))
        vae = (graph.ours("LoadVAE"), 0)
        if decoder == "ours":
            node = graph.ours("Decode", latent=(sampled, 0), vae=vae)
        else:
            node = graph.add("VAEDecodeAudio", samples=(sampled, 0), vae=vae)
            graph.dump((node, 0), "x")
        error = failing(server, graph)
        assert error.node_id == node
        assert "40" in error.message
        assert "16k" in error.message


def test_vae_and_vocoder_of_two_rates(server: Server) -> None:
    path = server.base / "models/mmaudio/vocoder_44k_made_up.safetensors"
    save_file(made_up(VocoderSpec(128, 64, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4))), path)
    graph = Graph()
    node = graph.ours("LoadVAE", vocoder_file=path.name)
    graph.dump((node, 0), "x")
    error = failing(server, graph)
    assert error.node_id == node
    assert "16k" in error.message
    assert "44k" in error.message


@pytest.mark.parametrize("sampler", ["ours", "ksampler"])
def test_features_of_another_duration(server: Server, sampler: str) -> None:
    graph = Graph()
    loaded = graph.ours("LoadVariant")
    frames = (graph.add("StandInVideoModel", fps=25.0, frames=75, size=64), 0)
    features = (graph.ours("ExtractFeatures", encoders=(loaded, 2), images=frames, fps=25.0), 0)
    prompt = graph.ours("EncodePrompt", encoders=(loaded, 2), features=features)
    latent = (graph.ours("EmptyLatent", model=(loaded, 0), duration_s=2.0), 0)
    if sampler == "ours":
        node = graph.ours("Sampler", model=(loaded, 0), positive=(prompt, 0), negative=(prompt, 1), latent=latent)
    else:
        node = ksampler(graph, (loaded, 0), prompt, latent)
    graph.dump((node, 0), "x")
    error = failing(server, graph)
    assert error.node_id == node
    assert "3 s" in error.message
    assert "2 s" in error.message


def test_fps_0(server: Server) -> None:
    for name in ("ExtractFeatures", "Generate"):
        graph = Graph()
        frames = (graph.add("StandInVideoModel", fps=25.0, frames=75, size=64), 0)
        encoders = {"encoders": (graph.ours("LoadEncoders"), 0)} if name == "ExtractFeatures" else {}
        node = graph.ours(name, images=frames, **encoders)
        graph.dump((node, 0), "x")
        error = failing(server, graph)
        assert error.node_id == node
        assert "fps" in error.message


def test_no_frames(server: Server) -> None:
    graph = Graph()
    node = graph.ours(
        "ExtractFeatures", encoders=(graph.ours("LoadEncoders"), 0), images=(graph.add("StandInNoFrames"), 0), fps=25.0
    )
    graph.dump((node, 0), "x")
    error = failing(server, graph)
    assert error.node_id == node
    assert "no frames" in error.message


def test_lora_of_another_model(server: Server) -> None:
    loras = server.base / "models/loras"
    write_lora(loras / "of_a_wider_one.safetensors", made_up(WIDER))
    write_lora(loras / "of_another.safetensors", {"joint_blocks.0.foreign.weight": made_up(WIDER)["clip_cond_proj.weight"]})
    for name, word in (("of_a_wider_one", "variant"), ("of_another", "model")):
        graph = Graph()
        node = graph.ours("LoadLoRA", model=(graph.ours("LoadModel"), 0), lora_file=f"{name}.safetensors", strength=0.7)
        graph.dump((node, 0), "x")
        error = failing(server, graph)
        assert error.node_id == node
        assert f"another {word}" in error.message


def test_a_model_or_vae_that_is_not_ours(server: Server) -> None:
    graph = Graph()
    loaded = graph.ours("LoadVariant")
    prompt, latent = chain(graph, (loaded, 0))
    zeroed = graph.add("ConditioningZeroOut", conditioning=(prompt, 0))
    joined = graph.add("ConditioningConcat", conditioning_to=(zeroed, 0), conditioning_from=(prompt, 0))
    node = ksampler(graph, (loaded, 0), prompt, (latent, 0))
    graph.prompt[node]["inputs"]["positive"] = [joined, 0]
    graph.dump((node, 0), "x")
    error = failing(server, graph)
    assert error.node_id == node
    assert "ConditioningConcat" in error.message
    other = Graph()
    empty = other.add("EmptyLatentAudio", seconds=4.0, batch_size=1)
    node = other.ours("Decode", latent=(empty, 0), vae=(other.ours("LoadVAE"), 0))
    error = failing(server, other)
    assert error.node_id == node
    assert "64" in error.message


def test_out_of_memory_says_what_to_change(server: Server) -> None:
    graph = Graph()
    loaded = graph.ours("LoadVariant")
    full = (graph.add("StandInFull", model=(loaded, 0)), 0)
    prompt, latent = chain(graph, (loaded, 0))
    node = graph.ours("Sampler", model=full, positive=(prompt, 0), negative=(prompt, 1), latent=(latent, 0))
    graph.dump((node, 0), "x")
    with pytest.raises(NodeError) as caught:
        server.run(graph.prompt)
    error = caught.value
    print("\n" + json.dumps({"node_id": error.node_id, "exception_type": error.kind, "exception_message": error.message}))
    assert error.node_id == node
    assert error.kind.endswith("OutOfMemoryError"), "the host unloads its models for this type only"
    assert "smaller variant" in error.message
    assert server.run(works().prompt)


def works() -> Graph:
    graph = Graph()
    graph.ours("Generate", prompt="rain", duration_s=1.0, steps=2)
    return graph


def test_missing_published_files_are_named(server: Server) -> None:
    graph = Graph()
    node = graph.ours("LoadVariant", variant="large_44k_v2")
    graph.dump((node, 0), "x")
    error = failing(server, graph)
    assert error.node_id == node
    assert "mmaudio_large_44k_v2.pth" in error.message
    assert "download" in error.message
    assert "CC-BY-NC" in error.message

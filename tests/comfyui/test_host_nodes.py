"""What users already know works on our MODEL: samplers, schedulers, shifts, saving, compiling; and their folders and habits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.spec.model import VocoderSpec

from .graphs import TINY, Graph, ksampler
from .server import NodeError, Server
from .weights import made_up

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(1200)]


def loaded(graph: Graph) -> tuple[tuple[str, int], str, tuple[str, int]]:
    model = (graph.ours("LoadModel"), 0)
    prompt = graph.ours("EncodePrompt", encoders=(graph.ours("LoadEncoders"), 0), prompt="rain", negative_prompt="wind")
    return model, prompt, (graph.ours("EmptyLatent", model=model, duration_s=1.0), 0)


def latents(server: Server, graph: Graph, nodes: dict[str, str]) -> dict[str, torch.Tensor]:
    for name, node in nodes.items():
        graph.dump((node, 0), name)
    server.run(graph.prompt, timeout_s=900)
    return {name: torch.load(server.base / f"output/{name}.pt")["samples"] for name in nodes}


def options(server: Server, node: str, name: str) -> list[str]:
    described: Any = server.get(f"/object_info/{node}")[node]["input"]["required"][name]
    return list(described[0] if isinstance(described[0], list) else described[1]["options"])


@pytest.mark.parametrize("kind", ["sampler_name", "scheduler"])
def test_every_sampler_and_scheduler_runs(server: Server, kind: str) -> None:
    names = options(server, "KSampler", kind)
    graph = Graph()
    model, prompt, latent = loaded(graph)
    nodes = {f"{kind}_{name}": ksampler(graph, model, prompt, latent, steps=4, **{kind: name}) for name in names}
    for name, samples in latents(server, graph, nodes).items():
        assert torch.isfinite(samples).all(), name
        assert samples.shape == (1, 20, 32), name
    print(f"{len(names)} of {kind}")


def test_shifts_of_one_change_nothing(server: Server) -> None:
    """Nodes that replace the sampling object scale sigma differently; the network must see the same time."""
    graph = Graph()
    model, prompt, latent = loaded(graph)
    nodes = {"plain": ksampler(graph, model, prompt, latent, steps=25)}
    for name in ("ModelSamplingSD3", "ModelSamplingAuraFlow"):
        nodes[name] = ksampler(graph, (graph.add(name, model=model, shift=1.0), 0), prompt, latent, steps=25)
    nodes["shifted"] = ksampler(graph, (graph.add("ModelSamplingSD3", model=model, shift=3.0), 0), prompt, latent, steps=25)
    got = latents(server, graph, nodes)
    for name in ("ModelSamplingSD3", "ModelSamplingAuraFlow"):
        assert torch.allclose(got[name], got["plain"], atol=1e-4), name
    assert not torch.allclose(got["shifted"], got["plain"], atol=1e-2)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch's inductor needs a C++ compiler on a CPU; there is no g++")
def test_compiled_gives_the_same(server: Server) -> None:
    graph = Graph()
    model, prompt, latent = loaded(graph)
    nodes = {"plain": ksampler(graph, model, prompt, latent)}
    compiled = graph.add("TorchCompileModel", model=model, backend="inductor")
    nodes["compiled"] = ksampler(graph, (compiled, 0), prompt, latent)
    got = latents(server, graph, nodes)
    assert torch.allclose(got["compiled"], got["plain"], atol=1e-3)


def test_a_saved_model_loads_again(server: Server) -> None:
    """ModelSave of ComfyUI writes a file that our loader recognises and that sounds the same."""
    graph = Graph()
    model, prompt, latent = loaded(graph)
    graph.add("ModelSave", model=model, filename_prefix="saved_model")
    before = latents(server, graph, {"before": ksampler(graph, model, prompt, latent)})["before"]
    written = next((server.base / "output").glob("saved_model*.safetensors"))
    shutil.move(written, server.base / "models/mmaudio/saved_model.safetensors")
    assert "saved_model.safetensors" in options(server, "MMAudioGraphLoadModel", "model_file")
    again = Graph()
    model = (again.ours("LoadModel", model_file="saved_model.safetensors"), 0)
    prompt = again.ours("EncodePrompt", encoders=(again.ours("LoadEncoders"), 0), prompt="rain", negative_prompt="wind")
    latent = (again.ours("EmptyLatent", model=model, duration_s=1.0), 0)
    after = latents(server, again, {"after": ksampler(again, model, prompt, latent)})["after"]
    assert torch.allclose(before, after, atol=1e-4)


def test_folders_of_extra_model_paths_and_lists_by_content(comfy: tuple[Path, str], tmp_path: Path) -> None:
    extra = tmp_path / "elsewhere"
    extra.mkdir()
    shutil.copy(EMBEDDED_FILE, extra / "everything.safetensors")
    save_file(made_up(VocoderSpec(80, 64, (4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4))), extra / "misnamed_flow.safetensors")
    (extra / "broken.safetensors").write_bytes(b"not weights")
    (tmp_path / "paths.yaml").write_text(f"mine:\n  mmaudio: {extra}\n")
    base = tmp_path / "base"
    (base / "models/mmaudio").mkdir(parents=True)
    shutil.copy(EMBEDDED_FILE, base / "models/mmaudio/here.safetensors")
    server = Server(*comfy, base, options=("--extra-model-paths-config", str(tmp_path / "paths.yaml"))).start()
    try:
        flows = options(server, "MMAudioGraphLoadModel", "model_file")
        vocoders = options(server, "MMAudioGraphLoadVAE", "vocoder_file")
        assert flows == ["everything.safetensors", "here.safetensors", TINY]
        assert vocoders == ["everything.safetensors", "here.safetensors", "misnamed_flow.safetensors", TINY]
        graph = Graph()
        node = graph.ours("LoadModel", model_file="everything.safetensors")
        latent = graph.ours("EmptyLatent", model=(node, 0))
        graph.dump((latent, 0), "x")
        server.run(graph.prompt)
    finally:
        server.stop()


def test_broken_packages_are_named_when_a_node_needs_them(comfy: tuple[Path, str], tmp_path: Path) -> None:
    """The pack registers with a broken open_clip, runs what does not need it, and says what to install where it does."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "open_clip.py").write_text("raise OSError('this open_clip is broken')")
    server = Server(*comfy, tmp_path / "base", environment={"PYTHONPATH": str(broken)}).start()
    try:
        works = Graph()
        works.ours("Generate", duration_s=1.0, steps=2)
        server.run(works.prompt)
        fails = Graph()
        node = fails.ours("Generate", prompt="rain", duration_s=1.0, steps=2)
        with pytest.raises(NodeError, match="open_clip_torch") as caught:
            server.run(fails.prompt)
        print(json.dumps({"node_id": caught.value.node_id, "exception_message": caught.value.message}))
        assert caught.value.node_id == node
    finally:
        server.stop()


def test_a_download_that_cannot_be_made_says_so(server: Server) -> None:
    """The server of these tests is offline."""
    graph = Graph()
    node = graph.ours("LoadVariant", variant="small_16k", download="yes")
    graph.dump((node, 0), "x")
    with pytest.raises(NodeError) as caught:
        server.run(graph.prompt)
    print(json.dumps({"node_id": caught.value.node_id, "exception_message": caught.value.message}))
    assert caught.value.node_id == node
    assert "mmaudio_small_16k.pth" in caught.value.message
    assert not list((server.base / "models/mmaudio").glob("mmaudio_small_16k*"))

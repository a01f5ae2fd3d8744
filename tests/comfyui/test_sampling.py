"""The native MODEL in the real ComfyUI against the core, on the full small_16k network with made-up weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.pipeline.sample import Known, SampleSettings, sample_latents
from mmaudio_core.sampling.guidance import guided
from mmaudio_core.sampling.noise import draw_noise
from mmaudio_core.sampling.solvers import euler
from mmaudio_core.spec.model import VARIANTS
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.types import Features
from mmaudio_core.weights.build import load_part

from .graphs import Graph, custom_sampling, ksampler
from .server import Server
from .weights import write_flow, write_lora

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(1200)]

SPEC = VARIANTS["small_16k"]
SECONDS, STEPS, FEW_STEPS, CFG, SEED = 1.5, 25, 6, 4.5, 77
LORA_STRENGTH = 0.7


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def files(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network, the network with the LoRA merged, and the LoRA."""
    models, loras = server.base / "models/mmaudio", server.base / "models/loras"
    paths = {"flow": models / "made_up_small_16k.safetensors", "lora": loras / "made_up_lora.safetensors"}
    weights = write_flow(paths["flow"], SPEC)
    merged = write_lora(paths["lora"], weights, strength=LORA_STRENGTH)
    paths["merged"] = tmp_path_factory.mktemp("merged") / "merged.safetensors"
    from safetensors.torch import save_file

    save_file(merged, paths["merged"])
    return paths


@pytest.fixture(scope="module")
def core(files: dict[str, Path]) -> FlowNetwork:
    return load_part(files["flow"], "flow")[0]  # type: ignore[return-value]


def conditions(seed: int = 5) -> tuple[Features, Features]:
    """What StandInConditioning makes of the same seed."""
    lengths, generator = sequence_lengths(SECONDS, SPEC.audio), torch.Generator().manual_seed(seed)

    def rows(tokens: int, width: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(1, tokens, width, generator=generator), dim=-1)

    clip, sync = rows(lengths.clip, SPEC.clip_dim), rows(lengths.sync, SPEC.sync_dim)
    text, against = (rows(SPEC.text_tokens, SPEC.text_dim) for _ in range(2))
    return Features(clip, sync, text, SECONDS), Features(text=against, duration_s=SECONDS)


def core_latents(net: FlowNetwork, noise: Tensor, steps: int = STEPS) -> Tensor:
    """The core's Euler steps from ``noise`` (B, L, C), as (B, C, L)."""
    lengths, (positive, negative) = sequence_lengths(SECONDS, SPEC.audio), conditions()
    with torch.no_grad():
        batch = noise.shape[0]
        velocity = guided(net.velocity, net.conditions(positive, lengths, batch), net.conditions(negative, lengths, batch), CFG)
        return net.unnormalize(euler(velocity, noise, steps)).transpose(1, 2)


def start(files: dict[str, Path], batch: int = 1, lora: str = "") -> tuple[Graph, tuple[str, int], str, tuple[str, int]]:
    graph = Graph()
    model = (graph.ours("LoadModel", model_file=files["flow"].name, precision="fp32"), 0)
    latent = (graph.ours("EmptyLatent", model=model, duration_s=SECONDS, batch_size=batch), 0)
    if lora == "native":
        model = (graph.add("LoraLoaderModelOnly", model=model, lora_name=files["lora"].name, strength_model=LORA_STRENGTH), 0)
    elif lora == "ours":
        model = (graph.ours("LoadLoRA", model=model, lora_file=files["lora"].name, strength=LORA_STRENGTH), 0)
    return graph, model, graph.add("StandInConditioning", model=model, seed=5, duration_s=SECONDS), latent


def run(server: Server, graph: Graph, node: str) -> dict[str, Any]:
    graph.dump((node, 0), "latent")
    server.run(graph.prompt, timeout_s=600)
    return torch.load(server.base / "output/latent.pt")


def comfy_noise(seed: int, batch: int = 1) -> Tensor:
    """ComfyUI's own noise for a latent of this size, as (B, L, C)."""
    tokens = sequence_lengths(SECONDS, SPEC.audio).latent
    noise = torch.randn(batch, SPEC.latent_dim, tokens, generator=torch.Generator().manual_seed(seed))
    return noise.transpose(1, 2)


@pytest.mark.parametrize("lora", ["", "native", "ours"])
def test_ksampler_equals_the_core(server: Server, files: dict[str, Path], core: FlowNetwork, lora: str) -> None:
    """euler on linear sigmas to 1e-4; a LoRA at 0.7 equals merged weights."""
    graph, model, conditioning, latent = start(files, lora=lora)
    node = ksampler(graph, model, conditioning, latent, seed=SEED, steps=STEPS, cfg=CFG)
    got = run(server, graph, node)
    plain = core_latents(core, comfy_noise(SEED))
    net: Any = load_part(files["merged"], "flow")[0] if lora else core
    wanted = core_latents(net, comfy_noise(SEED))
    error = relative(got["samples"], wanted)
    print(f"KSampler {lora or 'without'} LoRA: relative error {error:.1e}; LoRA changes {relative(wanted, plain):.2f}")
    assert error < 1e-4
    if lora:
        assert relative(wanted, plain) > 0.01, "the LoRA changes nothing"
    assert got["mmaudio_duration_s"] == SECONDS


@pytest.mark.parametrize("kind", ["ours", "custom"])
def test_batch_of_three_equals_three_singles(server: Server, files: dict[str, Path], core: FlowNetwork, kind: str) -> None:
    """Our sampler and SamplerCustomAdvanced with our noise: the same latents, in a batch or alone, as the core's."""
    samples = []
    for batch, seed in ((3, SEED), (1, SEED), (1, SEED + 1), (1, SEED + 2)):
        graph, model, conditioning, latent = start(files, batch)
        if kind == "ours":
            node = graph.ours(
                "Sampler",
                model=model,
                positive=(conditioning, 0),
                negative=(conditioning, 1),
                latent=latent,
                **{"seed": seed, "steps": FEW_STEPS, "cfg": CFG},
            )
        else:
            node = custom_sampling(graph, model, conditioning, latent, seed=seed, steps=FEW_STEPS, cfg=CFG)
        samples.append(run(server, graph, node)["samples"])
    tokens = samples[0].shape[2]
    wanted = core_latents(core, draw_noise([SEED, SEED + 1, SEED + 2], tokens, SPEC.latent_dim), FEW_STEPS)
    alone = relative(samples[0], torch.cat(samples[1:]))
    against_core = relative(samples[0], wanted)
    print(f"{kind}: batch against singles {alone:.1e}, against the core {against_core:.1e}")
    assert alone < 1e-4
    assert against_core < 1e-4


@pytest.mark.parametrize("kind", ["ours", "ksampler", "custom"])
def test_a_mask_keeps_its_part(server: Server, files: dict[str, Path], core: FlowNetwork, kind: str) -> None:
    """Continuation: what is kept stays to 1e-5, the rest is made anew and joins it as in the core."""
    graph, model, conditioning, latent = start(files)
    first = custom_sampling(graph, model, conditioning, latent, seed=3, steps=4, cfg=CFG)
    graph.dump((first, 0), "first")
    masked = (graph.ours("RegenerateSeconds", latent=(first, 0), start_s=0.8, end_s=0.0), 0)
    both = {"positive": (conditioning, 0), "negative": (conditioning, 1)}
    if kind == "ours":
        node = graph.ours("Sampler", model=model, latent=masked, **both, seed=SEED, steps=FEW_STEPS, cfg=CFG)
    elif kind == "ksampler":
        node = ksampler(graph, model, conditioning, masked, seed=SEED, steps=FEW_STEPS, cfg=CFG)
    else:
        node = custom_sampling(graph, model, conditioning, masked, seed=SEED, steps=FEW_STEPS, cfg=CFG)
    after = run(server, graph, node)["samples"]
    before = torch.load(server.base / "output/first.pt")["samples"]
    keep = int(0.8 * SPEC.audio.latent_rate_hz)
    kept = relative(after[..., :keep], before[..., :keep])
    anew = relative(after[..., keep + 1 :], before[..., keep + 1 :])
    print(f"{kind}: kept part {kept:.1e}, new part {anew:.2f}")
    assert kept < 1e-5
    assert anew > 0.1
    if kind != "ksampler":  # its noise is another
        positive, negative = conditions()
        mask = torch.ones(1, before.shape[2], 1)
        mask[:, :keep] = 0
        known = Known(before.transpose(1, 2), mask)
        wanted = sample_latents(
            core, positive, SECONDS, [SEED], negative.text, SampleSettings(FEW_STEPS, CFG), known=known
        ).tokens.transpose(1, 2)
        assert relative(after, wanted) < 1e-4


def test_partial_denoise_stays_near(server: Server, files: dict[str, Path]) -> None:
    """denoise 0.2 varies the sound less than denoise 0.9, on KSampler and on ours."""
    for kind in ("ours", "ksampler"):
        changes = []
        for denoise in (0.2, 0.9):
            graph, model, conditioning, latent = start(files)
            first = custom_sampling(graph, model, conditioning, latent, seed=3, steps=4, cfg=CFG)
            graph.dump((first, 0), "first")
            if kind == "ours":
                both = {"positive": (conditioning, 0), "negative": (conditioning, 1)}
                node = graph.ours(
                    "Sampler", model=model, latent=(first, 0), **both, seed=SEED, steps=6, cfg=CFG, denoise=denoise
                )
            else:
                node = ksampler(graph, model, conditioning, (first, 0), seed=SEED, steps=6, cfg=CFG, denoise=denoise)
            after = run(server, graph, node)["samples"]
            changes.append(relative(after, torch.load(server.base / "output/first.pt")["samples"]))
        assert 0 < changes[0] < changes[1], f"{kind}: {changes}"

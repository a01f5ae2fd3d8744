"""MMAudio: Sampler is the core's sampler, and ComfyUI's own sampling on the same MODEL gives the same."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mmaudio_core
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.types import Features

from .host import TINY, Host
from .made_up import SPECS_44K, pictures, write_part

STEPS, CFG = 4, 4.5


@pytest.fixture(scope="module")
def core() -> Any:
    """The same weights outside of the host."""
    return mmaudio_core.load("tiny", device="cpu", dtype="float32")


@pytest.fixture
def model(host: Host) -> Any:
    return host.run("LoadModel", model_file=TINY)[0]


def features(host: Host, text: bool = True, duration_s: float | None = 2.0) -> tuple[Any, Any]:
    """Positive and negative features as the pack's values."""
    made = torch.Generator().manual_seed(5)
    kind = host.of("mmaudio_core.types").Features
    clip, sync, words = (0.1 * torch.randn(1, n, w, generator=made) for n, w in ((16, 64), (56, 128), (77, 64)))
    return kind(clip, sync, words if text else None, duration_s), kind(text=words.flip(1) if text else None)


def prompts(host: Host, **given: Any) -> dict[str, Any]:
    pack = host.of("nodes.host.conditioning").pack
    positive, negative = features(host, **given)
    return {"positive": pack(positive, 77, 64), "negative": pack(negative, 77, 64)}


def latent(host: Host, model: Any, batch: int = 1, duration_s: float = 2.0) -> dict[str, Any]:
    return host.run("EmptyLatent", model=model, duration_s=duration_s, batch_size=batch)[0]


def sampled(host: Host, model: Any, start: Any, **inputs: Any) -> torch.Tensor:
    inputs = {**prompts(host), "steps": STEPS, "cfg": CFG, **inputs}
    return host.run("Sampler", model=model, latent=start, **inputs)[0]["samples"]


def by_the_host(host: Host, model: Any, start: Any, denoise: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Euler steps of ComfyUI's kind over the pack's SIGMAS, NOISE and CONDITIONING."""
    inner = model.model
    sigmas = host.run("LinearSigmas", steps=STEPS, denoise=denoise)[0]
    noise = host.run("Noise", seed=seed)[0].generate_noise(start)
    begun = inner.process_latent_in(start["samples"]) if start["samples"].any() else torch.zeros_like(noise)
    x = sigmas[0] * noise + (1 - sigmas[0]) * begun
    conds = [
        {name: cond.cond for name, cond in inner.extra_conds(cross_attn=c[0][0], noise=x, **c[0][1]).items()}
        for c in prompts(host).values()
    ]
    for sigma, following in pairwise(sigmas):
        guesses = [inner.apply_model(x, sigma.expand(x.shape[0]), **expanded(cond, x.shape[0])) for cond in conds]
        denoised = guesses[1] + CFG * (guesses[0] - guesses[1])
        x = x + (following - sigma) * (x - denoised) / sigma
    return inner.process_latent_out(x)


def expanded(cond: dict[str, Any], batch: int) -> dict[str, Any]:
    return {name: value.expand(batch, -1, -1) if isinstance(value, torch.Tensor) else value for name, value in cond.items()}


def close(a: torch.Tensor, b: torch.Tensor, relative: float = 1e-4) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= relative * b.abs().max())


@pytest.mark.parametrize("text", [True, False])
def test_the_sampler_is_the_cores(host: Host, model: Any, core: Any, text: bool) -> None:
    out = sampled(host, model, latent(host, model), seed=7, **prompts(host, text=text))
    positive, negative = (Features(f.clip, f.sync, f.text, f.duration_s) for f in features(host, text))
    wanted = core.sample(positive, 2.0, [7], negative.text, SampleSettings(STEPS, CFG))
    assert close(out, wanted.tokens.transpose(1, 2))


def test_the_host_samples_the_same(host: Host, model: Any) -> None:
    start = latent(host, model)
    assert close(by_the_host(host, model, start, seed=3), sampled(host, model, start, seed=3))
    three = latent(host, model, batch=3)
    assert close(by_the_host(host, model, three), sampled(host, model, three))


def test_nodes_that_scale_the_time_change_nothing(host: Host, model: Any) -> None:
    start = latent(host, model)
    once = by_the_host(host, model, start)
    model.model.model_sampling = SimpleNamespace(multiplier=1000)
    assert close(by_the_host(host, model, start), once)


def test_half_of_the_noise_begins_from_the_sound(host: Host, model: Any) -> None:
    start = {**latent(host, model), "samples": torch.randn(1, 20, 63)}
    varied = sampled(host, model, start, denoise=0.5)
    assert close(by_the_host(host, model, start, denoise=0.5), varied)
    nearer = sampled(host, model, start, denoise=0.02)
    assert (nearer - start["samples"]).norm() < 0.2 * (varied - start["samples"]).norm()


def test_without_guidance_the_negative_side_does_not_matter(host: Host, model: Any) -> None:
    start, other = latent(host, model), prompts(host)
    other["negative"] = host.of("nodes.host.conditioning").pack(host.of("mmaudio_core.types").Features(), 77, 64)
    assert torch.equal(sampled(host, model, start, cfg=1.0), sampled(host, model, start, cfg=1.0, **other))
    assert not torch.equal(sampled(host, model, start), sampled(host, model, start, **other))


def test_takes_batches_and_single_runs_agree(host: Host, model: Any) -> None:
    alone = torch.cat([sampled(host, model, latent(host, model), seed=seed) for seed in (8, 9, 10)])
    assert close(sampled(host, model, latent(host, model), seed=8, takes=3), alone)
    assert close(sampled(host, model, latent(host, model, batch=3), seed=8), alone)
    last = 2**64 - 1
    around = sampled(host, model, latent(host, model), seed=last, takes=2)
    assert close(around[1:], sampled(host, model, latent(host, model), seed=0))


def test_the_adaptive_solver_runs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    core = host.of("mmaudio_core.pipeline.sample")
    exactly = core.dormand_prince
    monkeypatch.setattr(core, "dormand_prince", lambda v, x, rtol, atol, **more: exactly(v, x, 1e-3, 1e-4, **more))
    write_part(host.models / "v1.safetensors", SPECS_44K["flow"])
    model = host.run("LoadModel", model_file="v1.safetensors")[0]
    pack, none = host.of("nodes.host.conditioning").pack, host.of("mmaudio_core.types").Features()
    sides = {"positive": pack(none, 77, 64), "negative": pack(none, 77, 64)}
    start = latent(host, model, duration_s=0.64)
    exact, fine, rough = (
        sampled(host, model, start, cfg=1.0, solver=solver, steps=steps, **sides)
        for solver, steps in (("dopri5", 1), ("euler", 100), ("euler", 25))
    )
    assert (fine - exact).norm() < 0.5 * (rough - exact).norm()


def test_what_is_known_stays(host: Host, model: Any) -> None:
    start = {**latent(host, model), "samples": torch.randn(1, 20, 63)}
    start = host.run("RegenerateSeconds", latent=start, start_s=0.8, end_s=1.28)[0]
    result = host.run("Sampler", model=model, latent=start, steps=STEPS, **prompts(host))[0]
    changed = start["noise_mask"][0, 0].bool()
    out, before = result["samples"], start["samples"]
    assert (out - before)[..., ~changed].abs().max() < 1e-5
    assert (out - before)[..., changed].abs().max() > 0.1
    assert host.of("nodes.latent").latent_duration(result) == 2.0
    assert torch.equal(result["noise_mask"], start["noise_mask"])
    takes = sampled(host, model, start, takes=2)
    assert (takes - before)[..., ~changed].abs().max() < 1e-5


def test_a_sound_that_is_not_quite_as_long_as_the_video(host: Host, model: Any) -> None:
    """2.01 s needs as many tokens as the 2 s of the features."""
    start = host.of("nodes.latent").make_latent(torch.zeros(1, 20, 63), 2.01)
    result = host.run("Sampler", model=model, latent=start, steps=STEPS, cfg=CFG, **prompts(host))[0]
    assert torch.equal(result["samples"], sampled(host, model, latent(host, model)))
    assert host.of("nodes.latent").latent_duration(result) == 2.0


def test_a_mask_joins_with_denoise(host: Host, model: Any) -> None:
    start = {**latent(host, model), "samples": torch.randn(1, 20, 63), "noise_mask": torch.ones(1, 1, 63)}
    assert close(sampled(host, model, start), sampled(host, model, latent(host, model)))
    masked = sampled(host, model, start, denoise=0.3)
    del start["noise_mask"]
    assert close(masked, sampled(host, model, start, denoise=0.3))


def test_linear_sigmas(host: Host) -> None:
    sigmas = host.run("LinearSigmas", steps=25)[0]
    assert torch.equal(sigmas, 1 - torch.linspace(0, 1, 26))  # from the published times
    half = host.run("LinearSigmas", steps=10, denoise=0.5)[0]
    assert half[0] == 0.5
    assert half[-1] == 0
    assert len(half) == 11
    assert (half.diff() < 0).all()


def test_noise_of_a_part_of_a_batch(host: Host, model: Any) -> None:
    noise, four = host.run("Noise", seed=5)[0], latent(host, model, batch=4)
    assert noise.seed == 5
    whole = noise.generate_noise(four)
    assert whole.shape == (4, 20, 63)
    part = noise.generate_noise({"samples": four["samples"][:2], "batch_index": [3, 1]})
    assert torch.equal(part, whole[[3, 1]])
    assert torch.equal(whole[2:3], host.run("Noise", seed=7)[0].generate_noise(latent(host, model)))


def test_latents_are_normalised_by_the_networks_statistics(host: Host) -> None:
    write_part(host.models / "v1.safetensors", SPECS_44K["flow"])
    inner = host.run("LoadModel", model_file="v1.safetensors")[0].model
    net = inner.diffusion_model
    net.latent_mean.data.fill_(0.5)
    net.latent_std.data.fill_(2.0)
    form, x = host.of("nodes.host.native_model").MMAudioLatent(net), torch.randn(2, 40, 30)
    assert torch.allclose(form.process_in(x), (x - 0.5) / 2)
    assert torch.allclose(form.process_out(form.process_in(x)), x, atol=1e-6)
    assert torch.allclose(form.process_in(x).transpose(1, 2), net.normalize(x.transpose(1, 2)))
    assert (form.latent_channels, form.latent_dimensions) == (40, 1)
    with pytest.raises(ValueError, match=r"shape \(1, 20, 30\) was given; this MMAudio model needs \(batch, 40, tokens\)"):
        form.process_in(torch.zeros(1, 20, 30))


def test_weights_in_half_that_compute_in_float32(host: Host, model: Any) -> None:
    """The embedded file holds float16, so casting at use loses nothing against casting when loading, but of the latents'
    statistics, which are stored in float32."""
    wanted = sampled(host, model, latent(host, model))
    host.fake("comfy.model_management").answers.update(unet_dtype=torch.float16, unet_manual_cast=torch.float32)
    cast = host.run("LoadModel", model_file=TINY)[0]
    net = cast.model.diffusion_model
    assert {p.dtype for p in net.parameters()} == {torch.float16}
    assert (net.dtype, cast.model.get_dtype()) == (torch.float32, torch.float32)
    assert close(sampled(host, cast, latent(host, cast)), wanted, 2e-3)
    assert close(by_the_host(host, cast, latent(host, cast)), wanted, 2e-3)


def test_weights_in_a_format_that_nothing_computes_in(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.fake("comfy.model_management").answers["unet_dtype"] = torch.float8_e4m3fn
    net = host.run("LoadModel", model_file=TINY)[0].model.diffusion_model
    assert net.dtype == torch.float32
    assert "float32 is used" in caplog.text


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_that_was_asked_for(host: Host, precision: str, dtype: torch.dtype) -> None:
    net = host.run("LoadModel", model_file=TINY, precision=precision)[0].model.diffusion_model
    assert {p.dtype for p in net.parameters()} == {dtype}


def test_room_is_made_for_length_and_batch(host: Host, model: Any) -> None:
    needed = [model.model.memory_required(shape) for shape in ((1, 20, 250), (2, 20, 250), (1, 20, 500))]
    assert needed[1] == pytest.approx(2 * needed[0], rel=0.01)
    assert 1.5 * needed[0] < needed[2] < 2 * needed[0], "no matrix of scores, and the text's tokens stay the same"
    loaded = host.fake("comfy.model_management").loaded
    sampled(host, model, latent(host, model), takes=3)
    assert loaded[-1] == (model, model.model.memory_required((6, 20, 63)), False)


def test_progress_counts_steps(host: Host, model: Any) -> None:
    shown = host.fake("comfy.utils").shown
    shown.clear()
    sampled(host, model, latent(host, model), takes=2)
    assert shown == [(step, STEPS) for step in range(1, STEPS + 1)]


def wrong_inputs(host: Host, model: Any) -> dict[str, tuple[dict[str, Any], str]]:
    two = {**latent(host, model), "samples": torch.zeros(2, 20, 63)}
    sides = prompts(host)
    return {
        "duration": (
            {"latent": latent(host, model, duration_s=3.0)},
            r"cover 2 s, which needs .* 63 tokens, and the latent has 94 \(3 s\)",
        ),
        "sides": ({"negative": sides["positive"]}, r"negative conditioning has video features; connect the negative output"),
        "foreign": ({"positive": [[torch.zeros(1, 77, 768), {}]]}, r"features of shape \(1, 77, 768\)"),
        "takes": ({"latent": two, "takes": 2}, r"latent batch of 2 and 2 takes were given; set one of them to 1"),
        "solver": ({"solver": "heun"}, r"solver 'heun' is unknown; use one of euler, midpoint, dopri5"),
        "steps": ({"steps": 0}, r"steps = 0"),
        "model": (
            {"model": SimpleNamespace(model=torch.nn.Identity())},
            r"is a Identity, not an MMAudio flow network; connect",
        ),
        "mask": (
            {"latent": {**latent(host, model), "noise_mask": torch.ones(1, 512, 512)}},
            r"\(1, 1, 63\) is needed; make it",
        ),
        "channels": (
            {"latent": {"samples": torch.zeros(1, 40, 87)}},
            r"has 40 channels and this 16k model needs 20; make it",
        ),
    }


@pytest.mark.parametrize("case", ["duration", "sides", "foreign", "takes", "solver", "steps", "model", "mask", "channels"])
def test_contradictions_are_named(host: Host, model: Any, case: str) -> None:
    wrong, words = wrong_inputs(host, model)[case]
    inputs = {"model": model, "latent": latent(host, model), **prompts(host), **wrong}
    with pytest.raises(ValueError, match=words) as caught:
        host.run("Sampler", **inputs)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)


def test_what_the_host_sends_is_checked(host: Host, model: Any) -> None:
    inner, x = model.model, torch.zeros(1, 20, 63)
    with pytest.raises(ValueError, match="connect the positive and negative outputs") as caught:
        inner.extra_conds(cross_attn=torch.zeros(1, 154, 64), noise=x)
    assert type(caught.value) is ValueError
    for given in ({"noise": x}, {"cross_attn": torch.zeros(1, 77, 64), "noise": x[None]}):
        with pytest.raises(ValueError, match="needs a conditioning of 'MMAudio: Encode Prompt' and a latent of"):
            inner.extra_conds(**given)
    [[text, values]] = prompts(host)["positive"]
    with pytest.raises(ValueError, match="which needs a latent of 63 tokens, and the latent has 100"):
        inner.extra_conds(cross_attn=text, noise=torch.zeros(1, 20, 100), **values)
    with pytest.raises(ValueError, match="connect the positive and negative outputs"):
        inner.diffusion_model(x, torch.zeros(1), context=torch.zeros(1, 154, 64))


def test_from_pictures_to_latents(host: Host, model: Any) -> None:
    """The nodes in the order of a workflow."""
    encoders = host.run("LoadEncoders", clip_file=TINY, synchformer_file=TINY)[0]
    seen = host.run("ExtractFeatures", encoders=encoders, images=pictures(40), fps=25.0)[0]
    positive, negative = host.run("EncodePrompt", encoders=encoders, prompt="rain", features=seen).args
    start = host.run("EmptyLatent", model=model, features=seen)[0]
    out = sampled(host, model, start, positive=positive, negative=negative)
    assert out.shape == (1, 20, 50)
    assert out.isfinite().all()

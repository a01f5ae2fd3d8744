"""Number formats: one for single stages, weights in fp8, the published rounding of time, and the table that measures them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import mmaudio_core
from benchmarks import precision as benchmark
from mmaudio_core.cli import main
from mmaudio_core.errors import InputError
from mmaudio_core.layers.float8 import keeps_float8
from mmaudio_core.layers.timestep import TimestepEmbedder
from mmaudio_core.pipeline.device import computes_in
from mmaudio_core.pipeline.precision import Precision, choose_precision, parse_stage_dtypes
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.spec.model import FlowSpec, PartSpec, SynchformerSpec, VAESpec
from mmaudio_core.types import Features
from mmaudio_core.weights import fp8

from .precision import needs

CPU = torch.device("cpu")
BF16 = torch.bfloat16
INPUTS: dict[str, Any] = {"prompt": "rain", "duration_s": 1.0, "settings": SampleSettings(2)}


def relative(out: torch.Tensor, exact: torch.Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


def test_single_stages_in_another_dtype() -> None:
    needs(BF16)
    model = mmaudio_core.load("tiny", device="cpu", dtype="bfloat16", stage_dtypes={"vocoder": "float32", "vae": torch.float32})
    sound = model.generate(**INPUTS).audio.samples
    assert torch.isfinite(sound).all()
    dtypes = {name: next(part.parameters()).dtype for name, part in model.parts._loaded.items()}
    assert dtypes == {"clip text": BF16, "flow": BF16, "vae": torch.float32, "vocoder": torch.float32}
    everywhere = mmaudio_core.load("tiny", device="cpu", dtype="bfloat16").generate(**INPUTS).audio.samples
    assert not torch.equal(sound, everywhere)


def test_wrong_stages_and_dtypes_are_refused() -> None:
    with pytest.raises(InputError, match=r"'vocode'.*clip, synchformer, flow, vae, vocoder"):
        mmaudio_core.load("tiny", device="cpu", stage_dtypes={"vocode": "float32"})
    with pytest.raises(InputError, match="dtype 'int8'"):
        mmaudio_core.load("tiny", device="cpu", stage_dtypes={"vae": "int8"})
    with pytest.raises(InputError, match="storage 'int8' is unknown"):
        mmaudio_core.load("tiny", device="cpu", weights_storage="int8")
    assert parse_stage_dtypes(["vae=float32", " flow = bfloat16"]) == {"vae": "float32", "flow": "bfloat16"}
    for texts in (["vae"], ["vae="], ["=float32"], ["vae=float32", "vae=float16"]):
        with pytest.raises(InputError, match="dtype"):
            parse_stage_dtypes(texts)


def test_what_is_said_of_the_formats() -> None:
    chosen = choose_precision(CPU, "float32", {"flow": "float32"})
    assert chosen.sentence() == "float32"
    assert Precision(BF16, {"vocoder": torch.float32, "vae": BF16}, "fp8", True).sentence() == (
        "bfloat16 (vocoder float32), large weights in fp8, time rounded as published"
    )
    assert [Precision(BF16, storage="fp8").storage_of(stage) for stage in ("clip", "vae")] == ["fp8", None]


@pytest.mark.parametrize(
    ("width", "v2", "least", "most"), [(896, True, 0.6, 0.75), (448, True, 0.6, 0.75), (896, False, 1e-6, 1e-3)], ids=str
)
def test_the_published_rounding_of_time(width: int, v2: bool, least: float, most: float) -> None:
    """Relative to the norm, over the times of 25 steps: 67 % of v2's features, nearly nothing of v1's."""
    embedder = TimestepEmbedder(width, v2)
    t = torch.arange(25) / 25
    exact = embedder.sinusoids(t, BF16)
    assert torch.equal(exact, embedder.sinusoids(t)), "without the switch the dtype plays no part"
    embedder.published_half_precision = True
    assert torch.equal(embedder.sinusoids(t, torch.float32), exact)
    moved = relative(embedder.sinusoids(t, BF16), exact)
    print(f"width {width}, v2 {v2}: {moved:.5f}")
    assert least < moved < most


def test_both_roundings_are_made() -> None:
    embedder = TimestepEmbedder(64, v2=True, published_half_precision=True)
    t = torch.tensor([0.3])
    frequencies = 10_000 / 10_000 ** (torch.arange(0, 64, 2) / 64)
    angles = t.to(BF16).float() * frequencies.to(BF16).float()
    assert torch.allclose(embedder.sinusoids(t, BF16)[0], torch.cat((angles.cos(), angles.sin())), atol=1e-5)
    with torch.no_grad():
        assert not torch.equal(embedder(t, torch.float32), embedder.bfloat16()(t, BF16).float())


def test_the_rounding_reaches_the_sound_in_half_precision_only(caplog: pytest.LogCaptureFixture) -> None:
    needs(BF16)

    def latents(dtype: str, published: bool) -> torch.Tensor:
        model = mmaudio_core.load("tiny", device="cpu", dtype=dtype, published_time_features=published)
        return model.sample(Features(), 1.0, [0], settings=INPUTS["settings"]).tokens

    assert relative(latents("bfloat16", True), latents("bfloat16", False)) > 1e-2
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert torch.equal(latents("float32", True), latents("float32", False))
    assert any("changes nothing in float32" in message for message in caplog.messages)


has_float8 = pytest.mark.skipif(not fp8.converts_float8(CPU), reason="this torch does not convert float8 numbers on the CPU")


@has_float8
def test_a_whole_run_with_weights_in_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model is small, so that smaller weights than usual are kept so here."""
    monkeypatch.setattr(fp8, "MIN_ELEMENTS", 1 << 10)
    narrow, wide = (mmaudio_core.load("tiny", device="cpu", weights_storage=wish) for wish in ("fp8", None))
    assert torch.isfinite(narrow.generate(**INPUTS).audio.samples).all()
    assert [name for name, part in narrow.parts._loaded.items() if keeps_float8(part)] == ["clip text", "flow"]
    net = narrow.parts.flow()
    assert narrow.parts.loaded_bytes()["flow"] < 0.75 * sum(v.nbytes for v in wide.parts.flow().state_dict().values())
    assert not net.fast_cache.is_filled, "no wide copies of narrow weights stay"
    features = Features(text=wide.encode_text(["rain"]))
    a, b = (model.sample(features, 1.0, [0], settings=INPUTS["settings"]).tokens for model in (narrow, wide))
    assert 1e-4 < relative(a, b) < 0.1


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    needs(BF16)
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "no weights"))
    text = ["generate", "--prompt", "rain", "--duration", "1", "--steps", "1", "-o", str(tmp_path / "x.wav")]
    formats = ["--dtype", "bfloat16", "--stage-dtype", "vocoder=float32", "--stage-dtype", "vae=float32", "--memory", "2.5"]
    assert main([*text, *formats, "--published-time-features"]) == 0
    said = capsys.readouterr().err
    assert "in bfloat16 (vocoder float32, vae float32), time rounded as published." in said
    assert "Memory: each part goes when its stage is done; at most 0.0" in said
    assert " of 2.50 GB, without the CUDA context." in said
    for wrong, words in (
        (["--memory", "much"], "'much'"),
        (["--memory", "0.001"], "memory budget of 0.00 GB"),
        (["--stage-dtype", "decoder=float32"], "'decoder'"),
        (["--stage-dtype", "vae"], "STAGE=DTYPE"),
    ):
        assert main([*text, *wrong]) == 2
        assert words in capsys.readouterr().err


SMALLEST: dict[str, PartSpec] = {
    "synchformer": SynchformerSpec(width=128, heads=2, blocks=2, mlp_width=512),
    "flow": FlowSpec(40, 64, 1, 1, 1, v2=True),
    "vae": VAESpec(128, 40, 16),
}


@has_float8
def test_the_table_of_errors() -> None:
    """Bounds for made-up weights of these sizes; docs/numerics.md has those for half precision."""
    needs(BF16)
    rows, sizes = benchmark.measure(SMALLEST, CPU, 0.64)
    errors = {row.stage: row.errors for row in rows}
    stages = ["synchformer", "conditions", "velocity", "25 steps", "time features as published", "vae"]
    assert list(errors) == stages
    most = {"float16": 1e-2, "bfloat16": 6e-2, "fp8 weights": 0.15, "fp8 + bfloat16": 0.16}
    if not computes_in(torch.float16, CPU):
        del most["float16"]
    for stage in (stage for stage in stages if "time" not in stage):
        for name, bound in most.items():
            error = errors[stage][name]
            assert (error is None) == (stage == "vae" and "fp8" in name), (stage, name)
            assert error is None or 1e-5 < error < bound, (stage, name)
    assert errors["time features as published"]["bfloat16"] == pytest.approx(0.68, abs=0.08)
    assert sizes["flow"]["fp8 + bfloat16"] < sizes["flow"]["bfloat16"]
    assert "fp8 + bfloat16" not in sizes["vae"]
    lines = benchmark.table(rows, sizes).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2 : 2 + len(stages)]] == stages
    assert lines[2].split(" | ")[2] == f"{errors['synchformer']['bfloat16']:.2e}"

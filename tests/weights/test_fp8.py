"""Weights kept in float8: half the bytes, a bounded error, the same modules otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmaudio_core.errors import InputError
from mmaudio_core.layers.conv import channel_last_conv
from mmaudio_core.layers.float8 import dequantize, keep_in_float8_, keeps_float8, quantize
from mmaudio_core.spec.model import VARIANTS, CLIPSpec, SynchformerSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.types import Features
from mmaudio_core.weights import fp8
from mmaudio_core.weights.build import build_module, load_part

from .support import TINY, tiny

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not fp8.converts_float8(CPU), reason="this torch does not convert float8 numbers on the CPU")


def size(module: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def relative(out: torch.Tensor, exact: torch.Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 3), (1, 1)])
def test_each_weight_is_within_its_mantissa(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-6, 4, shape[0]).view(-1, *[1] * (len(shape) - 1))
    narrow, scale = quantize(weight)
    assert narrow.dtype == torch.float8_e4m3fn
    assert (narrow.shape, scale.shape) == (weight.shape, (shape[0], *[1] * (len(shape) - 1)))
    out = dequantize(narrow, scale, torch.float32)
    largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    # Below 2^-6 of the scale the steps no longer shrink with the number.
    assert ((out - weight).abs() <= torch.maximum(weight.abs() / 16, largest * 2**-15)).all()
    assert not torch.equal(out, weight)
    assert torch.equal(torch.frexp(scale)[0], torch.full_like(scale, 0.5)), "scales are powers of two"


@pytest.mark.parametrize("value", [0.0, 448.0, 449.0, -1e-30, 1e-7, 60000.0, 3e38])
def test_extreme_channels_stay_finite(value: float) -> None:
    weight = torch.tensor([[value, value / 2], [1.0, -1.0]])
    out = dequantize(*quantize(weight), torch.float32)
    assert torch.isfinite(out).all()
    assert (out - weight).abs().max() <= max(abs(value) / 16, 2**-33)
    assert torch.equal(out[1], weight[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_widening_is_exact_in_every_format(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    narrow, scale = quantize(torch.randn(64, 96) * 0.02)
    exact = dequantize(narrow, scale, torch.float64)
    assert torch.equal(dequantize(narrow, scale, torch.bfloat16).double(), exact)
    # float16 has its own smallest step.
    assert (dequantize(narrow, scale, dtype).double() - exact).abs().max() <= 2**-25


def layers() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    return {
        "linear": (nn.Linear(24, 40), torch.randn(2, 5, 24)),
        "convolution": (nn.Conv1d(8, 16, 3, padding=1), torch.randn(2, 8, 5)),
        "channel-last convolution": (channel_last_conv(8, 16, 7), torch.randn(2, 5, 8)),
    }


@pytest.mark.parametrize("name", layers())
def test_a_layer_computes_with_the_widened_weight(name: str) -> None:
    layer, x = layers()[name]
    same: Any = layers()[name][0]
    assert keep_in_float8_(layer, torch.float32, 1) == ["weight"]
    same.weight.data = dequantize(*quantize(same.weight.detach()), torch.float32)
    assert torch.equal(layer(x), same(x))
    assert set(layer.state_dict()) == {"weight_fp8", "weight_scale", "bias"}
    assert isinstance(layer, type(same))


def test_attention_with_packed_projections() -> None:
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(32, 2, batch_first=True).eval(), torch.randn(2, 6, 32)
    with torch.no_grad():
        exact = attention(x, x, x)[0]
        assert keep_in_float8_(attention, torch.float32, 1) == ["in_proj_weight", "out_proj.weight"]
        out = attention(x, x, x)[0]
    assert 1e-4 < relative(out, exact) < 0.1


def test_moving_keeps_both_formats_and_changes_what_is_read() -> None:
    layer: Any = nn.Linear(16, 16)
    keep_in_float8_(layer, torch.float32, 1)
    before = layer.weight
    layer.to(torch.bfloat16)
    assert (layer.weight_fp8.dtype, layer.weight_scale.dtype) == (torch.float8_e4m3fn, torch.float32)
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(layer.weight.float(), before)
    assert layer(torch.ones(1, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_small_and_sensitive_weights_stay_wide() -> None:
    module = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 9), "final": nn.Linear(8, 9), "c": nn.Conv2d(9, 9, 3)})
    assert keep_in_float8_(module, torch.float32, 72, ("final",)) == ["b.weight"]
    assert keeps_float8(module)
    assert not keeps_float8(module["a"])


FLOWS = ("small_16k", "large_44k_v2")


@pytest.mark.parametrize("name", [*FLOWS, "clip", "synchformer"])
def test_bytes_of_the_published_parts(name: str) -> None:
    """The large weights take half of what they take in bfloat16, and they are nearly everything."""
    spec = {"clip": CLIPSpec(), "synchformer": SynchformerSpec()}.get(name) or VARIANTS[name]
    with torch.device("meta"):
        wide, narrow = (build_module(spec).to(torch.bfloat16) for _ in range(2))
    changed = fp8.store_in_float8_(narrow, spec.kind, torch.bfloat16)
    large = [wide.state_dict()[path] for path in changed]
    saved = size(wide) - size(narrow)
    scales = 4 * sum(weight.shape[0] for weight in large)
    assert saved == sum(weight.numel() for weight in large) - scales
    print(f"{name}: {size(wide) / 1e9:.3f} GB in bfloat16, {size(narrow) / 1e9:.3f} GB with large weights in float8")
    assert size(narrow) < (0.55 if name != "clip" else 0.6) * size(wide)


def files(tmp_path: Any, kind: str) -> Any:
    """A file with the weights that the constructors draw."""
    torch.manual_seed(0)
    save_file(build_module(TINY[kind]).state_dict(), tmp_path / kind)
    return tmp_path / kind


@pytest.mark.parametrize("kind", fp8.KINDS)
def test_loading(tmp_path: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "MIN_ELEMENTS", 1 << 12)  # these parts are small
    path = files(tmp_path, kind)
    wide, narrow = load_part(path, kind)[0], load_part(path, kind, storage="fp8")[0]
    changed = {name.removesuffix("_fp8") for name in narrow.state_dict() if name.endswith("_fp8")}
    assert changed
    for name, value in wide.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        read = getattr(narrow.get_submodule(owner), leaf)
        expected = dequantize(*quantize(value), torch.float32) if name in changed else value
        assert torch.equal(read, expected), name
        assert (name in narrow.state_dict()) == (name not in changed), "published names stay for the rest"
    assert not any(value.is_meta for value in narrow.state_dict().values())
    assert not narrow.training


def test_the_velocity_stays_near(tmp_path: Any) -> None:
    """On weights as the constructor draws them; ``benchmarks/precision.py`` measures larger networks."""
    path = files(tmp_path, "flow")
    nets: list[Any] = [load_part(path, "flow")[0], load_part(path, "flow", storage="fp8")[0]]
    torch.manual_seed(0)
    lengths = sequence_lengths(1.0, nets[0].spec.audio)
    x, t = torch.randn(1, lengths.latent, 40), torch.tensor(0.3)
    features = Features(text=torch.randn(1, 77, 1024))
    with torch.no_grad():
        exact, out = (net.velocity(x, t, net.conditions(features, lengths)) for net in nets)
    assert 1e-4 < relative(out, exact) < 0.085


def test_bfloat16_computes_in_bfloat16(tmp_path: Any) -> None:
    net: Any = load_part(files(tmp_path, "flow"), "flow", dtype=torch.bfloat16, storage="fp8")[0]
    assert net.joint_blocks[0].latent_block.ffn.w1.weight.dtype == torch.bfloat16
    assert net.dtype == torch.bfloat16
    dtypes = {value.dtype for value in net.state_dict().values()}
    assert dtypes == {torch.bfloat16, torch.float8_e4m3fn, torch.float32}


def test_what_cannot_be_kept_so_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(tiny("vae"), tmp_path / "vae")
    with pytest.raises(InputError, match="part 'vae' cannot be kept"):
        load_part(tmp_path / "vae", "vae", storage="fp8")
    with pytest.raises(InputError, match="storage 'int4' is unknown"):
        load_part(tmp_path / "vae", "vae", storage="int4")
    monkeypatch.delattr(torch, "float8_e4m3fn")
    with pytest.raises(InputError, match="cannot convert float8 numbers on cpu"):
        fp8.check_storage("fp8", CPU)
    assert fp8.check_storage(None, CPU) is None


def test_a_device_that_converts_none_is_found_by_trying() -> None:
    # On the meta device nothing has a value, as on one whose conversions fail.
    assert not fp8.converts_float8(torch.device("meta"))


def test_a_vae_without_its_encoder(tmp_path: Any) -> None:
    save_file(tiny("vae"), tmp_path / "vae")
    whole, half = (load_part(tmp_path / "vae", "vae", encoder=wish)[0] for wish in (True, False))
    assert {name for name in whole.state_dict() if not name.startswith("encoder.")} == set(half.state_dict())
    latents = torch.randn(1, 9, TINY["vae"].latent_dim)  # type: ignore[attr-defined]
    assert torch.equal(half.decode(latents), whole.decode(latents))

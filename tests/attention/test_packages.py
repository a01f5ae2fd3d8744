"""Backends in optional packages: how they are called, why they cannot run. The packages are fakes that compute attention."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.attention import flex
from mmaudio_core.attention.listing import BACKENDS, listing, named, table
from mmaudio_core.errors import DependencyError, InputError

from .judge import CASES, attention, draw, install, pretend_cuda, tokens_first

CUDA = torch.device("cuda")
MODULES = {
    "flash2": ("flash_attn", "flash_attn_func", "flash-attn"),
    "flash3": ("flash_attn_interface", "flash_attn_func", "flash-attn-3"),
    "flash4": ("flash_attn.cute", "flash_attn_func", "flash-attn-4"),
    "xformers": ("xformers.ops", "memory_efficient_attention", "xformers"),
    "sage": ("sageattention", "sageattn", "sageattention"),
}


def with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
    return tokens_first(q, k, v), None


def sageattn(q: Tensor, k: Tensor, v: Tensor, tensor_layout: str = "HND", is_causal: bool = False, **options: Any) -> Tensor:
    assert not options
    assert not is_causal
    if tensor_layout == "NHD":
        return tokens_first(q, k, v)
    return tokens_first(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


FAKES = {"flash2": tokens_first, "flash3": tokens_first, "flash4": with_lse, "xformers": tokens_first, "sage": sageattn}


@pytest.fixture(autouse=True)
def no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the packages is there, whatever is installed where the tests run."""
    for name in {module.split(".")[0] for module, _, _ in MODULES.values()} | {"flash_attn_3"}:
        for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            monkeypatch.delitem(sys.modules, loaded)
    blocked = {module.split(".")[0] for module, _, _ in MODULES.values()} | {"flash_attn_3"}

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.split(".")[0] in blocked:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", list(FAKES))
def test_layouts(name: str, case: tuple[int, int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, _ = MODULES[name]
    install(monkeypatch, module, **{attribute: FAKES[name]})
    q, k, v = draw(case)
    out = named(name).run(q, k, v)
    torch.testing.assert_close(out.double(), attention(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(FAKES))
def test_nothing_dense_is_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, _ = MODULES[name]
    given: list[Tensor] = []
    made: list[Tensor] = []

    def spy(*tensors: Tensor, **_: Any) -> Tensor:
        given.extend(tensors)
        made.append(torch.zeros_like(tensors[0], memory_format=torch.contiguous_format))
        return made[0]

    install(monkeypatch, module, **{attribute: spy})
    q, k, v = draw((2, 3, 5, 7, 8))
    out = named(name).run(q, k, v)
    assert [t.shape for t in given] == [(2, 5, 3, 8), (2, 7, 3, 8), (2, 7, 3, 8)]
    assert given[0].data_ptr() == q.data_ptr()
    assert given[1].data_ptr() == k.data_ptr()
    assert given[2].data_ptr() != v.data_ptr(), "the elements of v lie apart"
    assert out.data_ptr() == made[0].data_ptr()
    assert out.shape == (2, 5, 24)


def test_older_flash_3_gives_a_pair_and_the_other_module_name_does(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "flash_attn_3.flash_attn_interface", flash_attn_func=with_lse)
    q, k, v = draw(CASES[6])
    torch.testing.assert_close(named("flash3").run(q, k, v).double(), attention(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(MODULES))
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    pip = MODULES[name][2]
    reason = f"{pip} is not installed (pip install {pip})"
    assert named(name).reason(CUDA, torch.bfloat16, 64) == reason
    with pytest.raises(DependencyError) as caught:
        named(name).run(*draw((1, 1, 3, 3, 8)))
    assert str(caught.value) == reason


@pytest.mark.parametrize("name", list(MODULES))
def test_a_package_that_is_there_can_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    module, attribute, _ = MODULES[name]
    install(monkeypatch, module, **{attribute: FAKES[name]})
    assert named(name).reason(CUDA, torch.bfloat16, 64) is None
    assert named(name).reason(CUDA, torch.float16, 80) is None


@pytest.mark.parametrize(
    "raised", ["OSError('libcudart.so.11: cannot open')", "ImportError('undefined symbol: x')", "SystemExit(1)"]
)
def test_a_broken_package_is_a_reason(raised: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_cuda(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sageattention.py").write_text(f"raise {raised}")
    (tmp_path / "sageattention-9.8.7.dist-info").mkdir()
    (tmp_path / "sageattention-9.8.7.dist-info" / "METADATA").write_text("Name: sageattention\nVersion: 9.8.7\n")
    kind, _, message = raised.partition("(")
    reason = str(named("sage").reason(CUDA, torch.bfloat16, 64))
    assert reason == f"sageattention 9.8.7 cannot be used ({kind}: {message.strip(')').strip(chr(39))})"


def test_a_package_without_the_function_is_broken_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    install(monkeypatch, "flash_attn", __version__="1.0.9")
    reason = str(named("flash2").reason(CUDA, torch.float16, 64))
    assert reason.startswith("flash_attn 1.0.9 cannot be used (AttributeError: ")


def test_what_a_package_lacks_below_it_is_no_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_cuda(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").write_text("")
    (tmp_path / "xformers" / "ops.py").write_text("import a_module_that_is_nowhere")
    reason = str(named("xformers").reason(CUDA, torch.float16, 64))
    assert reason.startswith("xformers.ops cannot be used (ModuleNotFoundError: ")


@pytest.mark.parametrize(
    ("name", "capability", "dtype", "width", "reason"),
    [
        ("flash2", (7, 5), torch.float16, 64, "it needs a GPU of compute capability 8.0 or newer; this one has 7.5"),
        ("flash3", (8, 9), torch.float16, 64, "it needs a GPU of compute capability 9.0 to below 10.0; this one has 8.9"),
        ("flash3", (12, 0), torch.float16, 64, "it needs a GPU of compute capability 9.0 to below 10.0; this one has 12.0"),
        ("flash4", (8, 6), torch.float16, 64, "it needs a GPU of compute capability 9.0 or newer; this one has 8.6"),
        ("flash2", (9, 0), torch.float32, 64, "it computes in float16 or bfloat16, not in float32"),
        ("flash2", (9, 0), torch.float16, 1536, "its heads are at most 256 wide, not 1536"),
        ("flash2", (9, 0), torch.float16, 63, "the width of its heads is a multiple of 8, not 63"),
        ("flash4", (10, 0), torch.float16, 256, "its heads are at most 128 wide, not 256"),
        ("sage", (9, 0), torch.float32, 64, "it computes in float16 or bfloat16, not in float32"),
        ("sage", (9, 0), torch.float16, 2048, "its heads are at most 128 wide, not 2048"),
        ("xformers", (9, 0), torch.float64, 64, "it computes in float16 or bfloat16 or float32, not in float64"),
        ("xformers", (9, 0), torch.float16, 2048, "its heads are at most 256 wide, not 2048"),
        ("flex", (6, 1), torch.float16, 64, "it needs a GPU of compute capability 7.0 or newer; this one has 6.1"),
        ("flex", (9, 0), torch.float16, 8, "its heads are at least 16 wide, not 8"),
    ],
)
def test_reasons(
    name: str, capability: tuple[int, int], dtype: torch.dtype, width: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, capability)
    assert named(name).reason(CUDA, dtype, width) == reason


def test_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its capabilities count otherwise, so only packages made for NVIDIA alone are out."""
    pretend_cuda(monkeypatch, (6, 0), hip="6.4")
    assert named("flash3").reason(CUDA, torch.float16, 64) == "it needs an NVIDIA GPU, and this is AMD's"
    assert named("flash2").reason(CUDA, torch.float16, 64) == "flash-attn is not installed (pip install flash-attn)"


def test_no_package_is_imported_where_it_could_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("imported")

    monkeypatch.setattr("mmaudio_core.attention.protocol.Package.reason", refuse)
    for device in ("cpu", "mps"):
        for backend in BACKENDS:
            if not backend.name.startswith("sdpa"):
                assert (
                    backend.reason(torch.device(device), torch.float16, 64) == f"it needs a CUDA device, and this is {device}"
                )


def test_sage_says_that_it_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    install(monkeypatch, "sageattention", sageattn=sageattn)
    row = next(r for r in listing(CUDA, torch.float16, 64) if r.name == "sage")
    assert row.usable
    assert not row.exact
    assert "quantised" in row.reason
    assert [r.name for r in listing(CUDA, torch.float16, 64) if not r.exact] == ["sage"]


def test_sage_refuses_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "sageattention", sageattn=sageattn)
    q, k, v = draw((1, 1, 3, 3, 8))
    with pytest.raises(InputError, match="no gradients"):
        named("sage").run(q, k.requires_grad_(), v)
    with torch.no_grad():
        named("sage").run(q, k, v)


def test_flex_is_compiled_once_and_gives_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def flex_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v).unflatten(-1, (q.shape[1], -1)).transpose(1, 2).to(q.dtype)

    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    install(monkeypatch, "torch.nn.attention.flex_attention", flex_attention=flex_attention)
    flex._compiled.cache_clear()
    for case in CASES[:2]:
        q, k, v = draw(case)
        torch.testing.assert_close(named("flex").run(q, k, v).double(), attention(q, k, v), rtol=1e-5, atol=1e-6)
    assert compiled == [flex_attention]
    flex._compiled.cache_clear()


def test_flex_needs_triton_and_a_newer_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    install(monkeypatch, "triton", compile=None)
    install(monkeypatch, "torch.nn.attention.flex_attention", flex_attention=None)
    assert named("flex").reason(CUDA, torch.float32, 64) is None
    monkeypatch.setitem(sys.modules, "triton", None)
    assert named("flex").reason(CUDA, torch.float32, 64) == "triton is not installed (pip install triton)"
    install(monkeypatch, "torch.nn.attention.flex_attention")
    assert "has no FlexAttention" in str(named("flex").reason(CUDA, torch.float32, 64))


def test_the_table_has_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch)
    rows = listing(torch.device("cpu"), torch.float32, 64)
    lines = table(rows).splitlines()
    assert len(lines) == len(BACKENDS) + 1
    assert [line.split()[0] for line in lines[1:]] == [b.name for b in BACKENDS]
    assert lines[1].split()[1:3] == ["yes", "yes"]
    assert lines[-1].split()[1:3] == ["no", "no"]
    assert lines[-1].endswith("it needs a CUDA device, and this is cpu")

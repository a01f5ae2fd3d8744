"""torch's kernels that run on a CPU against attention written out in float64."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from mmaudio_core.attention import sdpa
from mmaudio_core.attention.listing import listing, named

from ..core.precision import needs
from .judge import CASES, attention, draw, pretend_cuda

CPU = torch.device("cpu")
ON_CPU = ("sdpa", "sdpa-flash", "sdpa-math")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", ON_CPU)
def test_parity_with_float64(name: str, case: tuple[int, int, int, int, int]) -> None:
    backend = named(name)
    assert backend.reason(CPU, torch.float32, case[4]) is None
    q, k, v = draw(case)
    expected = attention(q, k, v)
    torch.testing.assert_close(backend.run(q, k, v).double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backend.run(q.double(), k.double(), v.double()), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ON_CPU)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    needs(dtype)
    q, k, v = draw((2, 3, 91, 77, 64), dtype)
    out = named(name).run(q, k, v)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), attention(q, k, v), rtol=3e-2, atol=1e-2)


@pytest.mark.parametrize("kernel", [None, "flash", "math"])
def test_masks(kernel: str | None) -> None:
    q, k, v = draw((2, 3, 77, 77, 64))
    causal = torch.ones(77, 77, dtype=torch.bool).tril()
    some = torch.arange(77).expand(77, 77) % 3 != 1

    def run(**options: object) -> torch.Tensor:
        return sdpa.attend(q, k, v, **options) if kernel is None else sdpa.attend_with(kernel, q, k, v, **options)

    torch.testing.assert_close(run(causal=True).double(), attention(q, k, v, causal), rtol=1e-4, atol=1e-5)
    if kernel == "flash" and not hasattr(torch.nn, "attention"):
        pytest.skip(f"flash attention of torch {torch.__version__} takes no mask")
    torch.testing.assert_close(run(mask=some).double(), attention(q, k, v, some), rtol=1e-4, atol=1e-5)
    as_scores = torch.zeros(77, 77).masked_fill(~some, float("-inf"))
    torch.testing.assert_close(run(mask=as_scores).double(), attention(q, k, v, some), rtol=1e-4, atol=1e-5)


def test_gradients_flow() -> None:
    q, k, v = (t.double().requires_grad_() for t in draw((1, 2, 5, 7, 8)))
    for name in ON_CPU:
        assert torch.autograd.gradcheck(named(name).run, (q, k, v)), name


def test_dense_tensors_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: object) -> torch.Tensor:
        given.extend((q, k, v))
        return q.transpose(1, 2).contiguous().transpose(1, 2)  # as the fused kernels write it

    monkeypatch.setattr(sdpa.F, "scaled_dot_product_attention", kernel)
    q, k, v = draw((2, 3, 5, 5, 8))
    out = sdpa.attend(q, k, v)
    assert given[0] is q
    assert given[1] is k
    assert given[2].stride(-1) == 1
    assert torch.equal(given[2], v)
    assert out.shape == (2, 5, 24)
    assert out._base is not None, "the output is a view"


def chosen_kernels(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []

    @contextlib.contextmanager
    def sdpa_kernel(kernel: object):
        seen.append(kernel)
        yield

    kinds = SimpleNamespace(MATH="m", FLASH_ATTENTION="f", EFFICIENT_ATTENTION="e", CUDNN_ATTENTION="c")
    monkeypatch.setattr(torch.nn, "attention", SimpleNamespace(sdpa_kernel=sdpa_kernel, SDPBackend=kinds), raising=False)
    return seen


def test_each_name_stands_for_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = chosen_kernels(monkeypatch)
    q, k, v = draw((1, 1, 3, 3, 8))
    for name in ("sdpa", "sdpa-flash", "sdpa-efficient", "sdpa-cudnn", "sdpa-math"):
        named(name).run(q, k, v)
    assert seen == ["f", "e", "c", "m"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_before_torch_2_3_the_older_switch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.nn, "attention", raising=False)
    switches = []

    @contextlib.contextmanager
    def sdp_kernel(**on: bool):
        switches.append({name for name, value in on.items() if value})
        yield

    monkeypatch.setattr(torch.backends.cuda, "sdp_kernel", sdp_kernel)
    q, k, v = draw((1, 1, 3, 3, 8))
    for kernel in ("flash", "efficient", "math"):
        torch.testing.assert_close(sdpa.attend_with(kernel, q, k, v).double(), attention(q, k, v), rtol=1e-4, atol=1e-5)
    assert switches == [{"enable_flash"}, {"enable_mem_efficient"}, {"enable_math"}]
    pretend_cuda(monkeypatch)
    assert "no cuDNN attention" in str(named("sdpa-cudnn").reason(torch.device("cuda"), torch.float16, 64))


def test_a_torch_without_cudnn_attention_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen_kernels(monkeypatch)
    del torch.nn.attention.SDPBackend.CUDNN_ATTENTION
    pretend_cuda(monkeypatch)
    assert "no cuDNN attention" in str(named("sdpa-cudnn").reason(torch.device("cuda"), torch.float16, 64))


def test_reasons_on_a_cpu() -> None:
    rows = {row.name: row for row in listing(CPU, torch.float32, 64)}
    assert {name for name, row in rows.items() if row.usable} == set(ON_CPU)
    assert rows["sdpa-cudnn"].reason == "it needs a CUDA device, and this is cpu"


@pytest.mark.parametrize(
    ("name", "capability", "dtype", "width", "reason"),
    [
        ("sdpa-flash", (7, 5), torch.float16, 64, "compute capability 8.0 or newer; this one has 7.5"),
        ("sdpa-flash", (9, 0), torch.float32, 64, "computes in float16 or bfloat16, not in float32"),
        ("sdpa-flash", (9, 0), torch.bfloat16, 1536, "at most 256 wide, not 1536"),
        ("sdpa-cudnn", (9, 0), torch.float32, 64, "not in float32"),
        ("sdpa-cudnn", (9, 0), torch.bfloat16, 2048, "at most 256 wide, not 2048"),
        ("sdpa-efficient", (9, 0), torch.float64, 64, "not in float64"),
    ],
)
def test_reasons_on_a_gpu(
    name: str, capability: tuple[int, int], dtype: torch.dtype, width: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, capability)
    assert reason in str(named(name).reason(torch.device("cuda"), dtype, width))


def test_what_torch_refuses_is_said_in_its_words() -> None:
    said = [
        "Memory efficient kernel not used because: (Triggered internally at a.cpp:1.)",
        "Memory Efficient attention has been runtime disabled. (Triggered internally at a.cpp:2.)",
        "Flash attention kernel not used because: (Triggered internally at a.cpp:3.)",
        "Torch was not compiled with flash attention. (Triggered internally at a.cpp:4.)",
    ]
    error = RuntimeError("No available kernel. Aborting execution.\nmore")
    assert sdpa._explanation("Flash", said, error) == "Torch was not compiled with flash attention"
    assert sdpa._explanation("Mem", said, error) == "Memory Efficient attention has been runtime disabled"
    assert sdpa._explanation("cuDNN", said, error) == "No available kernel"
    assert sdpa._explanation("", said, error) == "No available kernel"


def test_a_kernel_that_torch_refuses_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(sdpa.F, "scaled_dot_product_attention", refuse)
    for name in ON_CPU:
        assert named(name).reason(CPU, torch.float32, 64) == "torch refuses: No available kernel"


def test_torch_is_asked_with_the_width_dtype_and_kernel_that_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(sdpa, "attend", lambda q, k, v, **_: given.append((q.shape, q.dtype)))
    seen = chosen_kernels(monkeypatch)
    assert named("sdpa-flash").reason(CPU, torch.bfloat16, 1536) is None
    assert [(shape[-1], dtype) for shape, dtype in given] == [(1536, torch.bfloat16)]
    assert seen == ["f"]

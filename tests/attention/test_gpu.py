"""Every backend that says it can run on this machine's GPU gives attention, and "auto" takes one of them."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.attention import measure
from mmaudio_core.attention.choose import Chooser
from mmaudio_core.attention.listing import BACKENDS, named

from .judge import CASES, attention, draw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_parity_with_float64(name: str, dtype: torch.dtype) -> None:
    backend = named(name)
    ran = 0
    for case in CASES:
        if backend.reason(torch.device("cuda"), dtype, case[4]) is not None:
            continue
        q, k, v = draw(case, dtype, "cuda")
        with torch.no_grad():
            out = backend.run(q, k, v)
        assert out.dtype == dtype
        expected = attention(q.cpu(), k.cpu(), v.cpu())
        allowed = measure.TOLERANCE[dtype] if backend.exact else measure.INEXACT
        assert measure.error(out.cpu(), expected, case[1]) < allowed, case
        ran += 1
    if not ran:
        pytest.skip(str(backend.reason(torch.device("cuda"), dtype, 64)))


def test_sdpa_math_and_torchs_choice_always_run() -> None:
    for dtype in DTYPES:
        for width in (64, 80, 1536, 2048):
            for name in ("sdpa", "sdpa-math"):
                assert named(name).reason(torch.device("cuda"), dtype, width) is None


@pytest.mark.parametrize("timer", [measure.time_ms, measure.time_in_graph_ms])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_auto_measures_and_takes_an_exact_one(dtype: torch.dtype, timer: measure.Timer) -> None:
    spent = []

    def spy(call, device):
        spent.append(timer(call, device))
        return spent[-1]

    chosen = Chooser(timer=spy).choose("auto", torch.device("cuda", 0), dtype, 64, (2, 14, 391, 391))
    assert chosen.exact
    assert spent
    assert all(0 < one < 100 for one in spent)


def test_every_refusal_is_a_clause() -> None:
    for backend in BACKENDS:
        reason = backend.reason(torch.device("cuda"), torch.float32, 1536)
        assert reason is None or (reason and "\n" not in reason and not reason.endswith("."))

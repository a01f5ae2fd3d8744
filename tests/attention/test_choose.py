"""The choice: forced, refused with the reason, measured, fallen out, remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmaudio_core.attention import measure
from mmaudio_core.attention.choose import Chooser
from mmaudio_core.attention.protocol import Backend
from mmaudio_core.attention.sdpa import attend
from mmaudio_core.errors import InputError

from .judge import attention, draw

CPU, DTYPE, WIDTH, SHAPE = torch.device("cpu"), torch.float32, 16, (2, 3, 11, 7)
PLACE = (CPU, DTYPE, WIDTH, SHAPE)
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def usable(*_: object) -> None:
    return None


def tagged(name: str, run: Run = attend, **options: object) -> Backend:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return run(q, k, v)

    return Backend(name, options.pop("reason", usable), call, **options)


def chooser(spent: dict[str, float], *backends: Backend) -> tuple[Chooser, list[str]]:
    """A chooser that measures on the CPU with a clock that says what ``spent`` says, and the names that it timed."""
    timed: list[str] = []
    by_run = {id(b.run): b.name for b in backends}

    def timer(call: Callable[[], object], device: torch.device) -> float:
        assert device == CPU
        assert isinstance(call(), Tensor)
        timed.append(by_run[id(call.func)])
        return spent[timed[-1]]

    return Chooser(backends, timer, measured=("cpu",)), timed


def test_the_fastest_is_chosen_once_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    backends = [tagged("sdpa"), tagged("slow"), tagged("fast")]
    choose, timed = chooser({"sdpa": 2.0, "slow": 3.0, "fast": 1.0}, *backends)
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert choose.choose("auto", *PLACE) is backends[2]
        assert choose.choose("auto", *PLACE) is backends[2]
    assert timed == ["sdpa", "slow", "fast"]
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "float32, B=2 H=3 Nq=11 Nk=7 d=16 on cpu: fast (" in message
    assert "slow 3.000 ms" in message


def test_another_shape_dtype_or_width_is_measured_anew() -> None:
    choose, timed = chooser({"sdpa": 1.0}, tagged("sdpa"))
    for dtype, width, shape in ((DTYPE, 16, SHAPE), (torch.float64, 16, SHAPE), (DTYPE, 8, SHAPE), (DTYPE, 16, (2, 3, 11, 8))):
        choose.choose("auto", CPU, dtype, width, shape)
    assert len(timed) == 4


def test_noise_does_not_choose() -> None:
    backends = [tagged("sdpa"), tagged("other")]
    assert chooser({"sdpa": 1.04, "other": 1.0}, *backends)[0].choose("auto", *PLACE).name == "sdpa"
    assert chooser({"sdpa": 1.06, "other": 1.0}, *backends)[0].choose("auto", *PLACE).name == "other"


def test_auto_takes_only_exact_usable_measured_ones() -> None:
    backends = [
        tagged("sdpa"),
        tagged("quantised", exact=False),
        tagged("reference", measured=False),
        tagged("absent", reason=lambda *_: "it is not installed"),
    ]
    choose, timed = chooser(dict.fromkeys(("sdpa", "quantised", "reference", "absent"), 0.1) | {"sdpa": 9.0}, *backends)
    assert choose.choose("auto", *PLACE).name == "sdpa"
    assert timed == ["sdpa"]


def broken(*_: Tensor) -> Tensor:
    raise RuntimeError("CUDA error: no kernel image is available. Compile with more.\nsecond line")


def unwritten_row(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = attend(q, k, v)
    out[1, 10, 32:] = float("nan")
    return out


def one_row_off(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = attend(q, k, v)
    out[1, 10, 32:] *= 1.03
    return out


def swapped_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q.flip(1), k.flip(1), v.flip(1))


def heads_last(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k, v).unflatten(-1, (3, -1)).transpose(2, 3).flatten(2)


def last_key_left_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k[:, :, :-1], v[:, :, :-1])


def no_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q * q.shape[-1] ** 0.5, k, v)


def other_shape(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k, v).unflatten(-1, (3, -1))


def other_dtype(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k, v).double()


WRONG = {
    broken: "it fails at its first call (RuntimeError: CUDA error: no kernel image is available)",
    unwritten_row: "its result is off by nan",
    one_row_off: "its result is off by",
    swapped_heads: "its result is off by",
    heads_last: "its result is off by",
    last_key_left_out: "its result is off by",
    no_scale: "its result is off by",
    other_shape: "it gives (2, 11, 3, 16)",
    other_dtype: "it gives (2, 11, 48) of torch.float64",
}


@pytest.mark.parametrize("run", WRONG, ids=lambda run: run.__name__)
def test_one_that_fails_or_is_wrong_falls_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    choose, timed = chooser({"sdpa": 9.0, "bad": 0.1}, tagged("sdpa"), tagged("bad", run))
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert choose.choose("auto", *PLACE).name == "sdpa"
    assert timed == ["sdpa"]
    assert f"bad is left out: {WRONG[run]}" in caplog.text


@pytest.mark.parametrize("run", WRONG, ids=lambda run: run.__name__)
def test_forced_one_that_fails_or_is_wrong_is_refused(run: Run) -> None:
    choose, _ = chooser({}, tagged("sdpa"), tagged("bad", run))
    with pytest.raises(InputError) as caught:
        choose.choose("bad", *PLACE)
    assert str(caught.value).startswith(f"The attention backend 'bad' cannot run here: {WRONG[run]}")


def test_one_that_fails_while_timed_falls_out(caplog: pytest.LogCaptureFixture) -> None:
    def timer(call: Callable[[], object], device: torch.device) -> float:
        if call.func is bad.run:
            raise RuntimeError("operation not permitted when stream is capturing")
        return 1.0

    good, bad = tagged("sdpa"), tagged("bad")
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert Chooser((bad, good), timer, measured=("cpu",)).choose("auto", *PLACE) is good
    assert "bad is left out: it fails when measured (RuntimeError: operation not permitted" in caplog.text


def test_where_nothing_can_be_measured_torch_chooses(caplog: pytest.LogCaptureFixture) -> None:
    choose, timed = chooser({}, tagged("sdpa", broken))
    assert choose.choose("auto", *PLACE).name == "sdpa"
    assert timed == []
    assert "sdpa is used" in caplog.text


def test_a_quantised_one_may_be_forced_and_be_off_a_little() -> None:
    def rounded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend((q * 8).round() / 8, (k * 8).round() / 8, v)

    choose, _ = chooser({}, tagged("sdpa"), tagged("rounded", rounded, exact=False), tagged("as exact", rounded))
    assert choose.choose("rounded", *PLACE).name == "rounded"
    with pytest.raises(InputError, match="its result is off by"):
        choose.choose("as exact", *PLACE)
    choose, _ = chooser({}, tagged("sdpa"), tagged("noise", lambda q, k, v: -attend(q, k, v), exact=False))
    with pytest.raises(InputError, match="its result is off by"):
        choose.choose("noise", *PLACE)


def test_refusals_name_the_reason_and_the_known() -> None:
    choose = Chooser()
    with pytest.raises(InputError, match=r"'sage' cannot run here: it needs a CUDA device, and this is cpu\. Use auto"):
        choose.choose("sage", *PLACE)
    known = "auto, sdpa, sdpa-flash, sdpa-efficient, sdpa-cudnn, sdpa-math, flash2, flash3, flash4, xformers, flex, sage"
    with pytest.raises(InputError, match=rf"'flash9' is unknown; use one of {known}\."):
        choose.choose("flash9", *PLACE)
    with pytest.raises(InputError, match="is unknown"):
        choose.choose("flash9", *PLACE, fall_back=True)


def test_a_hosts_wish_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    choose, _ = chooser({"sdpa": 2.0, "fast": 1.0}, tagged("sdpa"), tagged("fast"), tagged("bad", broken))
    assert choose.choose("bad", *PLACE, fall_back=True).name == "fast"
    assert "bad cannot run here: it fails at its first call" in caplog.text
    assert choose.choose("sdpa", *PLACE, fall_back=True).name == "sdpa"
    with pytest.raises(InputError):
        choose.choose("bad", *PLACE)


def test_on_a_cpu_auto_is_torchs_choice_without_measuring() -> None:
    def never(call: object, device: object) -> float:
        raise AssertionError("measured")

    choose = Chooser(timer=never)
    assert choose.choose("auto", *PLACE).name == "sdpa"
    assert choose.choose("auto", torch.device("mps"), torch.float16, 64, SHAPE).name == "sdpa"
    assert choose.choose("sdpa-math", *PLACE).name == "sdpa-math"


def test_forced_sdpa_is_not_tried() -> None:
    choose, _ = chooser({}, tagged("sdpa", broken))
    assert choose.choose("sdpa", *PLACE).name == "sdpa"


def test_bound_chooses_by_the_tensors() -> None:
    seen: list[tuple[object, ...]] = []

    class Spy(Chooser):
        def choose(self, *arguments: object) -> Backend:  # type: ignore[override]
            seen.append(arguments)
            return super().choose(*arguments)  # type: ignore[arg-type]

    q, k, v = draw((2, 5, 13, 7, 24))
    out = Spy().bound("sdpa-math")(q, k, v)
    assert seen == [("sdpa-math", CPU, torch.float32, 24, (2, 5, 13, 7), False)]
    torch.testing.assert_close(out.double(), attention(q, k, v), rtol=1e-4, atol=1e-5)


def test_measuring_leaves_random_state_alone() -> None:
    before = torch.get_rng_state()
    choose, _ = chooser({"sdpa": 1.0}, tagged("sdpa"))
    choose.choose("auto", *PLACE)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_choosers_share_nothing() -> None:
    backends = [tagged("sdpa"), tagged("other")]
    first, _ = chooser({"sdpa": 1.0, "other": 2.0}, *backends)
    second, timed = chooser({"sdpa": 2.0, "other": 1.0}, *backends)
    assert first.choose("auto", *PLACE).name == "sdpa"
    assert second.choose("auto", *PLACE).name == "other"
    assert timed == ["sdpa", "other"]


def test_the_reference_is_attention_in_every_dtype() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        q, k, v = draw((3, 2, 17, 31, 8), dtype)
        torch.testing.assert_close(measure.reference(q, k, v).double(), attention(q, k, v), rtol=1e-5, atol=1e-5)


def test_the_reference_of_a_long_clip_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of a minute and a half in float32 would be two gigabytes and more."""
    for queries, count in ((486, 486), (1094, 1094), (5000, 239), (100_000, 16)):
        rows = measure.checked_queries(measure.Shape(2, 14, queries, queries))
        assert len(rows) == len(rows.unique()) == count
        assert (rows[0], rows[-1]) == (0, queries - 1)
    monkeypatch.setattr(measure, "MOST_SCORES", 3 * 7 * 5)
    monkeypatch.setattr(measure, "FEWEST_QUERIES", 1)
    tried = measure.trial(CPU, DTYPE, WIDTH, measure.Shape(*SHAPE))
    assert tried.rows.tolist() == [0, 2, 5, 7, 10]
    torch.testing.assert_close(tried.expected, measure.reference(tried.q, tried.k, tried.v)[:, tried.rows])
    for run, said in WRONG.items():
        assert str(measure.fault(tagged("bad", run), tried)).startswith(said), run.__name__

    def unwritten_between(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attend(q, k, v)
        out[0, 4] = float("nan")
        return out

    assert measure.fault(tagged("bad", unwritten_between), tried) == "its result is not finite everywhere"
    assert measure.fault(tagged("good"), tried) is None


def test_too_little_memory_to_measure_is_no_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(measure, "reference", full)
    choose, timed = chooser({}, tagged("sdpa"), tagged("fast"))
    assert choose.choose("auto", *PLACE).name == "sdpa"
    assert choose.choose("fast", *PLACE).name == "fast"
    assert timed == []
    assert "too little memory to measure attention (CUDA out of memory)" in caplog.text
    assert "too little memory to check the attention backend fast" in caplog.text


def test_the_clock_takes_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, now = [], [0.0]

    def call() -> None:
        calls.append(1)
        warm = len(calls) <= measure.WARM_UP
        slow_round = (len(calls) - measure.WARM_UP - 1) // measure.CALLS != 2
        now[0] += 100.0 if warm else 0.004 if slow_round else 0.002

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    assert measure.time_ms(call, CPU) == pytest.approx(2.0)
    assert len(calls) == measure.WARM_UP + measure.ROUNDS * measure.CALLS

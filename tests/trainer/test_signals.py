"""Stop requests: a flag, not an end in the middle of a step."""

from __future__ import annotations

import signal

import pytest

from trainer.engine import signals
from trainer.engine.signals import StopRequest

from .helpers_ranks import ONE


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_the_flag_and_handlers_come_back(signum: signal.Signals, code: int) -> None:
    before = signal.getsignal(signum)
    with StopRequest() as stop:
        assert not stop.agreed(ONE)
        signal.raise_signal(signum)
        assert stop.requested
        assert stop.agreed(ONE)
        assert stop.exit_code == code
    assert signal.getsignal(signum) is before


def test_ctrl_c_passed_on_twice_is_one_wish_and_again_later_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now_s)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # from the terminal and from torchrun
        assert stop.requested
        now_s += 6
        signal.raise_signal(signal.SIGTERM)  # torchrun insists; the saving goes on
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

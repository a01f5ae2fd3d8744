"""Files and the progress bar. ``shown`` keeps what the bar was told."""

from __future__ import annotations

shown: list[tuple[int, int]] = []


def load_torch_file(ckpt, safe_load=False, device=None, return_metadata=False):
    from safetensors.torch import load_file

    return load_file(ckpt)


class ProgressBar:
    def __init__(self, total, node_id=None) -> None:
        self.total = total

    def update_absolute(self, value, total=None, preview=None) -> None:
        assert 0 <= value <= (self.total if total is None else total)
        shown.append((value, self.total if total is None else total))

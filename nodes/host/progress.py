"""The core's progress calls become the page's progress bar and the place where a run can be interrupted."""

from __future__ import annotations

from typing import Any


class HostProgress:
    """Called as (done, in all) or, as a StageProgress of the core, as (stage, done, in all); raises when interrupted."""

    def __init__(self) -> None:
        import comfy.model_management
        import comfy.utils

        self._management = comfy.model_management
        self._bar = comfy.utils.ProgressBar(1)

    def __call__(self, *progress: Any) -> None:
        done, total = progress[-2:]
        self._management.throw_exception_if_processing_interrupted()
        if total > 0:
            self._bar.update_absolute(min(done, total), total)

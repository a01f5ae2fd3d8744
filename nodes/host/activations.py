"""The flow network's need of memory, under the name that the pipeline uses."""

from __future__ import annotations

from ...mmaudio_core.pipeline.memory import flow_bytes as activation_bytes

__all__ = ["activation_bytes"]

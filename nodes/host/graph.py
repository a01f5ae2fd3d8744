"""What a node can say to the host's execution: become other nodes, or keep later ones from running."""

from __future__ import annotations

from typing import Any


def graph_builder() -> Any:
    """A builder of the nodes that a node turns into."""
    from comfy_execution.graph_utils import GraphBuilder

    return GraphBuilder()


def nothing(reason: str | None = None) -> Any:
    """The value of an output that has none: nodes that want it are left out, without an error unless a ``reason`` is given."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(reason)

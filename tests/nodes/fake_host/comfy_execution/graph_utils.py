"""Node expansion, and the value that keeps later nodes from running."""

from __future__ import annotations

from typing import Any


class Node:
    def __init__(self, id: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.id, self.class_type, self.inputs = id, class_type, inputs

    def out(self, index: int) -> list[Any]:
        return [self.id, index]


class GraphBuilder:
    def __init__(self, prefix: str | None = None) -> None:
        self._prefix, self._nodes = prefix or "fake.0.0.", {}

    def node(self, class_type: str, id: str | None = None, **kwargs: Any) -> Node:
        id = self._prefix + (id or str(len(self._nodes) + 1))
        assert id not in self._nodes
        self._nodes[id] = Node(id, class_type, kwargs)
        return self._nodes[id]

    def finalize(self) -> dict[str, Any]:
        return {id: {"class_type": node.class_type, "inputs": node.inputs} for id, node in self._nodes.items()}


class ExecutionBlocker:
    def __init__(self, message: str | None) -> None:
        self.message = message

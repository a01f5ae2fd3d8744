"""Writes locales/en/nodeDefs.json from the nodes' schemas: run it after a text of a node changed, then translate the others."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def english(schemas: list[Any]) -> dict[str, Any]:
    """What the page's translator takes, word for word as in the schemas."""
    return {schema.node_id: _node(schema) for schema in sorted(schemas, key=lambda schema: schema.node_id)}


def _node(schema: Any) -> dict[str, Any]:
    inputs = {}
    for given in schema.inputs:
        inputs[given.id] = {"name": given.display_name or given.id} | ({"tooltip": given.tooltip} if given.tooltip else {})
    outputs = {str(index): {"name": output.display_name} for index, output in enumerate(schema.outputs)}
    return {"display_name": schema.display_name, "description": schema.description, "inputs": inputs, "outputs": outputs}


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.nodes.host import running_host

    with tempfile.TemporaryDirectory() as folder, running_host(Path(folder)) as host:
        extension = asyncio.run(host.pack.comfy_entrypoint())
        schemas = [node.define_schema() for node in asyncio.run(extension.get_node_list())]
    texts = english([schema for schema in schemas if schema.node_id.startswith("MMAudioGraph")])
    path = ROOT / "locales" / "en" / "nodeDefs.json"
    path.write_text(json.dumps(texts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(f"{len(texts)} nodes in {path}")


if __name__ == "__main__":
    main()

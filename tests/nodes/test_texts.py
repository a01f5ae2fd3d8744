"""Help pages, translations and documents say what the schemas say."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from .host import ROOT, TINY, Host, running_host

PREFIX = "MMAudioGraph"
WEB, LOCALES, DOCS = ROOT / "web", ROOT / "locales", ROOT / "docs"
LANGUAGES = ("en", "zh", "zh-TW")
HELP = {"en": "{}.md", "zh": "{}/zh.md"}
TROUBLE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
NUMBER = {"2^64-1": 2**64 - 1}
FOUND = {TINY, "none", ""}
"""What lists of files show in a host whose model folders are empty."""


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Node id -> schema, in the order of registration; read once, with empty model folders."""
    with running_host(tmp_path_factory.mktemp("host")) as host:
        return _read(host)


def _read(host: Host) -> dict[str, Any]:
    """Of what ComfyUI gets; nodes that also answer to another pack's ids have no texts under those."""
    extension = asyncio.run(host.pack.comfy_entrypoint())
    schemas = [node.define_schema() for node in asyncio.run(extension.get_node_list())]
    return {schema.node_id: schema for schema in schemas if schema.node_id.startswith(PREFIX)}


def _help(node_id: str, language: str) -> str:
    return (WEB / "docs" / HELP[language].format(node_id)).read_text(encoding="utf-8")


def _tables(text: str) -> list[list[list[str]]]:
    """The tables of a text as rows of cells, without their heads."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif not inside:
            inside = True
            tables.append([])
        elif not line.startswith("|---"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return tables


def _ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def _number(word: str) -> float:
    return NUMBER[word] if word in NUMBER else float(word)


def _check_inputs(rows: list[list[str]], schema: Any) -> None:
    """Every row is the schema's input in its place: | input | meaning | default | range | unit | type |."""
    assert [_ticked(row[0])[0] for row in rows] == [given.id for given in schema.inputs]
    for (name, meaning, default, span, unit, kind), given in zip(rows, schema.inputs, strict=True):
        assert len(meaning) > 4, name
        assert re.split(r"[^A-Z_]", kind)[0] == given.io_type, name
        assert ("optional" in kind or "可选" in kind) == given.optional, name
        assert (unit != "-") == given.id.endswith(("_s", "_db", "fps", "duration")), name
        _check_value(name, default, span, given)


def _check_value(name: str, default: str, span: str, given: Any) -> None:
    if given.io_type in ("INT", "FLOAT"):
        assert _number(*_ticked(default)) == given.default, name
        assert [_number(word) for word in _ticked(span)] == [given.min, given.max], name
    elif given.io_type == "STRING":
        assert _ticked(default) == [given.default or '""'], name
    elif given.io_type == "BOOLEAN":
        assert _ticked(default) == [str(given.default).lower()], name
    elif given.io_type == "COMBO" and set(given.options) <= FOUND:
        assert not _ticked(default) + _ticked(span), f"{name}: a list of files has no default to name"
    elif given.io_type == "COMBO":
        assert _ticked(default) == [given.default], name
        assert _ticked(span) == list(given.options), name
    else:
        assert default == span == "-", name


def _check_outputs(rows: list[list[str]], schema: Any) -> None:
    assert [(_ticked(row[0])[0], row[2]) for row in rows] == [(o.display_name, o.io_type) for o in schema.outputs]
    assert all(len(row[1]) > 4 for row in rows)


@pytest.mark.parametrize("language", sorted(HELP))
def test_help_pages_say_what_the_schemas_say(language: str, schemas: dict[str, Any]) -> None:
    for node_id, schema in schemas.items():
        text = _help(node_id, language)
        inputs, outputs = _tables(text)
        _check_inputs(inputs, schema)
        _check_outputs(outputs, schema)
        assert text.startswith(f"# {schema.display_name}\n" if language == "en" else "# MMAudio\uff1a")
        assert text.count("\n## ") == 4, node_id


def test_help_pages_are_of_nodes_that_exist(schemas: dict[str, Any]) -> None:
    pages = {path.relative_to(WEB / "docs").as_posix() for path in (WEB / "docs").rglob("*.md")}
    assert pages == {name.format(node_id) for node_id in schemas for name in HELP.values()}


def test_one_script_reaches_the_page() -> None:
    """Only the one that says that what a node shows is a picture; the newer page takes it for a video else."""
    assert {path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.suffix != ".md" and path.is_file()} == {
        "preview.js"
    }
    for path in WEB.rglob("*.md"):
        assert "<script" not in path.read_text(encoding="utf-8").lower()


def _locale(language: str, name: str = "nodeDefs") -> Any:
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def test_the_english_locale_is_the_schemas(schemas: dict[str, Any]) -> None:
    spec = spec_from_file_location("make_locale", ROOT / "scripts" / "make_locale.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert _locale("en") == module.english(list(schemas.values())), "run scripts/make_locale.py, then translate the others"


def _paths(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, f"{path}/{key}")
    else:
        yield path, value


@pytest.mark.parametrize("language", LANGUAGES)
def test_locales_have_every_text(language: str) -> None:
    texts = dict(_paths(_locale(language)))
    assert set(texts) == set(dict(_paths(_locale("en"))))
    for path, text in [*texts.items(), *_paths(_locale(language, "main"))]:
        assert isinstance(text, str), path
        assert text.strip() == text != "", path
        # The page's translator takes these signs for commands, and shows nothing where they make no sense.
        assert not set(text) & set("{}@|"), path
        assert not any("." in key for key in path.split("/")), path
    if language != "en":
        english = dict(_paths(_locale("en")))
        same = [path for path, text in texts.items() if text == english[path] and len(text) > 12]
        assert not same, "not translated"


def test_locales_are_these() -> None:
    assert sorted(path.relative_to(LOCALES).as_posix() for path in LOCALES.rglob("*.json")) == sorted(
        f"{language}/{name}.json" for language in LANGUAGES for name in ("main", "nodeDefs")
    )


def test_categories_are_translated_only_where_they_are_ours(schemas: dict[str, Any]) -> None:
    used = {part for schema in schemas.values() for part in schema.category.split("/")}
    for language in LANGUAGES:
        assert set(_locale(language, "main")["nodeCategories"]) <= used


def test_the_document_of_the_nodes_has_the_help_tables(schemas: dict[str, Any]) -> None:
    text = (DOCS / "nodes.md").read_text(encoding="utf-8")
    pieces = re.split(r"^### ", text, flags=re.M)[1:]
    by_name = {piece.splitlines()[0]: piece for piece in pieces}
    assert set(by_name) == {schema.display_name for schema in schemas.values()}
    for node_id, schema in schemas.items():
        piece = by_name[schema.display_name]
        assert schema.is_deprecated or f'src="images/nodes/{node_id}.png"' in piece
        assert _tables(piece) == _tables(_help(node_id, "en")), node_id


def test_the_pictures_of_the_nodes_are_there() -> None:
    if not (DOCS / "images" / "nodes").is_dir():
        pytest.skip("the pictures of the nodes have not been rendered")
    for path in DOCS.glob("*.md"):
        for target in re.findall(r'<img src="([^"]+)"', path.read_text(encoding="utf-8")):
            assert (DOCS / target).is_file(), f"{path.name}: {target}"


def _literal(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return None


def _sources() -> list[tuple[Path, ast.Module]]:
    paths = [*(ROOT / "nodes").rglob("*.py"), *(ROOT / "mmaudio_core").rglob("*.py")]
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(paths)]


def _quotes() -> list[list[str]]:
    """The fixed parts of every quoted sentence of the troubleshooting document."""
    lines = [line[2:] for line in TROUBLE.splitlines() if line.startswith("> ")]
    return [[part.strip() for part in line.split("…") if len(part.strip()) > 3] for line in lines]


def test_quoted_sentences_are_in_the_source() -> None:
    literals = [text for _, tree in _sources() for node in ast.walk(tree) if (text := _literal(node))]
    everything = "\1".join(literals)
    quotes = _quotes()
    assert len(quotes) > 60
    for parts in quotes:
        assert parts, "a quotation without any fixed part"
        for part in parts:
            assert part in everything, part


def test_every_error_of_the_nodes_has_its_entry() -> None:
    """A sentence has one where a quoted part of 12 letters or more is in it."""
    quoted = [part for parts in _quotes() for part in parts if len(part) >= 12]
    for path, tree in _sources():
        if "mmaudio_core" in path.parts:
            continue
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            text = _literal(node.exc.args[0])
            if text and text.replace("\0", "").strip():
                assert any(part in text for part in quoted), f"{path.name}:{node.lineno}: {text}"


def test_requirements_pin_nothing() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    assert names == ["open_clip_torch"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names)

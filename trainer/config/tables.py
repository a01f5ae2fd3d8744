"""Tables of a TOML file to frozen dataclasses and back: unknown keys and wrong types are refused, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mmaudio_core.errors import InputError

T = TypeVar("T")


def from_table(kind: type[T], table: Mapping[str, Any], where: str, section: str = "") -> T:
    """The dataclass ``kind`` with the values of ``table``; what the table leaves out keeps its default.

    Fields may be bool, int, float, str, a ``Literal`` of strings, ``tuple[float, ...]``, ``tuple[str, ...]`` or another
    dataclass. where: the file, for messages. section: the dotted name of ``table`` in it.

    Raises:
        InputError: for an unknown key, naming the nearest known one, and for a value of another type.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        name = f"{section}.{key}" if section else key
        if key not in hints or key not in known:
            raise InputError(f"{where} has the unknown key {name}; {_nearest(name, key, kind, section)}")
        values[key] = _typed(hints[key], value, name, where)
    return kind(**values)


def to_table(config: Any) -> dict[str, Any]:
    """The opposite of ``from_table``: nested dictionaries with lists in place of tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in _items(config)}


def dump_toml(table: Mapping[str, Any], section: str = "") -> str:
    """``table`` as TOML text: strings, numbers, booleans and lists of them, then its sub-tables."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_toml(value)}" for key, value in plain.items()]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{section}.{key}" if section else key
            text += ("\n" if text else "") + f"[{name}]\n{dump_toml(value, name)}"
    return text


def _items(config: Any) -> list[tuple[str, Any]]:
    found = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        found.append((f.name, to_table(value) if dataclasses.is_dataclass(value) else value))
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # TOML wants digits on both sides of the point, or an exponent; repr gives one or the other.
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _nearest(name: str, key: str, kind: type, section: str) -> str:
    paths = _paths(kind, section)
    close = difflib.get_close_matches(name, paths, n=1, cutoff=0.6)
    if not close:
        leaves = {path.rpartition(".")[2]: path for path in paths}
        close = [leaves[leaf] for leaf in difflib.get_close_matches(key, leaves, n=1, cutoff=0.6)]
    if close:
        return f"the nearest known one is {close[0]}."
    known = ", ".join(f.name for f in dataclasses.fields(kind))
    return f"known here are {known}."


def _paths(kind: type, section: str) -> list[str]:
    found = []
    for name, hint in get_type_hints(kind).items():
        path = f"{section}.{name}" if section else name
        found.append(path)
        if dataclasses.is_dataclass(hint):
            found += _paths(hint, path)  # type: ignore[arg-type]
    return found


def _typed(hint: Any, value: Any, name: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where} has {name} = {value!r}; a section [{name}] is needed.")
        return from_table(hint, value, where, name)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if inner is str and isinstance(value, str):
            value = [value] if value else []  # one name needs no brackets
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where} has {name} = {value!r}; a list in brackets is needed, such as [{_example(inner)}].")
        return tuple(_typed(inner, item, name, where) for item in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(f"{where} has {name} = {value!r}; use one of {', '.join(map(repr, get_args(hint)))}.")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where} has {name} = {value!r}; {_WANTED[hint]} is needed.")
    if hint is float and not math.isfinite(value):
        raise InputError(f"{where} has {name} = {value!r}; a finite number is needed.")
    return value


_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: 'a text in quotes ("...")'}


def _example(inner: type) -> str:
    return "0.8, 0.9" if inner is float else '"first", "second"'

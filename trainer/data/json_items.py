"""A long JSON list read item by item, so that a file of a million entries needs the memory of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mmaudio_core.errors import InputError

_CHUNK = 1 << 16
_MAX_ITEM = 16 << 20
"""Characters of one value; what does not end by then is damaged, and must not be read into memory whole."""
_LONGEST_TAIL = 3
"""A number may go on beyond the window: "1.5e+" is 1.5 with a tail of two characters."""
_SPACE = " \t\n\r"


class _Reader:
    """A window on the text: values are decoded at its start and then dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def _more(self) -> bool:
        chunk = self._stream.read(max(_CHUNK, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def sign(self) -> str:
        """Takes the next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                self._at += 1
                return self._text[self._at - 1]
            if not self._more():
                return ""

    def back(self) -> None:
        """Puts the last ``sign`` back."""
        self._at -= 1

    def value(self) -> Any:
        """Takes the next value.

        Raises:
            ValueError: when there is none.
        """
        if not self.sign():
            raise ValueError("it ends too early")
        self.back()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > _MAX_ITEM or not self._more():
                    raise
                continue
            length = end - self._at
            if len(self._text) - end < _LONGEST_TAIL and self._more():
                continue
            self._at += length
            return value


def json_items(path: Path, name: str) -> Iterator[Any]:
    """The items of the list ``name`` of the JSON object in ``path``, one by one.

    Raises:
        InputError: no such file, no JSON object, no list of that name, or damage; what was read before has been given out.
    """
    given = 0
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            reader = _Reader(stream)
            _go_to(reader, name)
            if reader.sign() == "]":
                return
            reader.back()
            while True:
                item = reader.value()
                given += 1
                yield item
                sign = reader.sign()
                if sign == "]":
                    return
                if sign != ",":
                    raise ValueError(f"{sign!r} stands where ',' or ']' is needed")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a JSON file with a list {name!r}, or is damaged after {given} items of it: {error}."
        ) from error


def _go_to(reader: _Reader, name: str) -> None:
    """Passes over the members before ``name`` and the bracket that opens its list."""
    sign = reader.sign()
    if sign != "{":
        raise ValueError("it does not begin with '{'")
    while sign in ("{", ","):
        key = reader.value()
        if reader.sign() != ":":
            raise ValueError(f"no ':' follows {key!r}")
        if key == name:
            if reader.sign() != "[":
                raise ValueError(f"{name!r} is no list")
            return
        reader.value()
        sign = reader.sign()
    raise ValueError(f"it has no member {name!r}")

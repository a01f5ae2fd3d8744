"""Bytes of a file that lies on disk or behind an address: HTTP through Python's own library, all else through fsspec."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from threading import Event
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from mmaudio_core.errors import DependencyError, DownloadError, InputError

log = logging.getLogger("mmaudio")

ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
"""Before the second attempt; doubled before each further one."""
TIMEOUT_S = 60.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers that may be another one the next time."""


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether ``location`` is an address ("http://...", "s3://...") and no path."""
    return "://" in os.fspath(location)


def beside(location: str, name: str) -> str:
    """The file ``name`` in the folder or under the address ``location``; a query of an address stays at its end."""
    if not is_remote(location):
        return str(Path(location) / name)
    address, mark, query = location.partition("?")
    return f"{address.rstrip('/')}/{name}{mark}{query}"


def read_bytes(location: str, size_bytes: int | None = None, stop: Event | None = None) -> np.ndarray:
    """All of a file behind an address, uint8 (size,); asked for again after a pause when less comes than should.

    size_bytes: how long it must be; ``None`` believes what the server says. stop: once set, nothing is asked for again.

    Raises:
        DownloadError: when the last attempt fails too, or the server says that there is no such file.
        DependencyError: when fsspec, or what it needs for that kind of address, is missing.
    """
    fetch = _over_http if location.startswith(("http://", "https://")) else _through_fsspec
    stop = stop or Event()
    pause_s = FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _whole(fetch, location, size_bytes)
        except HTTPError as error:
            error.close()
            problem = f"the server answered {error.code} {error.reason}"
            if error.code not in _AGAIN:
                break
        except FileNotFoundError:
            problem = "there is no such file"
            break
        except (OSError, HTTPException) as error:
            problem = str(error) or type(error).__name__
        if attempt < ATTEMPTS and not stop.is_set():
            log.warning("%s: %s; trying again in %.1f s.", location, problem, pause_s)
            stop.wait(pause_s)
            pause_s *= 2
        if stop.is_set():
            break
    raise DownloadError(f"{location} could not be read: {problem}. Check the address and the connection.")


def _whole(fetch: Callable[[str, int | None], np.ndarray], location: str, size_bytes: int | None) -> np.ndarray:
    data = fetch(location, size_bytes)
    if size_bytes is not None and len(data) != size_bytes:
        raise OSError(f"{len(data)} of {size_bytes} bytes came")
    return data


def _over_http(location: str, size_bytes: int | None) -> np.ndarray:
    with urlopen(Request(location, headers={"User-Agent": "mmaudio-graph"}), timeout=TIMEOUT_S) as answer:
        stated = answer.headers.get("Content-Length")
        if stated is None:
            return _array(answer.read())
        if size_bytes is not None and int(stated) != size_bytes:
            raise OSError(f"the server has {stated} bytes of it, and {size_bytes} are expected")
        data = np.empty(int(stated), np.uint8)  # unlike a bytearray it is not filled with zeros first
        view, done = data.data, 0
        # Into one buffer: joining pieces would hold the file twice.
        while done < len(data) and (count := answer.readinto(view[done:])):
            done += count
        if done < len(data):
            raise OSError(f"the connection ended after {done} of {len(data)} bytes")
        return data


def _through_fsspec(location: str, size_bytes: int | None) -> np.ndarray:
    try:
        from fsspec.core import url_to_fs

        files: Any
        files, path = url_to_fs(location)
    except ImportError as error:
        raise DependencyError(f"Reading {location} needs fsspec and its part for such addresses: {error}.") from error
    except ValueError as error:
        raise InputError(f"{location} is no address that fsspec knows: {error}.") from error
    return _array(files.cat_file(path))


def _array(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8).copy()  # bytes cannot be written to, which torch warns of

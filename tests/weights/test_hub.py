"""Downloads against a hub on this machine. Runs with every release of huggingface_hub from 0.25 on."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import socket
import subprocess
import sys
import time

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub", reason="downloads need huggingface_hub")

from mmaudio_core.errors import DependencyError, DownloadError  # noqa: E402
from mmaudio_core.weights import hub as module  # noqa: E402
from mmaudio_core.weights import hub_client  # noqa: E402
from mmaudio_core.weights.hub import download  # noqa: E402
from mmaudio_core.weights.registry import CC_BY_NC, PublishedFile  # noqa: E402

from .fake_hub import fake_hub  # noqa: E402

CONTENT = bytes(range(256)) * 4096 * 3  # 3 MiB
FILE = PublishedFile(
    "v1-44.pth", "vae", "44k", "owner/Repo", "ext_weights/v1-44.pth", CC_BY_NC, hashlib.md5(CONTENT).hexdigest()
)
NO_MD5 = dataclasses.replace(FILE, md5=None)
NAME = "owner/Repo/ext_weights/v1-44.pth"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(hub_client, "cached", lambda repo, path: None)
    monkeypatch.setattr(module, "cached", lambda repo, path: None)
    # Retries wait a second each; the waiting is not what is tested.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def hub():
    with fake_hub({NAME: CONTENT}) as server:
        yield server


def get(hub, folder, file=FILE, **options):
    return download(file, folder, endpoint=hub.endpoint, progress=False, **options)


def leftovers(folder):
    return sorted(path.name for path in (folder / ".partial").iterdir() if "incomplete" in path.name)


def test_a_file_arrives(hub, tmp_path):
    path = get(hub, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "v1-44.pth"
    assert path.read_bytes() == CONTENT
    assert hub.gets == [(None, len(CONTENT))]
    assert leftovers(path.parent) == []


@pytest.mark.parametrize("file", [FILE, NO_MD5])
def test_a_file_that_is_there_costs_no_request(hub, tmp_path, monkeypatch, file):
    get(hub, tmp_path, file)
    asked = len(hub.requests)
    monkeypatch.setattr(module, "file_digest", None)  # nor is it read again
    assert get(hub, tmp_path, file).read_bytes() == CONTENT
    assert len(hub.requests) == asked


def test_a_file_put_there_by_hand_is_checked_once(hub, tmp_path):
    (tmp_path / "v1-44.pth").write_bytes(CONTENT)
    assert get(hub, tmp_path, offline=True) == tmp_path / "v1-44.pth"
    assert hub.requests == []
    (tmp_path / "v1-44.pth").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"is there, but it is damaged or another file \(MD5 \w{32}, published " + FILE.md5):
        get(hub, tmp_path)
    assert (tmp_path / "v1-44.pth").exists()
    assert get(hub, tmp_path, overwrite=True).read_bytes() == CONTENT


@pytest.fixture
def small_blocks(monkeypatch):
    """The client works in blocks of 10 MB, more than the file of these tests, and loses a block that is cut."""
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)


def test_a_cut_connection_is_resumed_within_one_call(hub, tmp_path, small_blocks):
    hub.cut_after = [1_000_000, 500_000]
    path = get(hub, tmp_path)
    assert path.read_bytes() == CONTENT
    (first, sent), (second, more), (third, last) = hub.gets
    assert (first, sent, more) == (None, 1_000_000, 500_000)
    begin, again = (int(asked.removeprefix("bytes=").rstrip("-")) for asked in (second, third))
    # Whole blocks are kept, so that only the rest is transferred.
    assert 1_000_000 - (1 << 16) < begin <= 1_000_000
    assert begin + 500_000 - (1 << 16) < again <= begin + 500_000
    assert last == len(CONTENT) - again


def test_an_interrupted_download_goes_on_at_the_next_call(hub, tmp_path, small_blocks):
    class Stop(Exception):
        pass

    def stop(done, total):
        assert total == len(CONTENT)
        if done > 0:
            raise Stop

    with pytest.raises(Stop):
        get(hub, tmp_path, on_bytes=stop)
    assert not (tmp_path / "v1-44.pth").exists()
    (partial,) = leftovers(tmp_path)
    done = (tmp_path / ".partial" / partial).stat().st_size
    assert done == 1 << 16
    assert get(hub, tmp_path).read_bytes() == CONTENT
    assert hub.gets[-1] == (f"bytes={done}-", len(CONTENT) - done)
    assert leftovers(tmp_path) == []


CHILD = """
import sys, os, time
import huggingface_hub.constants as c
c.DOWNLOAD_CHUNK_SIZE = 1 << 20
from mmaudio_core.weights.hub import download
from mmaudio_core.weights.registry import PublishedFile
file = PublishedFile("v1-44.pth", "vae", "44k", "owner/Repo", "ext_weights/v1-44.pth", "", sys.argv[3])
def die(done, total):
    if done >= 2 << 20: os.kill(os.getpid(), 9)
download(file, sys.argv[1], endpoint=sys.argv[2], progress=False, on_bytes=die)
"""


def test_a_killed_program_goes_on_at_the_next_start(hub, tmp_path):
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), hub.endpoint, FILE.md5], check=False)
    assert child.returncode == -9
    (partial,) = leftovers(tmp_path)
    done = (tmp_path / ".partial" / partial).stat().st_size
    assert done >= 1 << 20
    assert get(hub, tmp_path).read_bytes() == CONTENT
    assert hub.gets[-1] == (f"bytes={done}-", len(CONTENT) - done)


def test_pieces_of_two_versions_are_not_put_together(hub, tmp_path):
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "v1-44.pth.incomplete.0123456789abcdef").write_bytes(b"old" * 100)
    assert get(hub, tmp_path).read_bytes() == CONTENT
    assert hub.gets == [(None, len(CONTENT))]


def test_a_server_without_ranges_never_leaves_a_wrong_file(hub, tmp_path):
    hub.ranges = False
    mark = hashlib.sha256(CONTENT).hexdigest()[:16]
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / f"v1-44.pth.incomplete.{mark}").write_bytes(CONTENT[:1000])
    try:
        path = get(hub, tmp_path)
    except DownloadError:  # older releases append the whole file to the piece; that must not stay
        path = get(hub, tmp_path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("file", [FILE, NO_MD5])
def test_a_wrong_checksum(hub, tmp_path, file):
    hub.etag = hashlib.sha256(CONTENT).hexdigest()
    hub.files[NAME] = CONTENT[:-1] + b"x"
    kind = "md5" if file.md5 else "sha256"
    got, expected = (getattr(hashlib, kind)(data).hexdigest() for data in (hub.files[NAME], CONTENT))
    with pytest.raises(DownloadError, match=rf"its {kind.upper()} is {got}, published is {expected}; it was removed"):
        get(hub, tmp_path, file)
    assert not (tmp_path / "v1-44.pth").exists()
    assert leftovers(tmp_path) == []


def test_not_found(hub, tmp_path):
    file = dataclasses.replace(FILE, path="ext_weights/other.pth")
    with pytest.raises(DownloadError) as caught:
        get(hub, tmp_path, file)
    message = str(caught.value)
    assert message.startswith("v1-44.pth could not be fetched: the server does not have it (")
    url = f"{hub.endpoint}/owner/Repo/resolve/main/ext_weights/other.pth"
    assert message.endswith(f"Fetch it by hand from {url} and put it into {tmp_path}.")


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=r"v1-44\.pth could not be fetched: the connection failed \(\w+: ") as caught:
        download(FILE, tmp_path, endpoint=f"http://127.0.0.1:{port}", progress=False)
    assert f"put it into {tmp_path}." in str(caught.value)


def test_a_server_that_hangs_up(tmp_path):
    with fake_hub({NAME: CONTENT}) as server:
        server.cut_after = [0] * 20
        with pytest.raises(DownloadError, match=r"the connection failed|size"):
            get(server, tmp_path)
        assert not (tmp_path / "v1-44.pth").exists()


def test_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_client, "HEAD_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DownloadError, match=r"the connection failed \(\w*Timeout"):
            download(FILE, tmp_path, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", progress=False)


@pytest.mark.parametrize("how", ["argument", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_never_opens_a_socket(tmp_path, monkeypatch, how):
    def forbidden(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    if how != "argument":
        monkeypatch.setenv(how, "1")
    with pytest.raises(DownloadError) as caught:
        download(FILE, tmp_path, offline=how == "argument", progress=False)
    assert str(caught.value) == (
        "v1-44.pth could not be fetched: downloading is switched off (offline mode). Fetch it by hand from "
        f"https://huggingface.co/owner/Repo/resolve/main/ext_weights/v1-44.pth and put it into {tmp_path}."
    )


def test_a_copy_in_the_hubs_cache_is_used_even_offline(tmp_path, monkeypatch):
    blob = tmp_path / "cache" / hashlib.sha256(CONTENT).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(CONTENT)
    link = tmp_path / "cache" / "v1-44.pth"
    link.symlink_to(blob)
    monkeypatch.setattr(module, "cached", lambda repo, path: link)
    for file in (FILE, NO_MD5):
        path = download(file, tmp_path / str(file.md5), offline=True)
        assert path.read_bytes() == CONTENT
        assert not path.is_symlink()
    blob.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="offline mode"):
        download(FILE, tmp_path / "c", offline=True)


def test_the_real_cache_look_up_finds_nothing_and_opens_nothing(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(socket, "socket", None)
    assert hub_client.cached("owner/Repo", "ext_weights/v1-44.pth") is None


def test_full_disk_before_and_during(hub, tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000))
    with pytest.raises(DownloadError, match=r"has 1\.0 MB free and it needs 70\.\d MB"):
        get(hub, tmp_path)
    assert hub.gets == []
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "fetch", full)
    with pytest.raises(DownloadError, match="the disk is full; what has arrived is kept"):
        get(hub, tmp_path)


def test_a_folder_that_cannot_be_written_to(hub, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match=r"the folder .*/file/w cannot be written to \(Not a directory\)"):
        get(hub, tmp_path / "file" / "w")
    if os.geteuid() == 0:
        return  # root may write everywhere
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DownloadError, match=r"cannot be written to .Permission denied."):
        get(hub, tmp_path / "locked")


def test_releases_without_http_get(hub, tmp_path, monkeypatch):
    def absent(*args):
        raise ImportError("cannot import name 'http_get'")

    monkeypatch.setattr(module, "fetch", absent)
    assert get(hub, tmp_path).read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def test_a_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"Downloading needs huggingface_hub, .* install huggingface_hub"):
        download(FILE, tmp_path, progress=False)


def test_progress_is_reported(hub, tmp_path):
    seen = []
    get(hub, tmp_path, on_bytes=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_progress_switch_is_put_back(hub, tmp_path):
    assert not huggingface_hub.utils.are_progress_bars_disabled()
    get(hub, tmp_path)
    assert not huggingface_hub.utils.are_progress_bars_disabled()

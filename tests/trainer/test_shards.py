"""Shards and their index: what is written comes back bit for bit, from disk and from addresses; what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmaudio_core.errors import DownloadError, InputError, WeightsError
from mmaudio_core.weights.safetensors_file import write_safetensors
from tests.trainer.helpers_data import WIDTHS, made_up_dataset, made_up_sample, record_of
from tests.trainer.serving import serve
from trainer.data import source
from trainer.data.batch import collate
from trainer.data.index import INDEX_NAME, Index, join
from trainer.data.report import BadRow
from trainer.data.shards import Sample, Shard, write_shard

BAD = BadRow(7, "quiet", "quiet.wav", "silent", "0.")
INPUTS = ("latent_mean", "latent_std", "clip", "sync", "text")


def assert_same(found: Sample, wanted: Sample) -> None:
    assert (found.id, found.kind, found.caption) == (wanted.id, wanted.kind, wanted.caption)
    for name in INPUTS:
        value, expected = getattr(found, name), getattr(wanted, name)
        assert (value is None) == (expected is None), name
        if value is not None:
            assert value.dtype == expected.dtype, name
            assert torch.equal(value, expected), name


def write(path: Path, numbers: range, bad: tuple[BadRow, ...] = ()) -> list[Sample]:
    samples = [made_up_sample(n, "at" if n % 4 == 3 else "av") for n in numbers]
    write_shard(path, samples, [record_of(sample) for sample in samples], bad)
    return samples


def test_samples_come_back_bit_for_bit(tmp_path: Path) -> None:
    samples = write(tmp_path / "a.safetensors", range(9), (BAD,))
    shard = Shard(tmp_path / "a.safetensors")
    assert len(shard) == 9
    for found, wanted in zip(shard, samples, strict=True):
        assert_same(found, wanted)
    assert shard.bad == (BAD,)
    assert shard.records[2].path == "clip2.mp4"
    assert {sample.kind for sample in samples} == {"av", "at"}
    assert any(sample.text is None for sample in samples)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", range(5), (BAD,))
    write(tmp_path / "b.safetensors", range(5), (BAD,))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_shard_of_bad_rows_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", range(0), (BAD,))
    shard = Shard(tmp_path / "a.safetensors")
    assert len(shard) == 0
    assert shard.bad == (BAD,)


def test_file_names_that_are_no_unicode_are_kept(tmp_path: Path) -> None:
    bad = BadRow(1, "x", "caf\udce9.wav", "missing")
    write(tmp_path / "a.safetensors", range(1), (bad,))
    assert Shard(tmp_path / "a.safetensors").bad == (bad,)


def test_samples_and_records_must_be_of_the_same_clips(tmp_path: Path) -> None:
    samples = [made_up_sample(0), made_up_sample(1)]
    with pytest.raises(InputError, match="not of the same clips"):
        write_shard(tmp_path / "a.safetensors", samples, [record_of(samples[1]), record_of(samples[0])])


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, range(3))
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:-100], b"\xff" * 8 + whole[8:], whole[:8] + b"?" * 40 + whole[48:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"The shard .*a\.safetensors cannot be used"):
            Shard(path)
    path.write_bytes(whole)
    with pytest.raises(InputError, match=f"lists 12 bytes, and it has {len(whole)}"):
        Shard(path, 12)
    with pytest.raises(InputError, match="not those that the index lists"):
        Shard(path, len(whole), "0" * 64)
    write_safetensors(path, {"x": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="of another kind"):
        Shard(path)
    with pytest.raises(InputError, match="No such file"):
        Shard(tmp_path / "none.safetensors")


def test_a_shard_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    said = {"format": 1, "samples": [record_of(made_up_sample(0)).__dict__], "bad": []}
    write_safetensors(
        tmp_path / "a.safetensors", {"000000.latent_mean": torch.zeros(4, 3)}, {"mmaudio_shard": json.dumps(said)}
    )
    with pytest.raises(InputError, match="sample 0 has no latent_std"):
        Shard(tmp_path / "a.safetensors")


def test_the_index_counts_and_finds(tmp_path: Path) -> None:
    index = made_up_dataset(tmp_path / "data", [["av", "av", "at"], [], ["at"]])
    assert index.counts == {"av": 2, "at": 2}
    assert len(index) == 4
    assert index.widths == WIDTHS
    assert (index.audio.name, index.duration_s) == ("16k", 8.0)
    assert index.shards[0].rows("at") == [2]
    assert [sample.id for sample in index.shards[2].open(verify=True)] == ["clip3"]
    assert Index.load(tmp_path / "data" / INDEX_NAME) == index


def test_a_missing_or_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run mmaudio-train extract into that folder"):
        Index.load(tmp_path)
    for text in ("{", "[]", '{"format": 99}', '{"format": 1}'):
        (tmp_path / INDEX_NAME).write_text(text)
        with pytest.raises(InputError, match="damaged or no index"):
            Index.load(tmp_path)


def test_data_sets_join_when_they_are_alike(tmp_path: Path) -> None:
    one, two = made_up_dataset(tmp_path / "a", [["av"], ["at"]]), made_up_dataset(tmp_path / "b", [["at", "at"]])
    both = join([one, two])
    assert both.counts == {"av": 1, "at": 3}
    assert both.hash not in (one.hash, two.hash)
    assert join([one]) is one
    other = made_up_dataset(tmp_path / "c", [["at"]], WIDTHS.__class__((5, 3), (2, 5), (8, 6), (7, 4)))
    with pytest.raises(InputError, match="differ in widths"):
        join([one, other])


def test_a_batch_has_zeros_where_an_input_is_missing() -> None:
    samples = [made_up_sample(0), made_up_sample(1, "at"), made_up_sample(2)]
    batch = collate(samples, [4, 5, 9], WIDTHS)
    assert batch.ids == ("clip0", "clip1", "clip2")
    assert batch.positions == (4, 5, 9)
    assert batch.has_video.tolist() == [True, False, True]
    assert batch.has_text.tolist() == [True, True, False]
    assert not batch.clip[1].any()
    assert not batch.sync[1].any()
    assert not batch.text[2].any()
    for i, sample in enumerate(samples):
        for name in INPUTS:
            if (value := getattr(sample, name)) is not None:
                assert torch.equal(getattr(batch, name)[i], value)
    assert batch.to("cpu").latent_mean.dtype == torch.float32


def test_a_sample_of_other_shapes_is_named() -> None:
    other = WIDTHS.__class__((4, 3), (2, 5), (8, 6), (7, 9))
    with pytest.raises(InputError, match=r"The sample clip0 has text of shape \(7, 4\)"):
        collate([made_up_sample(0)], [0], other)
    with pytest.raises(InputError, match="no samples"):
        collate([], [], WIDTHS)


def test_shards_over_http(tmp_path: Path) -> None:
    index = made_up_dataset(tmp_path, [["av", "at"], ["av"]])
    with serve(tmp_path) as served:
        remote = Index.load(served.address)
        assert remote.counts == index.counts
        for here, there in zip(index.shards, remote.shards, strict=True):
            for found, wanted in zip(there.open(verify=True), here.open(), strict=True):
                assert_same(found, wanted)


def test_http_is_asked_again_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FIRST_PAUSE_S", 0.001)
    made_up_dataset(tmp_path, [["av"] * 4])
    with serve(tmp_path) as served:
        name = "shard-000000.safetensors"
        served.fail[name], served.cut[name] = 2, 2
        assert len(Index.load(served.address).shards[0].open()) == 4
        assert served.asked[name] == 5
        served.cut[name] = 99
        with pytest.raises(DownloadError, match=rf"{name} could not be read: the connection ended after \d+ of \d+ bytes"):
            Index.load(served.address).shards[0].open()
        with pytest.raises(DownloadError, match="404"):
            Index.load(served.address + "/elsewhere")
        assert served.asked[INDEX_NAME] == 3, "what is not there is not asked for again"


def test_a_damaged_file_behind_an_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FIRST_PAUSE_S", 0.001)
    index = made_up_dataset(tmp_path, [["av"] * 4])
    path = Path(index.shards[0].location)
    whole = bytearray(path.read_bytes())
    with serve(tmp_path) as served:
        info = Index.load(served.address).shards[0]
        whole[-1] ^= 1
        path.write_bytes(whole)
        with pytest.raises(DownloadError, match=r"shard-000000.*not those that the index lists"):
            info.open(verify=True)
        path.write_bytes(whole[:200])
        with pytest.raises(DownloadError, match=r"shard-000000.*the server has 200 bytes"):
            info.open()


def test_shards_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    index = made_up_dataset(tmp_path, [["av", "at"]])
    files = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        files.pipe_file(f"/data/{path.name}", path.read_bytes())
    remote = Index.load("memory://data")
    assert_same(remote.shards[0].open()[1], index.shards[0].open()[1])
    files.rm("/data/shard-000000.safetensors")
    with pytest.raises(DownloadError, match="there is no such file"):
        remote.shards[0].open()
    with pytest.raises(InputError, match="no address that fsspec knows"):
        Index.load("nowhere://data")


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="could not be written"):
        write(tmp_path / "no folder" / "a.safetensors", range(1))

"""Every wrong file gets one sentence: what it is, and what belongs there."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import save, save_file

from mmaudio_core.errors import WeightsError
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.files import open_tensors

from .support import tiny


def torch_bytes(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


class Payload:
    """Would make a file if it were ever unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("code-was-run",))


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"abcd"))
    return buffer.getvalue()


def disguised_tar_bytes() -> bytes:
    """A tar whose first field, a free name, begins like a torch pickle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."))
    return buffer.getvalue()


def zip_bytes(names) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def script_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            archive.writestr(name, b"x")
    return buffer.getvalue()


STATE = {"a.weight": torch.ones(300, 20), "b.bias": torch.zeros(4)}
WHOLE = save(STATE)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4123456789\n"

WRONG = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "truncated_safetensors.safetensors": (WHOLE[:-1000], r"is cut off: 23\.\d kB of 24\.\d kB are there; download it again"),
    "truncated_safetensors_header.safetensors": (
        WHOLE[:40],
        r"is cut off: a safetensors file whose list of tensors alone needs",
    ),
    "damaged_header.safetensors": (WHOLE[:8] + b"{" * 20 + WHOLE[28:], r"damaged list of tensors"),
    "odd_numbers.safetensors": (
        save({"a": torch.ones(1)}).replace(b'"F32"', b'"F31"'),
        r"damaged list of tensors .*number format F31, which is not supported",
    ),
    "short_shape.safetensors": (
        save({"a": torch.ones(4)}).replace(b'"shape":[4]', b'"shape":[5]'),
        r"a has 16 bytes for the shape \(5,\)",
    ),
    "no_tensors.safetensors": (save({}), r"is a safetensors file without any tensors"),
    "truncated_zip.pth": (torch_bytes(STATE)[:-600], r"is cut off: a torch file whose end is missing"),
    "page.pth": (b"\n<!DOCTYPE html><html><body>404</body></html>", r"is an HTML page, not weights"),
    "error.pth": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", r"is an XML text"),
    "pointer.safetensors": (LFS, r"is a git-LFS pointer .*git lfs pull"),
    "config.json": (json.dumps({"num_mels": 128, "upsample_rates": [8, 4]}).encode(), r"is a JSON text \(a configuration"),
    "index.json": (
        json.dumps({"weight_map": {"a": "x-1-of-2.safetensors"}}).encode(),
        r"is the index of a model in several pieces",
    ),
    "notes.pt": (b"see the README\n", r"is a text file \(it begins with 'see the README'\)"),
    "picture.pth": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, r"is a PNG picture"),
    "video.pth": (b"\0\0\0\x20ftypisom" + b"\0" * 100, r"is an MP4 video"),
    "quantised.safetensors": (b"GGUF\x03\0\0\0" + b"\0" * 100, r"is a GGUF file"),
    "graph.bin": (b"\x08\x08\x12\x07pytorch\x1a\x052.4.0" + b"\0" * 100, r"is an ONNX model"),
    "code.pth": (
        torch_bytes({"a": torch.ones(2), "b": Payload()}),
        r"contains code \(\w+\.mkdir\) besides tensors and was not run",
    ),
    "old_code.pth": (
        torch_bytes({"a": Payload()}, _use_new_zipfile_serialization=False),
        r"contains code \(\w+\.mkdir\) .* was not run",
    ),
    "plain_pickle.pt": (pickle.dumps({"a": Payload()}), r"is a Python pickle that torch did not write; .* it was not run"),
    "program.pt": (script_bytes(), r"is a TorchScript program; it contains code, which was not run"),
    "archive.pth": (
        zip_bytes(["weights/readme.txt"]),
        r"zip archive that torch did not write \(it holds weights/readme\.txt\)",
    ),
    "arrays.npz": (zip_bytes(["a.npy", "b.npy"]), r"is a NumPy archive"),
    "old.tar": (tar_bytes(), r"is a tar archive .* cannot be opened safely"),
    "disguised.pth": (disguised_tar_bytes(), r"is a tar archive .* cannot be opened safely"),
    "training.ckpt": (
        torch_bytes({"it": 3, "optimizer": {"state": {}}, "net_a": {"w": torch.ones(1)}, "net_b": {"w": torch.ones(1)}}),
        r"holds no model that can be told apart \(its keys: it, optimizer, net_a, net_b\)",
    ),
    "several.ckpt": (
        torch_bytes({"model": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}}),
        r"training checkpoint with several models under model, ema",
    ),
    "tensor.pt": (torch_bytes(torch.ones(3, 4)), r"holds one single tensor of shape \(3, 4\)"),
    "list.pt": (torch_bytes([torch.ones(1)]), r"holds a list, not a model"),
    "nothing.pt": (torch_bytes({}), r"is a torch file without any tensors"),
    "optimizer.pt": (
        torch_bytes({"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}),
        r"state of an optimiser",
    ),
    "lora.safetensors": (
        save({"blocks.0.attn.lora_A.weight": torch.ones(2, 2), "blocks.0.attn.lora_B.weight": torch.ones(2, 2)}),
        r"is a LoRA \(changes to a model\), not a model",
    ),
    "sd_lora.safetensors": (save({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}), r"is a LoRA"),
    "sd.safetensors": (save({"model.diffusion_model.input_blocks.0.weight": torch.ones(2)}), r"not a part of MMAudio"),
    "hf_clip.safetensors": (
        save({"text_model.encoder.layers.0.weight": torch.ones(2), "logit_scale": torch.ones(1)}),
        r"layout of transformers, not of open_clip",
    ),
    "sd_vae.safetensors": (
        save({"encoder.conv_in.weight": torch.ones(4, 3, 3, 3), "decoder.conv_out.weight": torch.ones(3, 4, 3, 3)}),
        r"is an autoencoder of another model",
    ),
    "other.safetensors": (WHOLE, r"holds 2 tensors \(a\.weight, b\.bias\) and is not a part of MMAudio"),
    "broken_download.pth": (b"\0" * 5000, r"begins with zero bytes only"),
    "noise.bin": (bytes(range(1, 256)) * 4, r"is of no known format \(it begins with 01 02 03"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, sentence = WRONG[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_part(path, "flow")
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith("; a flow network such as mmaudio_large_44k_v2.pth belongs here.")
    assert "\n" not in message
    assert not (tmp_path / "code-was-run").exists()


def test_missing_folder_and_link(tmp_path):
    with pytest.raises(WeightsError, match=r"does not exist; a mel VAE such as v1-44\.pth belongs here"):
        open_tensors(tmp_path / "v1-44.pth", "vae")
    with pytest.raises(WeightsError, match="is a folder, not a file; a weights file of MMAudio"):
        open_tensors(tmp_path)
    link = tmp_path / "link.pth"
    link.symlink_to(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match=r"is a link to .*gone\.pth, which does not exist"):
        open_tensors(link)


def test_another_part_is_named(tmp_path):
    path = tmp_path / "mmaudio_large_44k_v2.pth"
    torch.save(tiny("vae"), path)
    with pytest.raises(WeightsError) as caught:
        load_part(path, "flow")
    assert str(caught.value) == (
        f"{path} is a mel VAE (custom size, 44.1 kHz); a flow network such as mmaudio_large_44k_v2.pth belongs here."
    )


def test_newer_metadata_is_refused(tmp_path):
    path = tmp_path / "future.safetensors"
    save_file(tiny("vae"), path, metadata={"mmaudio_graph": json.dumps({"format": 2, "kind": "vae"})})
    with pytest.raises(WeightsError, match="was written in format 2; this version reads up to 1"):
        load_part(path, "vae")
    save_file(tiny("vae"), path, metadata={"mmaudio_graph": "{"})
    with pytest.raises(WeightsError, match="has damaged metadata"):
        load_part(path, "vae")


class TestRightFiles:
    """What must not be refused."""

    @pytest.mark.parametrize("key", ["generator", "state_dict", "model", "weights", "ema"])
    def test_nested(self, tmp_path, key):
        torch.save({key: STATE, "step": 3, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "x.pth")
        file = open_tensors(tmp_path / "x.pth")
        assert file.nested == key
        assert torch.equal(file.tensors["a.weight"], STATE["a.weight"])

    def test_plain_values_beside_tensors(self, tmp_path):
        torch.save({**STATE, "epoch": 3, "name": "x"}, tmp_path / "x.pth")
        assert set(open_tensors(tmp_path / "x.pth").tensors) == set(STATE)

    def test_old_pickle_format(self, tmp_path):
        torch.save(STATE, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
        file = open_tensors(tmp_path / "x.pth")
        assert file.format == "torch pickle"
        assert not file.mapped
        assert torch.equal(file.tensors["a.weight"], STATE["a.weight"])

    @pytest.mark.parametrize("ending", [".pth", ".safetensors", ".bin", ""])
    def test_content_decides_and_not_the_ending(self, tmp_path, ending):
        save_file(STATE, tmp_path / f"a{ending}")
        assert open_tensors(tmp_path / f"a{ending}").format == "safetensors"
        torch.save(STATE, tmp_path / f"b{ending}")
        assert open_tensors(tmp_path / f"b{ending}").format == "torch zip"

    def test_every_number_format(self, tmp_path):
        formats = (
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.float8_e4m3fn,
            torch.int64,
            torch.uint8,
            torch.bool,
        )
        state = {str(dtype): torch.arange(5).to(dtype) for dtype in formats} | {
            "scalar": torch.tensor(2.5),
            "none": torch.empty(0, 3),
        }
        save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
        file = open_tensors(tmp_path / "x.safetensors")
        assert file.metadata == {"format": "pt"}
        assert set(file.tensors) == set(state)
        for name, tensor in state.items():
            got = file.tensors[name]
            assert got.dtype == tensor.dtype
            assert got.shape == tensor.shape
            assert torch.equal(
                got.view(torch.uint8) if got.dim() else got, tensor.view(torch.uint8) if tensor.dim() else tensor
            )

    def test_unaligned_data(self, tmp_path):
        header = json.dumps(
            {
                "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
                "four": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
            }
        ).encode()
        data = b"abc" + struct.pack("<2f", 1.5, -2.0)
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + data)
        assert open_tensors(tmp_path / "x").tensors["four"].tolist() == [1.5, -2.0]

    def test_mapped_tensors_survive_a_release_and_do_not_write_to_the_file(self, tmp_path):
        big = {"x": torch.randn(1 << 18), "y": torch.randn(1 << 18)}
        save_file(big, tmp_path / "a.safetensors")
        torch.save(big, tmp_path / "b.pth")
        for name in ("a.safetensors", "b.pth"):
            before = (tmp_path / name).read_bytes()
            file = open_tensors(tmp_path / name)
            kept = file.tensors["x"]
            assert kept.sum() == big["x"].sum()
            file.release()
            assert torch.equal(kept, big["x"])
            kept.zero_()
            assert (tmp_path / name).read_bytes() == before

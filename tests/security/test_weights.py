"""Weights, states and arrays from elsewhere: none runs code, none takes more memory than it has; each refusal is one line."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from runs import options

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.imaging.float_formats import load_arrays
from relume.core.imaging.storage import UnreadableFile
from relume.core.runtime import checkpoint, pickles, unpickler
from relume.datasets.image_folder import ImageFolderDataset

TWO = b"\x80\x02"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def archive(path: Path, pickled: bytes, *more: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in [("w/data.pkl", pickled), ("w/version", b"3\n"), ("w/byteorder", b"little"), *more]:
            file.writestr(name, data)
    return path


def refused(path: Path) -> None:
    """Both readers refuse the file in one line."""
    for read in (pickles.read, checkpoint.load):
        with pytest.raises(UserError) as caught:
            read(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


# ------------------------------------------------------------------ code
FOREIGN = [
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"),
    ("subprocess", "Popen"), ("torch.serialization", "load"), ("torch.hub", "load"), ("numpy", "load"),
    ("pathlib", "os.system"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch.nn.modules", "os.system"), ("operator", "attrgetter"),
    ("importlib", "import_module"), ("torch.fx.graph", "_exec"), ("torch.jit", "load"), ("collections", "OrderedDict.__init__"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), FOREIGN)
@pytest.mark.parametrize("packed", [True, False])
def test_foreign_names_never_run(module: str, name: str, packed: bool, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    call = TWO + named(module, name) + pickle.dumps(f"touch {marker}", 2)[2:-1] + b"\x85R."
    path = archive(tmp_path / "w.pth", call) if packed else tmp_path / "w.pth"
    if not packed:
        path.write_bytes(call)
    refused(path)
    assert not marker.exists()


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("suffix", [".pth", ".state", ".pkl", ".npy", ".npz"])
def test_objects_never_run_whatever_the_file_is_called(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    marker, path = tmp_path / "ran", tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([Evil(marker)], object), allow_pickle=True)
    elif suffix == ".npz":
        np.savez(path, mu=np.array([Evil(marker)], object), allow_pickle=True)
    else:
        torch.save({"w": Evil(marker)}, path)
    Path("o.yml").write_text(yaml.safe_dump(options(path__pretrain_network_g=str(path))))
    for arguments in (["train", "-opt", "o.yml"], ["convert", str(path), "out.pth"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UnreadableFile, match=r"x\.\w+"):
        load_arrays(path, ("mu",))
    assert not marker.exists()


STATEFUL = [
    ("torch._utils", "_rebuild_tensor_v2"), ("_codecs", "encode"), ("torch.nn.modules.linear", "Linear"),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"), ("dnnlib.util", "EasyDict"), ("collections", "OrderedDict"),
    ("datetime", "datetime"), ("torch", "Size"), ("torch", "FloatStorage"), ("torch.storage", "_load_from_bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), STATEFUL)
@pytest.mark.parametrize("state", [{"x": 1}, (None, {"__defaults__": (1,)}), (None, {"__setitem__": 1})], ids=str)
def test_states_change_no_function_and_no_class(module: str, name: str, state: Any, tmp_path: Path) -> None:
    before = {n: dict(vars(v)) for n, v in vars(unpickler).items() if isinstance(v, type)}
    path = archive(tmp_path / "w.pth", TWO + named(module, name) + pickle.dumps(state, 2)[2:-1] + b"b.")
    with pytest.raises(UserError, match="takes none"):
        pickles.read(path)
    assert {n: dict(vars(v)) for n, v in vars(unpickler).items() if isinstance(v, type)} == before
    functions = (unpickler.rebuild_tensor, unpickler.encoded, unpickler.rebuild_persistent)
    assert [vars(f) for f in functions] == [{}] * 3 and unpickler.encoded.__defaults__ == ("latin1",)


def test_a_tensor_takes_no_state(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as file:
        content = file.read("good/data.pkl")
    at = content.rindex(b"R") + 1
    with zipfile.ZipFile(tmp_path / "good.pth") as file:
        parts = [(n.replace("good/", "w/"), file.read(n)) for n in file.namelist() if n.endswith("data/0")]
    path = archive(tmp_path / "w.pth", content[:at] + b"}b" + content[at:], *parts)
    with pytest.raises(UserError, match="a state for Tensor, which takes none"):
        pickles.read(path)


@pytest.mark.parametrize("name", ["../../marker", "{tmp}/marker", "w/../../marker", "..\\..\\marker"])
def test_names_of_entries_lead_nowhere(name: str, tmp_path: Path) -> None:
    """Archives are read in memory: an entry that is called like a file elsewhere is not written there."""
    folder = tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    name = name.format(tmp=tmp_path)
    torch.save({"w": torch.ones(2)}, folder / "w.pth")
    good = io.BytesIO()
    Image.new("RGB", (8, 8)).save(good, "PNG")
    for path in (folder / "w.pth", folder / "images.zip"):
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(f"{name}.png", good.getvalue())
            file.writestr("w/a.png", good.getvalue())
    for read in (pickles.read, checkpoint.load):
        with contextlib.suppress(UserError):  # torch wants all entries in one folder
            assert read(folder / "w.pth")["w"].tolist() == [1, 1]
    images = ImageFolderDataset(str(folder / "images.zip"))
    assert {images[i]["gt"].shape for i in range(len(images))} == {(3, 8, 8)}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "down", "images.zip", "w.pth"]


# ------------------------------------------------------------------ shapes of files
def test_which_of_two_pickles_is_meant_is_not_guessed(tmp_path: Path) -> None:
    refused(archive(tmp_path / "a.pth", b"}.", ("v/data.pkl", b"}.")))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path / "b.pth", b"}.", ("w/data.pkl", b"}."))
    with pytest.raises(UserError, match=r"no file of torch\.save"):
        pickles.read(path)


def nested(times: int) -> bytes:
    return b"}X\x06\0\0\0params" * times + b"}" + b"s" * times + b"."


RECURSIVE: dict[str, bytes] = {
    "a dictionary in itself": TWO + b"}q\0X\x06\0\0\0paramsh\0s.",
    "a list in itself": TWO + b"]q\0h\0a.",
    "very deep": TWO + nested(5000),
    "a circle of two": TWO + b"}q\0X\x06\0\0\0params}q\x01X\x06\0\0\0paramsh\0ss.",
}


@pytest.mark.parametrize("kind", RECURSIVE)
@pytest.mark.parametrize("packed", [True, False])
def test_what_contains_itself_is_one_line(kind: str, packed: bool, tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pth", RECURSIVE[kind]) if packed else tmp_path / "w.pth"
    if not packed:
        path.write_bytes(RECURSIVE[kind])
    refused(path)


def hashed_for_ever() -> bytes:
    made = TWO + b"K\x01\x85q\0"
    for i in range(60):
        made += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return made + b"}h<K\x01s."


CLAIMS: dict[str, bytes] = {
    "a string of 2^40 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40),
    "a text of 2^40 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40),
    "an array of 2^35 bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 35),
    "a frame of 2^40 bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.",
    "the billionth memory": TWO + b"Nr\xff\xff\xff\x3f.",
    "a number of 2^30 digits": TWO + b"\x8b" + struct.pack("<i", 1 << 30),
    "a key that is hashed for ever": hashed_for_ever(),
    "an extension": TWO + b"\x82\x01.",
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_lengths_that_are_claimed_take_no_memory(kind: str, tmp_path: Path) -> None:
    for packed in (True, False):
        path = archive(tmp_path / "w.pth", CLAIMS[kind]) if packed else tmp_path / "w.pth"
        if not packed:
            path.write_bytes(CLAIMS[kind])
        with pytest.raises(UserError) as caught:
            pickles.read(path)
        assert "\n" not in str(caught.value)


def test_packed_weights_unpack_to_no_more_than_the_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_CEILINGS", f"{1 << 28} {1 << 20} {1 << 40}")
    zeros = ("w/data/0", bytes(2 << 20))
    refused(archive(tmp_path / "w.pth", b"}.", zeros, compression=zipfile.ZIP_DEFLATED))
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "large.pth")  # as it is, whatever its size
    assert checkpoint.load(tmp_path / "large.pth")["w"].numel() == 1 << 20


def test_many_repeated_tensors_are_counted_together(tmp_path: Path) -> None:
    torch.save({str(i): torch.zeros(1).expand(1 << 23) for i in range(40)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: refused: tensors of far more numbers than are in the file"):
        pickles.read(tmp_path / "w.pth")
    tied = torch.ones(3, 4)
    torch.save({"a": tied, "b": tied, "c": tied.t()}, tmp_path / "tied.pth")
    assert pickles.read(tmp_path / "tied.pth")["c"].shape == (4, 3)


SAFETENSORS = {
    "empty": b"",
    "a header of 2^64 bytes": b"\xff" * 8,
    "a header of 2^40 bytes": struct.pack("<Q", 1 << 40) + b"{}",
    "no JSON": struct.pack("<Q", 10) + b'{"a":1    ',
    "a list": struct.pack("<Q", 2) + b"[]",
    "10^12 numbers": struct.pack("<Q", 80)
    + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'.ljust(80)
    + bytes(4),
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_damaged_safetensors_are_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS[kind])
    refused(tmp_path / "w.safetensors")


# ------------------------------------------------------------------ archives of arrays
def npz(header: bytes, name: str = "mu.npy", encrypted: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header)
    data = bytearray(buffer.getvalue())
    if encrypted:
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
ARRAYS: dict[str, Callable[[], bytes]] = {
    "10^12 numbers": lambda: npz(HUGE),
    "a password": lambda: npz(HUGE, encrypted=True),
    "another name": lambda: npz(HUGE, "../mu.npy"),
    "torn": lambda: npz(HUGE)[:-30],
    "no archive": lambda: b"PK\x03\x04",
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_damaged_archives_of_arrays_are_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(ARRAYS[kind]())
    with pytest.raises(UnreadableFile, match=r"x\.npz") as caught:
        load_arrays(tmp_path / "x.npz", ("mu",))
    assert "\n" not in str(caught.value)


def test_usual_archives_of_arrays_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", mu=np.arange(3.0), sigma=np.eye(3))
    mu, sigma = load_arrays(tmp_path / "x.npz", ("mu", "sigma"))
    assert mu.tolist() == [0, 1, 2] and sigma.shape == (3, 3)

"""Checkpoints as they are published: with numbers, dates and paths beside the weights."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib

import numpy as np
import pytest
import torch

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.runtime import checkpoint

BESIDE = {
    "a NumPy float": np.float64(31.2),
    "a NumPy integer": np.int32(3),
    "a NumPy bool": np.bool_(True),
    "a NumPy array": np.arange(6.0).reshape(2, 3),
    "a structured array": np.zeros(2, [("a", "f4"), ("b", "i8")]),
    "a NumPy type": np.dtype("float32"),
    "arguments": argparse.Namespace(lr=0.1, where=pathlib.PurePosixPath("/data")),
    "a path": pathlib.PurePosixPath("a/b"),
    "a date": datetime.datetime(2024, 1, 2, 3, 4),
    "a default dictionary": collections.defaultdict(list, a=[1]),
    "a counter": collections.Counter("aab"),
    "a type": torch.float16,
    "a device": torch.device("cpu"),
    "nested": {"history": [np.float32(1), (np.float64(2), {"deep": np.zeros(3)})]},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", BESIDE)
def test_what_is_beside_the_weights_is_passed_over(kind, legacy, tmp_path, capsys):
    source, target = tmp_path / "f.pth", tmp_path / "out.pth"
    weights = {"a": torch.randn(3, 2), "b": torch.arange(3)}
    torch.save({"params": weights, "beside": BESIDE[kind]}, source, _use_new_zipfile_serialization=not legacy)
    assert main(["convert", str(source), str(target)]) == 0, capsys.readouterr().err
    read = checkpoint.load(target)["params"]
    assert read.keys() == weights.keys() and all(torch.equal(read[k], weights[k]) for k in weights)


class Dangerous:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call", [(exec, "open('ran', 'w')"), (eval, "open('ran', 'w')"), (pathlib.Path.touch, pathlib.Path("ran"))]
)
def test_nothing_is_run(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": {"a": torch.zeros(2)}, "beside": Dangerous(*call)}, "f.pth")
    with pytest.raises(UserError, match=r"f\.pth"):
        checkpoint.load("f.pth")
    main(["convert", "f.pth", "out.pth"])
    assert not (tmp_path / "ran").exists()

"""Ranks and native code: who can reach the ranks' store, what may be said to them, and databases that are not whole."""

from __future__ import annotations

import json
import pickle
import socket
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from relume.core.commands.prepare import pack
from relume.core.imaging.storage import UnreadableFile
from relume.core.runtime import meeting, messages
from relume.datasets.loading.packets import death
from relume.datasets.sources import Lmdb, _close_databases


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_the_store_listens_on_the_masters_address_alone(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = meeting.RankPlace(rank=0, world=2, local_world=2, address=address, port=port, kept=False)
    with meeting._listen(place) as listening:
        assert listening.getsockname()[0] in ("127.0.0.1", "::1")


def test_messages_of_ranks_are_no_pickles(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    for message in (
        pickle.dumps({"a": 1}),
        b"",
        b"\0" * 8,
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", 9) + b'{"$":"x"}',
    ):
        with pytest.raises(ValueError, match=r"message|Expecting"):
            messages.unpack(message)
    with pytest.raises(TypeError):
        messages.pack(Evil())
    deep = json.dumps("x").encode()
    assert messages.unpack(struct.pack("<Q", len(deep)) + deep) == "x"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_database_that_is_cut_is_said_before_it_is_mapped(kept: float, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"in/{i}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    pack(str(tmp_path / "in"), str(tmp_path / "x.lmdb"))
    data = (tmp_path / "x.lmdb/data.mdb").read_bytes()
    (tmp_path / "x.lmdb/data.mdb").write_bytes(data[: int(len(data) * kept)])
    _close_databases()
    source = Lmdb(str(tmp_path / "x.lmdb"))
    for name in source.files.values():
        with pytest.raises(UnreadableFile, match=r"data\.mdb is cut: \d+ of \d+ bytes are there"):
            source.read(name)
    _close_databases()


def test_a_bus_error_is_not_blamed_on_memory() -> None:
    assert "a bus error (exit code -7)" in death(-7) and "LMDB" in death(-7) and "memory is short" not in death(-7)
    assert "memory fault" in death(-11) and "memory is short" in death(-9)

"""Loading processes of validation start once and stay; silent ones end a run with a message, dead ones are done without."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from relume.core.errors import UserError
from relume.datasets.loading.contents import contents
from relume.datasets.loading.loader import EvalLoader, build_eval_loader, unpack
from relume.datasets.loading.worker import Packet


class Told(torch.utils.data.Dataset[dict[str, Any]]):
    """Says which process made a sample; stalls at a number."""

    def __init__(self, length: int, stall: int | None = None) -> None:
        self.length = length
        self.stall = stall

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.stall:
            time.sleep(300)
        return {"lq": torch.full((1, 2, 2), float(index)), "pid": os.getpid()}


def passed(loader: EvalLoader) -> tuple[list[int], set[int]]:
    batches = list(loader)
    return [int(i) for b in batches for i in b["index"]], {int(p) for b in batches for p in b["pid"]}


def test_kept_processes_serve_every_pass_also_after_one_that_was_broken_off() -> None:
    loader = build_eval_loader(Told(7), workers=2, batch=2)
    loader.start()
    try:
        children = {p.pid for p in multiprocessing.active_children()}
        first = passed(loader)
        for count, _ in enumerate(loader):
            if count == 1:
                break
        second = passed(loader)
        assert first == second and first[0] == list(range(7)) and first[1] <= children and len(first[1]) == 2
    finally:
        loader.close()
    assert not first[1] & {p.pid for p in multiprocessing.active_children()}
    assert passed(loader)[0] == list(range(7))  # with processes of the pass's own


def test_a_process_that_died_between_passes_is_done_without(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(__import__("logging").getLogger("relume"), "propagate", True)
    loader = build_eval_loader(Told(5), workers=2)
    loader.start()
    try:
        (pid, *_) = passed(loader)[1]
        os.kill(pid, signal.SIGKILL)
        next(process for process in multiprocessing.active_children() if process.pid == pid).join(60)
        assert passed(loader) == (list(range(5)), {os.getpid()})
        assert "a loading process has died meanwhile" in caplog.text
    finally:
        loader.close()


@pytest.mark.parametrize("keep", [False, True])
def test_silent_processes_end_with_a_message(keep: bool) -> None:
    loader = build_eval_loader(Told(4, stall=2), workers=1, timeout=1)
    if keep:
        loader.start()
    began = time.monotonic()
    try:
        with pytest.raises(UserError, match=r"no batch has come from 1 loading process\(es\) within 1 s: .*timeout"):
            passed(loader)
    finally:
        loader.close()
    assert time.monotonic() - began < 60


def test_contents_tell_files_apart_but_not_the_places_where_they_lie(tmp_path: Any) -> None:
    class Files(Told):
        def __init__(self, root: Any, names: list[str]) -> None:
            super().__init__(len(names))
            self.paths = [f"{root}/{name}" for name in names]

        def result_path(self, index: int) -> str:
            return self.paths[index]

    for place in ("a", "b"):
        (tmp_path / place / "x").mkdir(parents=True)
        for name in ("x/1.png", "x/2.png", "3.png"):
            (tmp_path / place / name).write_bytes(name.encode())
    names = ["x/1.png", "x/2.png", "3.png"]
    first = contents(Files(tmp_path / "a", names))
    assert first == contents(Files(tmp_path / "b", names)) and first["samples"] == 3
    assert first["names"] != contents(Files(tmp_path / "a", ["x/1.png", "3.png", "x/2.png"]))["names"]
    (tmp_path / "b/3.png").write_bytes(b"longer than before")
    other = contents(Files(tmp_path / "b", names))
    assert other["names"] == first["names"] and other["sizes of files"] != first["sizes of files"]
    assert contents(Told(3)) == {"samples": 3}
    assert "sizes of files" not in contents(Files("s3://bucket/folder", names))


def test_a_packet_stays_one_in_page_locked_memory(monkeypatch: Any) -> None:
    """Also with lists of tuples in it, and with notes, which are looked up; a machine without a GPU has no such memory."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *device: tensor.clone())
    image = torch.rand(2, 3, 4, 4)
    batch = {"lq": image, "lq_path": ["a", "b"], "pairs": [("a", 1), ("b", 2)], "sizes": ((4, 4), (4, 4))}
    packet = Packet(batch, ((20, "a note"), (30, "another")), None, ((1, "a mistake"),), ("lq",))
    pinned = pin_memory(packet, "cuda")
    assert type(pinned) is Packet and pinned[1:] == packet[1:]
    found = unpack(pinned, set())
    assert torch.equal(found.pop("lq"), image) and found == {k: v for k, v in batch.items() if k != "lq"}

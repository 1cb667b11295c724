"""Public weights: fetched from a server of the test's own, resumed, checked, and named in option files."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from relume.archs import build_network
from relume.core import hub
from relume.core.building.networks import build_model
from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.options import check
from relume.core.options.places import missing

NETWORK = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 2}


class Server:
    """A web server of one file, which may break off, ignore ranges, or refuse."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stops_after: int | None = None
        self.resumes = True
        self.status: int | None = None
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                if outer.status is not None:
                    self.send_error(outer.status)
                    return
                start = int(re.findall(r"\d+", self.headers.get("Range") or "0")[0]) if outer.resumes else 0
                if start >= len(outer.content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                rest = outer.content[start:]
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: outer.stops_after])

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/net.pth"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELUME_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    torch.manual_seed(3)
    torch.save({"params": build_network(NETWORK).state_dict()}, home / "made.pth")
    content = (home / "made.pth").read_bytes()
    found = Server(content)
    name_it(home, found.url, hashlib.sha256(content).hexdigest())
    yield found
    found.http.shutdown()
    found.http.server_close()


def name_it(home: Path, url: str, sha256: str) -> None:
    entry = {"url": url, "sha256": sha256, "licence": "MIT", "network": NETWORK, "entry": "params"}
    (home / "weights.yml").write_text(yaml.safe_dump({"mine": entry}))


def test_every_entry_is_whole_and_builds() -> None:
    known = hub.read(hub.INDEX)
    assert {"realesrgan-x4plus", "realesr-general-x4v3"} <= set(known)
    assert len({e.sha256 for e in known.values()}) == len(known)
    for block in {str(entry.network): dict(entry.network) for entry in known.values()}.values():
        with torch.device("meta"):
            build_network(block)
    for entry in known.values():
        assert entry.url.startswith("https://") and entry.licence and entry.about


def test_a_download_is_fetched_once_and_checked(server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["download", "mine"]) == 0
        assert capsys.readouterr().out.startswith(str(home / "weights" / "net.pth"))
    assert server.ranges == [None], "once"
    assert (home / "weights/net.pth").read_bytes() == server.content
    assert main(["download", "hub:mine", "--to", "here"]) == 0 and Path("here/net.pth").is_file()
    assert main(["download", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "mine" in listed and "realesrgan-x4plus" in listed and "BSD-3-Clause" in listed


@pytest.mark.parametrize("resumes", [True, False])
def test_what_breaks_off_is_resumed(server: Server, home: Path, resumes: bool) -> None:
    server.stops_after, server.resumes = 1000, resumes
    with pytest.raises(
        UserError, match=r"it ended after 1,000 of .*; 1,000 bytes are kept.*Without a network: fetch it"
    ):
        hub.local("hub:mine")
    assert (home / "weights/net.pth.part").stat().st_size == 1000 and not (home / "weights/net.pth").exists()
    server.stops_after = None
    assert hub.local("hub:mine").read_bytes() == server.content
    assert server.ranges == [None, "bytes=1000-"]
    assert not list((home / "weights").glob("*.part"))


def test_all_of_it_was_there_before_it_was_checked(server: Server, home: Path) -> None:
    (home / "weights").mkdir()
    (home / "weights/net.pth.part").write_bytes(server.content)
    assert hub.local("hub:mine").read_bytes() == server.content


def test_another_file_than_promised_is_not_kept(server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name_it(home, server.url, "0" * 64)
    assert main(["download", "mine"]) == 2
    error = capsys.readouterr().err
    assert "is another file than the index says: SHA-256 " in error and error.count("\n") == 1
    assert [p.name for p in (home / "weights").iterdir()] == [".net.pth.lock"]
    (home / "weights/net.pth").write_bytes(b"mine, and no weights")
    with pytest.raises(UserError, match=r"is not the file of mine.*remove it"):
        hub.local("hub:mine")
    assert (home / "weights/net.pth").read_bytes() == b"mine, and no weights", "nothing of the user's is overwritten"


def test_no_network_and_no_file_are_one_line(server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.status = 404
    assert main(["download", "mine"]) == 2
    assert re.fullmatch(r"http://\S+: the server says 404 .*put it at \S+net\.pth\n", capsys.readouterr().err)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        name_it(home, f"http://127.0.0.1:{nobody.getsockname()[1]}/net.pth", "0" * 64)
        assert main(["download", "mine"]) == 2
    error = capsys.readouterr().err
    assert (
        "cannot be fetched (" in error and "Without a network: fetch it elsewhere" in error and error.count("\n") == 1
    )


def test_weights_by_name_in_options(server: Server, home: Path, said: list[str]) -> None:
    values = {"name": "x", "model_type": "RestorationModel", "scale": 2, "network_g": NETWORK}
    opt = check({**values, "path": {"pretrain_network_g": "hub:mine"}})
    assert not missing(opt)
    _, networks = build_model(opt, torch.device("cpu"), for_training=False)
    wanted = torch.load(home / "made.pth", weights_only=True)["params"]
    assert all(torch.equal(v, wanted[k]) for k, v in networks["g"].state_dict().items())
    assert any("loaded hub:mine [params]" in line for line in said)
    (line,) = missing(check({**values, "path": {"pretrain_network_g": "hub:mone"}}))
    assert line.startswith(
        "hub:mone: no public weights have this name. Did you mean 'mine'? See: relume download --list"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a", "the whole: an entry has url"),
        ("a: {url: x}", "a: an entry has url, sha256, licence and network"),
        ("a: {url: 'http://x/y.pth', sha256: 12, licence: MIT, network: {}}", "a: sha256 has 64"),
        (
            f"a: {{url: 'file:///etc/passwd', sha256: '{'0' * 64}', licence: M, network: {{}}}}",
            "a: url names a file by https",
        ),
        (f"a: {{url: 'http://x/..', sha256: '{'0' * 64}', licence: M, network: {{}}}}", "a: url names a file by https"),
        ("a: [", "cannot be read as an index of weights"),
    ],
)
def test_an_index_of_ones_own_that_is_none(
    home: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "weights.yml").write_text(content)
    assert main(["download", "a"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(("arguments", "said"), [([], "which weights?"), (["realesrgan-x4plu"], "Did you mean")])
def test_bad_input(home: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", *arguments]) == 2 and said in capsys.readouterr().err

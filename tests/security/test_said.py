"""Texts from outside: secrets are not written down, and nothing that a terminal, a log or a table would act on gets there."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest
import yaml
from runs import options

from relume.core.cli import main
from relume.core.commands.prepare import pack
from relume.core.commands.sweep import Run, table
from relume.core.errors import UserError, escaped, printable, redacted, without_secrets
from relume.core.imaging import storage
from relume.core.options import check, dump, load
from relume.core.runtime.last_words import LastWords
from relume.core.runtime.logger import Outside

HIDDEN = [
    "s3://AKIA:SECRET@bucket/x.png",
    "https://user:SECRET@host/x",
    "https://SECRET@host/x",
    "https://h/x?token=SECRET",
    "https://h/x?a=1&X-Amz-Signature=SECRET&b=2",
    "https://h/x?sig=SECRET#y",
    "https://h/x?access_token=SECRET",
    "az://c/x?sp=r&sig=SECRET",
    "s3://KEY:a@SECRET@bucket/x.pth",
    "s3://KEY:a/SECRET@bucket/x.pth",
    "HTTPS://u:SECRET@h/x",
    "https://h/x?%74oken=SECRET",
    "https://h/x#access_token=SECRET",
    "https://h/x?auth=SECRET&pwd=SECRET&jwt=SECRET",
    "https://h/x?Policy=SECRET&Signature=SECRET&Key-Pair-Id=1",
    "https://h/hf_0123456789abcdefSECRET/x",
]


@pytest.mark.parametrize("url", HIDDEN)
def test_secrets_of_urls(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (redacted(url), printable(f"see {url}"), str(without_secrets({"a": [url]}))):
        assert "SECRET" not in text and "***" in text
    opt = {**options(), "path": {"resume_state": url}}
    Path("o.yml").write_text(yaml.safe_dump(opt))
    assert "SECRET" not in dump(load("o.yml"))
    for arguments in (["describe", "o.yml"], ["describe", "o.yml", "--force_yml", f"path:resume_state={url}"]):
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert "SECRET" not in printed and "***" in printed
    assert main(["check", "o.yml", "--force_yml", f"path:resume_stat={url}"]) == 2
    assert "SECRET" not in capsys.readouterr().err


USUAL = [
    "https://h/x?n=1&monkey=2", "s3://bucket/a@b.png", "user@host", "a?token=x", "file:///a/b", "https://host:8080/a@2x.png",
    "/data/x:/a@b", "https://h:80/x@y?keyframe=1&author=x", "path/to: /a@b", "C:\\data\\a@b", "hf://org/model@main/file.pth",
    "s3://bucket/dir:a/b@c.png", "tokenizer=5 https://a/b",
]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["https://" + "a:" * 50_000, "s3://" * 20_000, "a:/" * 20_000, "https://h/?" + "token" * 20_000]
)
def test_long_texts_are_gone_through_quickly(text: str) -> None:
    began = time.process_time()
    redacted(text)
    assert time.process_time() - began < 30


def test_paths_and_logged_lines_hold_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a path has been made of the URL, which leaves one of its slashes, and in files that a run leaves."""
    monkeypatch.chdir(tmp_path)
    url = "https://KEY:SECRET@127.0.0.1:9/x"
    assert "SECRET" not in redacted(Path(url)) and "SECRET" not in printable(Path(url))
    words = LastWords(tmp_path / "run")
    words.own()
    words.begin()
    (tmp_path / "run").mkdir()
    words.write(2, f"{url}: cannot be read")
    log = logging.getLogger("relume.secret")
    handler = logging.FileHandler(tmp_path / "run/train.log")
    handler.addFilter(Outside())
    log.addHandler(handler)
    log.warning("%s", f"taking {url}")
    log.warning(f"taking {url}")
    log.removeHandler(handler)
    handler.close()
    written = [p.read_text() for p in (tmp_path / "run").iterdir()]
    assert len(written) == 2 and all("SECRET" not in text and "***" in text for text in written)


def test_what_holds_no_secret_stays() -> None:
    for text in USUAL:
        assert redacted(text) == text
    opt = check(options())
    assert yaml.safe_load(dump(opt))["name"] == opt.name


# ------------------------------------------------------------------ protocols
@pytest.mark.parametrize(
    "url",
    ["reference://$HOME/x", "zip://x.png::s3://b/a.zip", "github://o:r@/x", "ssh://h/x", "sftp://h/x", "simplecache::s3://b/x",
     "S3X://b/x", "filecache::file:///etc/passwd", "dask://x", "ftp://h/x"],
)  # fmt: skip
def test_protocols_that_do_more_than_read_are_refused(url: str) -> None:
    for use in (
        lambda: storage.read_bytes(url),
        lambda: storage.list_files(url),
        lambda: storage.write_bytes(url, b""),
    ):
        with pytest.raises(UserError, match=r"protocol .* are not read"):
            use()


def test_usual_protocols_and_those_that_are_named_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes("memory://security/x.bin", b"1")
    assert storage.read_bytes("memory://security/x.bin") == b"1"
    monkeypatch.setenv("RELUME_PROTOCOLS", "dask, ftp")
    storage.refuse_protocol("ftp://h/x")


# ------------------------------------------------------------------ terminals, logs, tables
def test_log_lines_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("relume.forged")
    log.addFilter(Outside())
    with caplog.at_level(logging.INFO):
        log.info("%s: is left out", "a.png\n2026-01-01 INFO: all is well\x1b[2J\u202e")
        log.info("%s", "ours\nin two lines")
        log.info("%s: %s, %d", Path("a\nb"), ValueError("c\nd"), 3)
    lines = [record.getMessage() for record in caplog.records]
    assert "\n" not in lines[0] and "\x1b" not in lines[0] and "\u202e" not in lines[0] and "\\n2026" in lines[0]
    assert lines[1:] == ["ours\nin two lines", "a\\nb: c\\nd, 3"]


@pytest.mark.parametrize("text", ["a|b", "a\nb", "<script>", "[x](http://y)", "`x`", "\x1b[31m"])
def test_cells_of_tables_mean_nothing(text: str) -> None:
    cell = escaped(text, "markdown")
    assert "\n" not in cell and "<" not in cell and "\x1b" not in cell
    assert cell.count("|") == cell.count("\\|") and cell.count("[") == cell.count("\\[")


def test_a_sweeps_table_holds_its_columns() -> None:
    opt = check(options())
    run = Run((("train.note", "a|b\n| forged | 1 |"),), [], opt, False)
    text = table([run])
    assert text.count("\n") == 3 and all(line.replace("\\|", "").count("|") == 3 for line in text.splitlines())


# ------------------------------------------------------------------ what is removed
@pytest.mark.parametrize("kind", ["mine", "file", "link"])
def test_packing_removes_only_what_it_left(kind: str, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), np.zeros((8, 8, 3), np.uint8))
    out, unfinished = str(tmp_path / "out.lmdb"), tmp_path / "out.lmdb.unfinished"
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("mine")
    if kind == "mine":
        os.rename(tmp_path / "home", unfinished)
    elif kind == "file":
        unfinished.write_text("mine")
    else:
        unfinished.symlink_to(tmp_path / "home")
    with pytest.raises(UserError, match="was not made here"):
        pack(str(tmp_path / "in"), out)
    assert unfinished.exists() and not Path(out).exists()
    assert kind == "file" or (unfinished / "thesis.txt").read_text() == "mine"


def test_an_interrupted_packing_is_taken_up_again(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "out.lmdb.unfinished").mkdir()
    (tmp_path / "out.lmdb.unfinished/data.mdb").touch()
    assert pack(str(tmp_path / "in"), str(tmp_path / "out.lmdb")) == 1


def test_opencvs_temporary_files_are_in_a_folder_of_our_own() -> None:
    from relume.core.imaging.opencv import cv2

    folder = Path(os.environ["OPENCV_TEMP_PATH"])
    assert cv2 is not None and (folder.stat().st_mode & 0o077 == 0 or folder.parent != Path("/tmp"))

"""Consoles, pipes and disks that do not take what is written: one line, and the run is complete."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from runs import options

from relume.core import cli
from relume.core.errors import EXIT_BROKEN_PIPE, EXIT_USER_ERROR
from relume.core.runtime import logger, streams

KINDS = {
    "a console of Western Europe": ({"PYTHONIOENCODING": "cp1252"}, subprocess.PIPE, 0),
    "a full disk": ({}, "full", EXIT_USER_ERROR),
    "a reader that has stopped": ({}, "pipe", EXIT_BROKEN_PIPE),
    "nothing": ({}, "closed", 0),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_help_that_cannot_be_written_is_no_success(arguments, unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "relume", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert "No space left on device" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_complete_whatever_takes_its_lines(kind, tmp_path):
    changed, where, code = KINDS[kind]
    root = tmp_path / "数据"
    root.mkdir()
    opt = options(train__total_iter=2, val__val_freq=2, path__experiments_root=str(root / "experiments"))
    (root / "o.yml").write_text(yaml.safe_dump(opt, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "relume", "train", "-opt", str(root / "o.yml")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | changed
    out: int = where if isinstance(where, int) else os.open("/dev/full", os.O_WRONLY)
    if where == "pipe":
        reading, out = os.pipe()
        os.close(reading)
    if where == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, env=environment, check=False, cwd=tmp_path)
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert "Traceback" not in said and "Logging error" not in said and len(said.splitlines()) <= 1
    assert (root / "experiments/toy/training_states/2.sha256").exists()
    (log,) = (root / "experiments/toy").glob("train_*.log")
    assert str(root) in log.read_text(encoding="utf-8")
    if where == subprocess.PIPE:
        assert "\\u6570\\u636e" in done.stdout.decode("ascii")


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EROFS, errno.ENAMETOOLONG, errno.EACCES]
)
def test_what_the_system_refuses_is_one_line(code, capsys):
    def refused(_: object) -> None:
        raise OSError(code, os.strerror(code), "some/file")

    command = SimpleNamespace(__doc__="", add_arguments=lambda p: None, run=refused)
    assert cli.execute(command, [], "x") == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert said.startswith(f"some/file: {os.strerror(code)}") and said.count("\n") == 1
    assert ("ulimit -n" in said) == (code == errno.EMFILE)


def test_other_errors_of_the_system_are_not_hidden():
    def defect(_: object) -> None:
        raise OSError(errno.EBADF, "a bug")

    with pytest.raises(OSError, match="a bug"):
        cli.execute(SimpleNamespace(__doc__="", add_arguments=lambda p: None, run=defect), [], "x")


def test_a_log_file_on_a_full_disk_costs_one_line(capsys, tmp_path):
    handler = streams.LogFile(tmp_path / "x.log")
    handler.stream.close()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    handler.stream = SimpleNamespace(write=refuse, flush=lambda: None, close=lambda: None)
    for _ in range(3):
        handler.handle(logger.log.makeRecord("relume", 20, "", 0, "%s", ("line",), None))
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path / 'x.log'} cannot be written (No space left on device); the run goes on without it"
    ]


def test_a_log_file_takes_names_that_are_in_no_encoding(tmp_path):
    handler = streams.LogFile(tmp_path / "x.log")
    handler.handle(logger.log.makeRecord("relume", 20, "", 0, "%s", ("a\udcffb",), None))
    handler.close()
    assert (tmp_path / "x.log").read_text() == "a\\udcffb\n"


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"[1]\n", b"3\n", b'{"iter": 1}\n{"it', b"null\n"])
def test_records_that_are_damaged_are_begun_anew(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    file = logger._reopen_records(tmp_path / "metrics.jsonl", 5, False)
    file.close()
    kept = (tmp_path / "metrics.jsonl").read_text()
    assert kept == ('{"iter": 1}\n' if b"iter" in content else "")

"""Consoles, pipes and disks that do not take what is written: one line, and the run is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from runs import CLOSED, REPO, UNREAD, forked, options

from relume.core import cli
from relume.core.errors import EXIT_BROKEN_PIPE, EXIT_USER_ERROR
from relume.core.reports import files
from relume.core.runtime import logger, streams

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


# ------------------------------------------------------------------ what is asked for on standard output, by every command
PRINTS = [
    *(["--help"], ["--version"]),
    *([command, "--help"] for command in cli.commands()),
    *(["list", "schedulers"], ["explain", "L1Loss"], ["template", "sr/x2"], ["runs", "."], ["clean", "toy"]),
    *(["check", "o.yml"], ["describe", "o.yml"], ["train", "-opt", "o.yml", "--check"]),
    *(["test", "-opt", "o.yml", "--check"], ["sweep", "-opt", "o.yml", "--dry-run", "manual_seed=1,2"]),
]


@pytest.fixture(scope="module")
def some_run(tmp_path_factory):
    """A folder with an option file and a run."""
    folder = tmp_path_factory.mktemp("prints")
    (folder / "o.yml").write_text(yaml.safe_dump(options(path={"experiments_root": str(folder)})))
    (folder / "toy").mkdir()
    (folder / "toy/metrics.jsonl").write_text('{"iter": 1, "l_total": 0.5}\n')
    (folder / "toy/toy.yml").write_text(yaml.safe_dump(options()))
    return folder


@pytest.mark.parametrize("arguments", PRINTS, ids=" ".join)
def test_what_cannot_be_printed_is_no_success(arguments, some_run, monkeypatch, capsys):
    monkeypatch.chdir(some_run)
    for place, code in (("/dev/full", EXIT_USER_ERROR), (None, EXIT_USER_ERROR), (os.devnull, 0)):
        capsys.readouterr()
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):  # closing writes what a buffer still has
            monkeypatch.setattr(sys, "stdout", opened.enter_context(open(place, "w")) if place else None)
            with pytest.raises(SystemExit) as left:
                cli.as_process(lambda: cli.main(arguments))
        said = capsys.readouterr().err
        assert left.value.code == code, (place, said)
        assert not code or ("standard output" in said.splitlines()[-1] and "Traceback" not in said), (place, said)


def test_what_cannot_be_complained_of_has_its_exit_code(monkeypatch, capsys):
    for arguments in (["list", "nothing"], ["list", "--nothing"], ["nothing"], ["train"]):
        with (
            contextlib.suppress(OSError),
            open("/dev/full", "w", buffering=1) as full,
            pytest.raises(SystemExit) as left,
        ):
            monkeypatch.setattr(sys, "stderr", full)
            cli.as_process(lambda arguments=arguments: cli.main(arguments))
        assert left.value.code == EXIT_USER_ERROR


# ------------------------------------------------------------------ what a training says while it runs
KINDS = {
    "a console of Western Europe": ({"PYTHONIOENCODING": "cp1252"}, None, 0),
    "a full disk": ({}, "/dev/full", EXIT_USER_ERROR),
    "a reader that has stopped": ({}, UNREAD, EXIT_BROKEN_PIPE),
    "nothing": ({}, CLOSED, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_complete_whatever_takes_its_lines(kind, tmp_path):
    changed, where, code = KINDS[kind]
    root = tmp_path / "数据"
    root.mkdir()
    opt = options(train__total_iter=2, val__val_freq=2, path__experiments_root=str(root / "experiments"))
    (root / "o.yml").write_text(yaml.safe_dump(opt, allow_unicode=True), encoding="utf-8")
    command = [str(REPO / "train.py"), "-opt", str(root / "o.yml")]
    done = forked(command, tmp_path, [{**os.environ, "OMP_NUM_THREADS": "1", **changed}], stdout=where)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Logging error" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert (root / "experiments/toy/training_states/2.sha256").exists()
    (log,) = (root / "experiments/toy").glob("train_*.log")
    assert str(root) in log.read_text(encoding="utf-8")
    if where is None:
        assert "\\u6570\\u636e" in done.stdout


# ------------------------------------------------------------------ what the system refuses
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
    (tmp_path / "x.log").symlink_to("/dev/full")
    handler = streams.LogFile(tmp_path / "x.log")
    for _ in range(3):
        handler.handle(logger.log.makeRecord("relume", 20, "", 0, "%s", ("line",), None))
    handler.close()
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path / 'x.log'} cannot be written (No space left on device); the run goes on without it"
    ]


def test_a_log_file_takes_names_that_are_in_no_encoding(tmp_path):
    handler = streams.LogFile(tmp_path / "x.log")
    handler.handle(logger.log.makeRecord("relume", 20, "", 0, "%s", ("a\udcffb",), None))
    handler.close()
    assert (tmp_path / "x.log").read_text() == "a\\udcffb\n"


DAMAGED = [b"\xff\xfe\n", b"[1]\n", b"3\n", b'{"iter": 1}\n{"it', b"null\n", b"[" * 100_000, bytes(40)]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda c: str(c[:12]))
def test_records_that_are_damaged_are_begun_anew(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    file = logger._reopen_records(tmp_path / "metrics.jsonl", 5, False)
    file.close()
    kept = (tmp_path / "metrics.jsonl").read_text()
    assert kept == ('{"iter": 1}\n' if b"iter" in content else "")


@pytest.mark.parametrize("iteration", ['"x"', "null", "[1]", "1e400", "{}", '"9"'])
def test_records_whose_iteration_is_no_number_stop_nobody(tmp_path, iteration):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"iter": {iteration}, "l_total": [1]}}\n{{"iter": 9, "metrics": 3, "dataset": []}}\n')
    run = files.Run(tmp_path)
    assert run.validations == [] and run.means == {} and isinstance(run.last, dict)
    logger._reopen_records(path, 5, False).close()
    assert '"iter": 9' not in path.read_text()

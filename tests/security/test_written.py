"""What a run folder or an option file from elsewhere may have written: nothing outside the run's own folders."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from runs import options

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.experiment import save_options
from relume.core.files import as_component, inside, is_component, is_temporary, refuse_links, replacing, temporary_name
from relume.core.imaging.gallery import Gallery
from relume.core.imaging.storage import write_bytes
from relume.core.options import OptionError, check
from relume.core.runtime import checkpoint
from relume.core.runtime.checkpoint import Checkpoints
from relume.core.runtime.last_words import LastWords

MARKER = "the user's own"


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file and a folder of the user's, outside of every experiment; the working directory is beside them."""
    (tmp_path / "home/models").mkdir(parents=True)
    (tmp_path / "home/.bashrc").write_text(MARKER)
    (tmp_path / "home/models/.net_g_5.pth.1.tmp").write_text(MARKER)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def untouched(home: Path) -> bool:
    files = {p.relative_to(home).as_posix(): p.read_text() for p in home.rglob("*") if p.is_file()}
    return files == {".bashrc": MARKER, "models/.net_g_5.pth.1.tmp": MARKER}


@pytest.mark.parametrize(
    "link",
    ["metrics.tmp", "metrics.jsonl", "toy.yml", "exit.json", "models", "visualization/held_out", "a/b/c.png", "."],
)
def test_links_in_a_run_folder_are_refused_by_name(link: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path("experiments/toy") / link
    place.parent.mkdir(parents=True)
    place.symlink_to(mine / ("models" if "." not in place.name else ".bashrc"))
    Path("o.yml").write_text(yaml.safe_dump(options()))
    for arguments in (["--auto_resume"], []):
        assert main(["train", "-opt", "o.yml", *arguments]) == 2
        error = capsys.readouterr().err
        assert str(place) in error and "link" in error and error.count("\n") == 1
    assert untouched(mine) and place.is_symlink()


@pytest.mark.parametrize("name", ["metrics.jsonl", "training_states/5.sha256", "a/b/pipe"])
def test_pipes_in_a_run_folder_are_refused_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path("experiments/toy") / name
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    Path("o.yml").write_text(yaml.safe_dump(options()))
    assert main(["train", "-opt", "o.yml", "--auto_resume"]) == 2
    error = capsys.readouterr().err
    assert str(place) in error and "a pipe" in error and error.count("\n") == 1


ODD = [
    "metrics.jsonl",
    "exit.json",
    "toy.yml",
    "metrics.json",
    "visualization/a_scores.jsonl",
    "training_states/5.sha256",
]


@pytest.mark.parametrize("name", ODD)
def test_reports_wait_for_no_pipe_and_read_no_device(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """These would hang, or take all memory."""
    for kind, run in (("pipe", Path("experiments/toy")), ("device", Path("experiments/other"))):
        place = run / name
        place.parent.mkdir(parents=True)
        (run / "models").mkdir()
        if kind == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to("/dev/zero")
    for command in (["runs"], ["clean"], ["compare", "experiments", "--md"], ["plot", "experiments", "-o", "x.png"]):
        assert main(command) in (0, 2)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err


@pytest.mark.parametrize("what", ["words", "records", "scores", "options"])
def test_reports_of_odd_records_are_reports(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("experiments/toy")
    (run / "visualization").mkdir(parents=True)
    odd = ["x", None, -1, 1e300, True, [], {}, "[" * 100_000, {"a": {"b": []}}]
    words = {"code": 0, "outcome": "complete", "reason": "", "iteration": 3, "rank": 0, "ranks": 1, "session": "",
             "attempt": 0, "host": "h", "time": "t"}  # fmt: skip
    for value in odd:
        if what == "words":
            for key in ("code", "outcome", "reason", "iteration"):
                (run / "exit.json").write_text(json.dumps({**words, key: value}))
                assert main(["runs"]) == 0
        entries: list[Any] = [
            {"iter": value, "l_pix": value, "lr": value, "perf/eta": value, "perf/wall_clock": value},
            {"iter": value, "dataset": "a", "metrics": {"psnr": value}, "better": value},
            {"iter": 1, "dataset": value, "metrics": value},
        ]
        if what == "records":
            text = "".join(json.dumps(e) + "\n" for e in [*entries, value])
            (run / "metrics.jsonl").write_text(text + ("[" * 100_000) + "\n")
        if what == "scores":
            (run / "metrics.jsonl").write_text(json.dumps({"iter": 1, "dataset": "a", "metrics": {"psnr": 1}}) + "\n")
            rows = [{"image": value, "psnr": value, "output_path": value, "gt_path": value, "lq_path": value}, value]
            (run / "visualization/a_scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if what == "options":
            (run / "metrics.jsonl").write_text('{"iter": 1}\n')
            (run / "toy.yml").write_text(f"train: {value}\nval:\n  best: {value}\n" + "- x\n" * 5)
        for command in (["runs"], ["runs", "--json"], ["compare", "experiments/toy", "--md"], ["clean"]):
            assert main(command) in (0, 2), (command, value)
            assert capsys.readouterr().err.count("\n") < 20


def test_clean_deletes_nothing_through_links(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (5, 10):
        (mine / f"models/net_g_{n}.pth").write_text(MARKER)
    run = Path("experiments/toy")
    (run / "training_states").mkdir(parents=True)
    (run / "models").symlink_to(mine / "models")
    Path("experiments/toy_archived_20200101_000000").symlink_to(mine)
    for n in (5, 10):
        (run / f"training_states/{n}.state").write_text("x")
        line = f"{hashlib.sha256(b'x').hexdigest()}  {n}.state\n"
        (run / f"training_states/{n}.sha256").write_text(line)
    assert main(["clean", "--yes", "--pictures", "--archived"]) == 0
    assert "experiments/toy/models: the run has a link" in capsys.readouterr().err
    assert len(list(mine.rglob("*.pth"))) == 2 and (run / "training_states/5.state").exists()


def test_manifests_name_files_of_checkpoints_only(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / "training_states").mkdir()
    for name in ("/etc/passwd", "../../x", "../models/../../x", "/dev/zero", "a/b", "\0", "y" * 5000, "\x1b[31m"):
        (tmp_path / "training_states/5.sha256").write_text(f"{'0' * 64}  {name}\n")
        problem = checkpoints.verify(5)
        assert problem is not None and "\n" not in problem


def test_links_in_a_folder_of_curves_or_results_are_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, command in (("tb_logger/toy", "train"), ("results/toy", "test")):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "x").symlink_to(mine)
        Path("o.yml").write_text(yaml.safe_dump(options()))
        more = ["--random_weights"] if command == "test" else []
        assert main([command, "-opt", "o.yml", *more]) == 2
        assert f"{folder}/x: the " in capsys.readouterr().err
    assert untouched(mine)


def test_what_an_experiment_is_in_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch/toy").mkdir(parents=True)
    (tmp_path / "experiments").symlink_to(tmp_path / "scratch")
    refuse_links(tmp_path / "experiments/toy", "the experiment")
    refuse_links(tmp_path / "experiments/absent", "the experiment")


def test_sweeping_takes_only_plain_files_of_our_own(mine: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "training_states").mkdir(parents=True)
    (run / "models").symlink_to(mine / "models")
    (run / ".x.0123456789abcdef.tmp").symlink_to(mine / ".bashrc")
    for name in (".mine.tmp", "x.tmp", ".x.tmp.png"):
        (run / name).touch()
    ours = temporary_name(run / "training_states/5.state")
    ours.touch()
    for _ in range(2):
        Checkpoints(run).sweep()
    assert untouched(mine) and not ours.exists() and (run / ".x.0123456789abcdef.tmp").is_symlink()
    assert all((run / name).exists() for name in (".mine.tmp", "x.tmp", ".x.tmp.png"))


@pytest.mark.parametrize("write", ["checkpoint", "storage", "replacing"])
def test_temporary_files_have_names_that_nobody_foresees_and_follow_no_links(
    write: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.bin"
    writers = {
        "checkpoint": lambda: checkpoint.write_atomically(target, lambda file: file.write(b"new")),
        "storage": lambda: write_bytes(target, b"new"),
        "replacing": lambda: _replace(target),
    }
    assert temporary_name(target) != temporary_name(target)
    target.symlink_to(mine / ".bashrc")
    writers[write]()
    assert untouched(mine) and not target.is_symlink() and target.read_bytes() == b"new"
    foreseen = tmp_path / ".x.bin.00.tmp"
    foreseen.symlink_to(mine / ".bashrc")
    monkeypatch.setattr("secrets.token_hex", lambda n: "00")
    with pytest.raises((UserError, FileExistsError)):
        writers[write]()
    assert untouched(mine)


def _replace(target: Path) -> None:
    with replacing(target) as file:
        file.write(b"new")


def test_a_replacement_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as file:
        file.write(b"new")
        raise ZeroDivisionError
    with replacing(tmp_path / "x", over=False) as file:
        file.write(b"other")
    assert (tmp_path / "x").read_text() == "old" and os.listdir(tmp_path).count("x") == 1
    assert not [p for p in tmp_path.iterdir() if is_temporary(p)]


# ------------------------------------------------------------------ names
LEAVING = [
    "/home/x/.ssh",
    "../../x",
    "..",
    ".",
    "a/b",
    "a\\b",
    "a\nb",
    "a\x1b[31m",
    "",
    " ",
    ".ssh",
    "x" * 250,
    "a;b",
    "$(x)",
]
KINDS: dict[str, dict[str, Any]] = {
    "name": {"name": None},
    "datasets.val.name": {"datasets__val__name": None},
    "val.suffix": {"val__suffix": None},
}


@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("name", LEAVING, ids=ascii)
def test_names_are_one_component_of_a_path(key: str, name: str) -> None:
    (path,) = KINDS[key]
    with pytest.raises(OptionError) as caught:
        check(options(**{path: name}) if path != "name" else {**options(), "name": name})
    message = str(caught.value)
    assert key in message and "\n" not in message and "\x1b" not in message
    assert "no '/'" in message or "U+001B" in message
    assert "path.experiments_root" in message or key != "name" or "U+001B" in message


@pytest.mark.parametrize(
    "name", ["EDSR_Lx2_f256b32-1e-4", "x4+ v1.5", "雾", "Müller", "007", "Urban100 (x4)", "lr=1e-4,b=2"]
)
def test_usual_names_pass(name: str) -> None:
    opt = check(options(name, datasets__val__name=name, val__suffix=name))
    assert (opt.name, opt.val.suffix) == (name, name)


def test_names_of_weights_files_become_names_of_runs() -> None:
    assert as_component("../a;b") == "_a_b" and as_component("...") == "unnamed" and as_component("雾 1") == "雾 1"
    assert is_component(as_component("é" * 300))


def test_pictures_stay_below_their_folder(tmp_path: Path) -> None:
    import torch

    gallery = Gallery(tmp_path / "out", lambda dataset, image, i: f"{image}/{image}.png", save_images=True)
    with pytest.raises(UserError, match="lies outside"):
        gallery.save("set", "../../../evil", 1, 0, {"output": torch.zeros(1, 3, 8, 8)})
    assert not list(tmp_path.rglob("*.png"))
    assert inside(tmp_path, tmp_path / "a/b") == tmp_path / "a/b"
    assert np.array_equal(gallery.save("set", "fine", 1, 0, {"output": torch.zeros(1, 3, 8, 8)}), [])


@pytest.mark.parametrize("phase", ["val_../../x", "test_a/b", "val_\\", "val_a\nb", "val_" + "x" * 300])
def test_phases_are_names_as_well(phase: str) -> None:
    """A data set without a name is called by its phase."""
    opt = options()
    opt["datasets"][phase] = {**opt["datasets"]["val"], "name": None}
    with pytest.raises(OptionError, match="datasets"):
        check(opt)
    opt["datasets"]["val_Urban100 x4.2"] = opt["datasets"].pop(phase)
    assert "val_Urban100 x4.2" in check(opt).datasets


def test_links_that_lead_to_each_other_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yml").symlink_to("b.yml")
    Path("b.yml").symlink_to("a.yml")
    Path("p.py").symlink_to("p.py")
    Path("o.yml").write_text("_base_: a.yml\n")
    Path("q.yml").write_text(yaml.safe_dump({**options(), "plugins": ["p.py"]}))
    for file in ("a.yml", "o.yml", "q.yml"):
        assert main(["check", file]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_other_names_of_a_users_file_keep_what_is_in_it(mine: Path, tmp_path: Path) -> None:
    """A hard link is no link that could be seen; so files of a run are replaced, and never written into."""
    from relume.core.reports.files import Run
    from relume.core.runtime.logger import _reopen_records

    run = tmp_path / "run"
    run.mkdir()
    for name in ("metrics.jsonl", "exit.json", "toy.yml"):
        os.link(mine / ".bashrc", run / name)
    with _reopen_records(run / "metrics.jsonl", 0, True) as records:
        records.write('{"iter": 1}\n')
    words = LastWords(run)
    words.own()
    words.write(1, "the end")
    save_options(run / "toy.yml", check(options()))
    assert untouched(mine) and [r["iter"] for r in Run(run).records()] == [1]

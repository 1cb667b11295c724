"""Every command of the README is run, in a folder laid out as the README says, on what the README's own blocks contain."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from runs import REPO, forked

from relume.core import options

README = (REPO / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    if line.strip()
]
SHORTER = ["train:total_iter=2", "val:val_freq=2", "datasets:train:batch_size_per_gpu=1"]
"""The README's runs take minutes; these take seconds, and differ in nothing else."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader who followed the README has: the repository's files, the files it shows, two folders of pictures."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("train.py", "test.py", "tools", "options", "setup.py", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(REPO / name)
    for _, text in BLOCKS:
        name = re.match(r"# (\w+\.(?:py|yml))\n", text)
        if name:
            (folder / name.group(1)).write_text(text, encoding="utf-8")
    mine = next(text for language, text in BLOCKS if language == "yaml" and "name: mine" in text)
    (folder / "mine.yml").write_text(mine, encoding="utf-8")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for side in ("input", "gt"):
            (folder / "data" / split / side).mkdir(parents=True)
            for i in range(6 if split == "train" else 3):
                picture = rng.integers(0, 255, (72, 80, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / "data" / split / side / f"{i}.png"), picture)
    return folder


def run(command: list[str], folder: Path) -> str:
    """What a command says. Those of Python are run by a fork of a process that has imported everything, but for one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    kind, *words = command
    if kind == "relume":  # the console command may not be installed where the package is only on the path
        done = forked(["-m", *command], folder, [environment])
    elif kind == "torchrun":
        done = forked([str(REPO / "tests/torchrun.py"), "torch.distributed.run", *words], folder, [environment])
    elif kind == "python" and words[:3] != ["train.py", "-opt", "options/quickstart.yml"]:
        done = forked(words, folder, [environment])
    else:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readme_has_the_commands_that_this_test_knows_how_to_run() -> None:
    assert {c.split()[0] for c in COMMANDS} <= {"make", "pip", "python", "relume", "torchrun"}
    assert sum("train.py" in c for c in COMMANDS) >= 4 and {c.split()[1] for c in COMMANDS if c[:6] == "relume"} < set(
        SAID
    )


def trained(command: str, folder: Path) -> str:
    """What a training of the README says, in short."""
    words = shlex.split(command)
    words += SHORTER if "--force_yml" in words else ["--force_yml", *SHORTER]
    return run(words, folder)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "train.py" in c])
def test_training_commands(command: str, folder: Path) -> None:
    assert ("whole run" if "--dry_run" in command else "Done in") in trained(command, folder)


def test_the_block_for_own_data_as_it_stands(folder: Path) -> None:
    loaded = options.load(folder / "mine.yml").datasets["train"]
    base = options.load("relume:quickstart.yml").datasets["train"]
    assert loaded.type == "PairedImageDataset" and loaded.batch_size_per_gpu == base.batch_size_per_gpu > 1
    assert loaded.use_hflip and loaded.gt_size == base.gt_size
    said = run(["relume", "check", "mine.yml"], folder).splitlines()
    assert "valid" in said[0] and len(said) == 3 and all("which drops source" in line for line in said[1:])
    out = run(["python", "train.py", "-opt", "mine.yml", "--force_yml", "train:total_iter=1", "val:val_freq=1"], folder)
    assert "6 per iteration" in out


SAID = {
    "check": "valid",
    "compare": "page.html",
    "describe": "mine.yml:2",
    "download": "realesrgan-x4plus",
    "explain": "val.tile",
    "export": "mine.onnx",
    "infer": "3 of 3",
    "list": "quickstart.yml",
    "runs": "mine_ema",
    "sweep": "mine_lr_1e-3",
    "template": "NAFNet",
    "test": "net_g_best.pth",
}
"""A word of what each command prints."""


def test_what_comes_after_a_training(folder: Path) -> None:
    for command in (c for c in COMMANDS if "train.py -opt mine.yml" in c and re.search("--auto_resume|mine_ema", c)):
        trained(command, folder)
    for command in (c for c in COMMANDS if re.match(r"relume|python test\.py", c)):
        words = shlex.split(command.partition(" > ")[0])
        name = "test" if "test.py" in words else words[1]
        if name == "export" and not os.environ.get("RELUME_SLOW_TESTS"):
            continue  # a minute for a network of this size; tests/archs/test_onnx.py exports smaller ones
        assert SAID[name] in run(words, folder), command


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_do_what_the_readme_says(command: str) -> None:
    steps = run(["make", "-n", *shlex.split(command)[1:]], REPO)
    assert re.search(r"train\.py -opt options/quickstart\.yml|-m pytest", steps)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("pip")])
def test_pip_commands(command: str) -> None:
    words = [sys.executable, "-m", *shlex.split(command), "--no-deps", "--no-build-isolation", "--dry-run", "--quiet"]
    run(words, REPO)


def test_the_component_of_the_readme_trains(folder: Path) -> None:
    run(["python", "train.py", "-opt", "tiny.yml", "--force_yml", *SHORTER], folder)
    assert (folder / "experiments" / "tiny" / "models" / "net_g_2.pth").exists()


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]*\w[^)#:]*)\)", README):
        assert (REPO / target).exists(), target
    for target in re.findall(r"`((?:options|tools|core|docs)/[\w./]+)`", README):
        assert (REPO / target).exists(), target
